"""Batches in which every layer of a model has its own few edges: FastGCN and LADIES."""

from abc import abstractmethod
from collections.abc import Iterator
from functools import cached_property

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphsparse.loader.batches import Batches, check_graph, cut_out, shuffled_groups, train_nodes
from graphsparse.loader.in_graph import InGraph, cumulative, from_cumulative
from graphsparse.ops.check import check_count


class LayerwiseBatches(Batches):
    """Shuffled training nodes, and for each layer, from the last one down, a sample of the edges into its nodes.

    The nodes of a layer are nodes of the layer before, too, for models that take something from a node itself.

    Args:
        data: The graph, with ``train_mask`` and ``edge_weight``.
        num_layers: Message passing layers of the model.
        batch_size: Seeds in a batch.
        layer_size: Draws for a layer.
        seed: Seed of the batches.
    """

    needs_weighted_sums = True

    def __init__(
        self, data: Data, *, num_layers: int = 2, batch_size: int = 512, layer_size: int = 512, seed: int = 0
    ) -> None:
        self.num_layers = check_count(num_layers, "num_layers")
        self.batch_size = check_count(batch_size, "batch_size")
        self.layer_size = check_count(layer_size, "layer_size")
        check_graph(data, train=True, weights=True)
        super().__init__(data, seed)
        self._seeds = train_nodes(data)
        self._graph = InGraph(data.edge_index, data.num_nodes)
        self._weight = self._graph.by_destination(data.edge_weight.detach().cpu())

    def __iter__(self) -> Iterator[Data]:
        """Shuffle the seeds and draw for every layer anew."""
        for seeds in shuffled_groups(self._seeds, self.batch_size, self.generator):
            yield self._batch(seeds)

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return -(-self._seeds.numel() // self.batch_size)

    @abstractmethod
    def _reweigh(self, source: Tensor, target: Tensor, weight: Tensor, num_targets: int) -> Tensor:
        """Return new weights ``[m]`` for all edges into some nodes, 0 for those that are not drawn."""

    def _batch(self, seeds: Tensor) -> Data:
        graph = self._graph
        layers: list[tuple[Tensor, Tensor, Tensor]] = []
        upper = seeds
        for _ in range(self.num_layers):
            place, target = graph.into(upper)
            source, weight = graph.source[place].long(), self._weight[place].double()
            weight = self._reweigh(source, target, weight, upper.numel())
            drawn = weight != 0
            source, weight = source[drawn], weight[drawn].to(self._weight.dtype)
            layers.insert(0, (source, upper[target[drawn]], weight))
            upper = torch.unique(torch.cat([upper, source]))
        with graph.numbered(seeds) as position:
            others = torch.unique(torch.cat([source for source, _, _ in layers]))
            others = others[position[others] < 0]
        nodes = torch.cat([seeds, others])
        batch = cut_out(self.data, nodes)
        device = self.data.edge_index.device
        with graph.numbered(nodes) as position:
            batch.layer_edges = [
                (torch.stack([position[source], position[target]]).to(device), weight.to(device))
                for source, target, weight in layers
            ]
        batch.batch_size = seeds.numel()
        return batch


class FastGCNBatches(LayerwiseBatches):
    r"""Every layer draws its nodes from the whole graph, independently of all other layers.

    With :math:`P_{vu}` the weight of the edge from :math:`u` to :math:`v`, a layer draws :math:`s` nodes with
    replacement from :math:`q_u \propto \lVert P_{:,u} \rVert^2`, and

    .. math::
        \sum_u P_{vu} h_u \approx \frac{1}{s} \sum_{i=1}^{s} \frac{P_{v u_i}}{q_{u_i}} h_{u_i},

    which is right on average for every node :math:`v`. A batch is a ``Data`` of all nodes that any layer needs, each of
    them once, seeds first, their number as ``batch_size``. It has no ``edge_index`` but ``layer_edges``, for each layer
    a pair of edges ``[2, m]`` and weights ``[m]``; :func:`~graphsparse.utils.call_model.call_model`, and so
    :func:`~graphsparse.training.fit`, gives the layers of a model its own ones in the order in which they are called.

    The model must sum weighted messages, such as ``GCN(..., normalize=False)`` on ``T.GCNNorm()(data)``; see
    :func:`~graphsparse.loader.batches.check_sums_weighted_messages`. Batch normalisation would see nodes that a
    layer does not need, and whose sums are therefore not computed.

    Args:
        data: The graph, with ``train_mask``, and with :math:`P` as ``edge_weight``, not negative.
        num_layers: Message passing layers of the model.
        batch_size: Seeds in a batch.
        layer_size: Draws :math:`s` for a layer.
        seed: Seed of the batches.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range, or ``edge_index``, ``edge_weight`` or training nodes are missing.

    Example:
        >>> from torch_geometric.transforms import GCNNorm
        >>> from graphsparse.testing import random_graph
        >>> loader = FastGCNBatches(GCNNorm()(random_graph()), num_layers=3, batch_size=5, layer_size=8)
        >>> batch = next(iter(loader))
        >>> len(loader), batch.batch_size, len(batch.layer_edges)
        (4, 5, 3)

    Source: Chen, Ma and Xiao, *FastGCN*, arXiv 1801.10247, Section 3.1 and equation 10.
    """

    @cached_property
    def _share(self) -> Tensor:
        """The probability of each node, ``[N]``."""
        share = sum_by(self._graph.source.long(), self._weight.double().square(), self._graph.num_nodes)
        return share / share.sum().clamp(min=torch.finfo(torch.float64).tiny)

    @cached_property
    def _cumulative(self) -> Tensor:
        return cumulative(self._share)

    def _reweigh(self, source: Tensor, target: Tensor, weight: Tensor, num_targets: int) -> Tensor:
        draws = from_cumulative(self._cumulative, self.layer_size, self.generator)
        drawn, times = torch.unique(draws, return_counts=True)
        factor = torch.zeros(self._graph.num_nodes, dtype=torch.float64)
        factor[drawn] = times / (self.layer_size * self._share[drawn])
        return weight * factor[source]


class LadiesBatches(LayerwiseBatches):
    r"""Every layer draws its nodes among the neighbours of those of the layer above.

    With :math:`U` the nodes of the layer above and :math:`P_{vu}` the weight of the edge from :math:`u` to :math:`v`, a
    layer draws :math:`s` nodes with replacement from :math:`q_u \propto \lVert P_{U,u} \rVert^2`, weighs the edges from
    them by :math:`1 / (s q_u)`, and scales the weights of each row to their sum in :math:`P`; in a :math:`P` whose rows
    sum to 1 that is their division by their sum. Scaled, the estimate has less variance, and a bias of order
    :math:`1 / s`. Where there are no more neighbours than draws, all of them are taken, and the sum is exact.

    A batch has the form of those of :class:`FastGCNBatches`, and the same conditions on the model hold.

    Args:
        data: The graph, with ``train_mask``, and with :math:`P` as ``edge_weight``, not negative.
        num_layers: Message passing layers of the model.
        batch_size: Seeds in a batch.
        layer_size: Draws :math:`s` for a layer.
        seed: Seed of the batches.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range, or ``edge_index``, ``edge_weight`` or training nodes are missing.

    Example:
        >>> from torch_geometric.transforms import GCNNorm
        >>> from graphsparse.testing import random_graph
        >>> loader = LadiesBatches(GCNNorm()(random_graph()), batch_size=5, layer_size=8)
        >>> batch = next(iter(loader))
        >>> int(batch.layer_edges[1][0][0].unique().numel()) <= 8
        True

    Source: Zou et al., *Layer-Dependent Importance Sampling*, arXiv 1911.07323, Section 4 and algorithm 1.
    """

    def _reweigh(self, source: Tensor, target: Tensor, weight: Tensor, num_targets: int) -> Tensor:
        candidates, inverse = torch.unique(source, return_inverse=True)
        share = sum_by(inverse, weight.square(), candidates.numel())
        if int((share > 0).sum()) <= self.layer_size:
            return weight
        share /= share.sum()
        draws = from_cumulative(cumulative(share), self.layer_size, self.generator)
        drawn, times = torch.unique(draws, return_counts=True)
        factor = torch.zeros_like(share)
        factor[drawn] = times / (self.layer_size * share[drawn])
        found = weight * factor[inverse]
        total, part = sum_by(target, weight, num_targets), sum_by(target, found, num_targets)
        return found * torch.where(part > 0, total / part, 0.0)[target]


def sum_by(group: Tensor, value: Tensor, num_groups: int) -> Tensor:
    """Return the sum of the values ``[m]`` of each group, ``[num_groups]``."""
    return torch.zeros(num_groups, dtype=value.dtype).index_add_(0, group, value)
