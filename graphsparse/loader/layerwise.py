"""Batches in which every layer of a model has its own few edges: FastGCN and LADIES."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphsparse.loader.batches import (
    Batches,
    check_flag,
    check_graph,
    cut_out,
    shuffled_groups,
    train_nodes,
)
from graphsparse.loader.draws import cumulative, from_cumulative, with_replacement, without_replacement
from graphsparse.loader.in_graph import InGraph
from graphsparse.ops.check import check_count


class LayerwiseBatches(Batches):
    """Shuffled training nodes, and for each layer, from the last one down, a sample of the edges into its nodes.

    Args:
        data: The graph, with ``train_mask`` and ``edge_weight``.
        num_layers: Message passing layers of the model.
        batch_size: Seeds in a batch.
        layer_size: Draws for a layer; or one number for each layer, the first layer's first.
        debias: Whether to weigh what is drawn; otherwise the mean over it is taken, see :class:`FastGCNBatches`.
        keep_targets: Whether the nodes of a layer are nodes of the layer before, too.
        seed: Seed of the batches.
    """

    needs_weighted_sums = True

    def __init__(
        self,
        data: Data,
        *,
        num_layers: int = 2,
        batch_size: int = 512,
        layer_size: int | Sequence[int] = 512,
        debias: bool = True,
        keep_targets: bool = True,
        seed: int = 0,
    ) -> None:
        check_count(num_layers, "num_layers")
        check_count(batch_size, "batch_size")
        check_flag(debias, "debias")
        check_flag(keep_targets, "keep_targets")
        sizes: tuple[Any, ...] = (
            tuple(layer_size) if isinstance(layer_size, list | tuple) else (layer_size,) * num_layers
        )
        for size in sizes:
            check_count(size, "layer_size")
        if len(sizes) != num_layers:
            raise ValueError(f"'layer_size' must hold one number for each of {num_layers} layers (got {layer_size!r})")
        check_graph(data, train=True, weights=True)
        super().__init__(data, seed)
        self.layer_size, self.batch_size = sizes, batch_size
        self.debias, self.keeps_targets = debias, keep_targets
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
    def _reweigh(self, source: Tensor, target: Tensor, weight: Tensor, num_targets: int, size: int) -> Tensor:
        """Return new weights ``[m]`` for all edges into some nodes, 0 for those that are not drawn."""

    def _batch(self, seeds: Tensor) -> Data:
        graph = self._graph
        layers: list[tuple[Tensor, Tensor, Tensor]] = []
        upper = seeds
        for size in reversed(self.layer_size):
            place, target = graph.into(upper)
            source, weight = graph.source[place].long(), self._weight[place].double()
            if self.debias:
                weight = self._reweigh(source, target, weight, upper.numel(), size)
            else:
                weight = self._mean(source, target, upper.numel(), size)
            drawn = weight != 0
            source, weight = source[drawn], weight[drawn].to(self._weight.dtype)
            layers.insert(0, (source, upper[target[drawn]], weight))
            upper = torch.unique(torch.cat([upper, source]) if self.keeps_targets else source)
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

    def _mean(self, source: Tensor, target: Tensor, num_targets: int, size: int) -> Tensor:
        """Draw nodes in proportion to 1 / degree, without replacement, and take the mean over the edges from them."""
        candidates, inverse = torch.unique(source, return_inverse=True)
        degree = self._graph.rowptr[candidates + 1] - self._graph.rowptr[candidates]
        num = min(size, candidates.numel())
        drawn = torch.zeros(candidates.numel(), dtype=torch.float64)
        drawn[without_replacement(1 / degree.clamp(min=1).double(), num, self.generator)] = 1
        weight = drawn[inverse]
        return weight / sum_by(target, weight, num_targets).clamp(min=1)[target]


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
    :func:`~graphsparse.loader.check_sums_weighted_messages`. Batch normalisation would see nodes that a layer does not
    need, and whose sums are therefore not computed.

    Args:
        data: The graph, with ``train_mask``, and with :math:`P` as ``edge_weight``, not negative.
        num_layers: Message passing layers of the model.
        batch_size: Seeds in a batch.
        layer_size: Draws :math:`s` for a layer; or one number for each layer, the first layer's first.
        debias: Whether to weigh what is drawn. Otherwise, in both samplers of this kind, nodes are drawn without
            replacement among those with an edge into the layer above, in proportion to 1 / in-degree, and the mean
            over the edges from them is taken, whatever their weights: what the release of graph ladling does (there
            FastGCN does not keep targets). It estimates a mean over neighbours, with a bias.
        keep_targets: Whether the nodes of a layer are nodes of the layer before, too. It takes up to twice the memory;
            without it a model must take nothing from a node itself, but its sampled neighbours: no root weight, no
            residual connection, no jumping knowledge.
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

    def __init__(
        self,
        data: Data,
        *,
        num_layers: int = 2,
        batch_size: int = 512,
        layer_size: int | Sequence[int] = 512,
        debias: bool = True,
        keep_targets: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__(
            data,
            num_layers=num_layers,
            batch_size=batch_size,
            layer_size=layer_size,
            debias=debias,
            keep_targets=keep_targets,
            seed=seed,
        )
        square = self._weight.double().square()
        self._share = sum_by(self._graph.source.long(), square, self._graph.num_nodes)
        self._share /= self._share.sum().clamp(min=torch.finfo(torch.float64).tiny)
        self._cumulative = cumulative(self._share)

    def _reweigh(self, source: Tensor, target: Tensor, weight: Tensor, num_targets: int, size: int) -> Tensor:
        draws = from_cumulative(self._cumulative, size, self.generator)
        drawn, times = torch.unique(draws, return_counts=True)
        factor = torch.zeros(self._graph.num_nodes, dtype=torch.float64)
        factor[drawn] = times / (size * self._share[drawn])
        return weight * factor[source]


class LadiesBatches(LayerwiseBatches):
    r"""Every layer draws its nodes among the neighbours of those of the layer above.

    With :math:`U` the nodes of the layer above and :math:`P_{vu}` the weight of the edge from :math:`u` to :math:`v`, a
    layer draws :math:`s` nodes with replacement from :math:`q_u \propto \lVert P_{U,u} \rVert^2`, weighs the edges from
    them by :math:`1 / (s q_u)`, and scales the weights of each row to their sum in :math:`P`; in a :math:`P` whose rows
    sum to 1 that is their division by their sum. Scaled, the estimate has less variance, and a bias of order
    :math:`1 / s`; without it (``row_normalize=False``) there is no bias. Where there are no more neighbours than draws,
    all of them are taken, and the sum is exact.

    A batch has the form of those of :class:`FastGCNBatches`, and the same conditions on the model hold.

    Args:
        data: The graph, with ``train_mask``, and with :math:`P` as ``edge_weight``, not negative.
        num_layers: Message passing layers of the model.
        batch_size: Seeds in a batch.
        layer_size: Draws :math:`s` for a layer; or one number for each layer, the first layer's first.
        debias: Whether to weigh what is drawn, see :class:`FastGCNBatches`.
        row_normalize: Whether to scale the weights of each row.
        keep_targets: Whether the nodes of a layer are nodes of the layer before, too, see :class:`FastGCNBatches`.
        seed: Seed of the batches.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range, or ``edge_index``, ``edge_weight`` or training nodes are missing.

    Example:
        >>> from torch_geometric.transforms import GCNNorm
        >>> from graphsparse.testing import random_graph
        >>> loader = LadiesBatches(GCNNorm()(random_graph()), batch_size=5, layer_size=[12, 8])
        >>> batch = next(iter(loader))
        >>> int(batch.layer_edges[1][0][0].unique().numel()) <= 8
        True

    Source: Zou et al., *Layer-Dependent Importance Sampling*, arXiv 1911.07323, Section 4 and algorithm 1.
    """

    def __init__(
        self,
        data: Data,
        *,
        num_layers: int = 2,
        batch_size: int = 512,
        layer_size: int | Sequence[int] = 512,
        debias: bool = True,
        row_normalize: bool = True,
        keep_targets: bool = True,
        seed: int = 0,
    ) -> None:
        check_flag(row_normalize, "row_normalize")
        super().__init__(
            data,
            num_layers=num_layers,
            batch_size=batch_size,
            layer_size=layer_size,
            debias=debias,
            keep_targets=keep_targets,
            seed=seed,
        )
        self.row_normalize = row_normalize

    def _reweigh(self, source: Tensor, target: Tensor, weight: Tensor, num_targets: int, size: int) -> Tensor:
        candidates, inverse = torch.unique(source, return_inverse=True)
        share = sum_by(inverse, weight.square(), candidates.numel())
        if int((share > 0).sum()) <= size:
            return weight
        share /= share.sum()
        drawn, times = torch.unique(with_replacement(share, size, self.generator), return_counts=True)
        factor = torch.zeros_like(share)
        factor[drawn] = times / (size * share[drawn])
        found = weight * factor[inverse]
        if self.row_normalize:
            total, part = sum_by(target, weight, num_targets), sum_by(target, found, num_targets)
            found *= torch.where(part > 0, total / part, 0.0)[target]
        return found


def sum_by(group: Tensor, value: Tensor, num_groups: int) -> Tensor:
    """Return the sum of the values ``[m]`` of each group, ``[num_groups]``."""
    return torch.zeros(num_groups, dtype=value.dtype).index_add_(0, group, value)
