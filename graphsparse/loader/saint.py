"""Subgraphs of random walks, normalised so that losses and sums over neighbours are right on average."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphsparse.loader.batches import Batches, check_graph, cut_out
from graphsparse.loader.in_graph import InGraph, uniform
from graphsparse.metrics.labels import is_labelled
from graphsparse.ops.check import check_count, check_number


class SaintWalkBatches(Batches):
    r"""The subgraphs that random walks induce, with the two normalisations of GraphSAINT.

    Each batch draws ``roots`` nodes uniformly, with replacement, and walks ``walk_length`` steps from each, from a node
    to one of those that it receives messages from; a node without any stays. The batch is the subgraph induced by all
    nodes that were met.

    Nodes that are met often would count too much. So, when the loader is made, subgraphs are drawn until they hold
    ``coverage`` times as many nodes as the graph; with :math:`C_v` and :math:`C_{uv}` the number of those, of
    :math:`M`, that hold a node and an edge,

    .. math::
        \tilde w_{uv} = w_{uv} \frac{C_v}{C_{uv}}, \qquad \ell_v = \frac{M}{C_v T},

    where :math:`w` is ``data.edge_weight`` and :math:`T` the number of training nodes; a count of 0 is taken for 1.
    ``edge_weight`` of a batch is :math:`\tilde w`: a sum of weighted messages then estimates that over the whole graph,
    without bias up to the error of the counts. ``loss_weight`` is :math:`\ell`: the sum of the losses of the training
    nodes of a batch with these weights, which is what :func:`~graphsparse.training.fit` takes, estimates their mean
    over the whole graph.

    The weights say something only to a model that sums weighted messages, such as ``GCN(..., normalize=False)`` on
    ``T.GCNNorm()(data)``; see :func:`~graphsparse.loader.batches.check_sums_weighted_messages`.

    Args:
        data: The graph, with ``train_mask``, and with ``edge_weight`` unless ``coverage`` is 0.
        roots: Walks in a batch.
        walk_length: Steps of a walk.
        num_steps: Batches of an epoch; as many as it takes to draw about every node once when ``None``.
        coverage: How many times the graph is drawn for the counts, which takes about as long as so many epochs. With 0
            there is no normalisation and no ``loss_weight``, and edge weights stay as they are.
        seed: Seed of the counts and of the batches.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range, or ``edge_index``, ``edge_weight`` or training nodes are missing.

    Example:
        >>> from torch_geometric.transforms import GCNNorm
        >>> from graphsparse.testing import random_graph
        >>> loader = SaintWalkBatches(GCNNorm()(random_graph()), roots=6, walk_length=2)
        >>> batch = next(iter(loader))
        >>> len(loader), batch.edge_weight.shape == batch.e_id.shape, batch.loss_weight.shape == batch.n_id.shape
        (4, True, True)

    Source: Zeng et al., *GraphSAINT*, arXiv 1907.04931, Sections 3.2 to 3.4 and algorithm 2; counts as in Section 3.3.
    """

    def __init__(
        self,
        data: Data,
        *,
        roots: int = 1000,
        walk_length: int = 2,
        num_steps: int | None = None,
        coverage: float = 50,
        seed: int = 0,
    ) -> None:
        check_count(roots, "roots")
        check_count(walk_length, "walk_length")
        check_count(1 if num_steps is None else num_steps, "num_steps")
        check_number(coverage, "coverage", least=0)
        check_graph(data, train=True, weights=coverage > 0)
        super().__init__(data, seed)
        self.batch_size, self.walk_length = roots, walk_length
        self.num_steps = num_steps or -(-data.num_nodes // (roots * (walk_length + 1)))
        self.needs_weighted_sums = coverage > 0
        self.num_counted = 0
        self._graph = InGraph(data.edge_index, data.num_nodes)
        y = data.get("y")  # training nodes without a label have no loss
        self._num_train = int((data.train_mask & is_labelled(y) if isinstance(y, Tensor) else data.train_mask).sum())
        if coverage > 0:
            self._count(coverage)

    def __iter__(self) -> Iterator[Data]:
        """Walk anew."""
        for _ in range(self.num_steps):
            nodes, edge_index, place = self._draw()
            batch = cut_out(self.data, nodes, edge_index, self._graph.edge_id(place))
            if self.num_counted:
                count = self._node_count[nodes]
                factor = count[edge_index[1]].double() / self._edge_count[place].clamp(min=1)
                batch.edge_weight = batch.edge_weight * factor.to(batch.edge_weight)
                batch.loss_weight = (self.num_counted / (count.double() * self._num_train)).to(batch.edge_weight)
            yield batch

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return self.num_steps

    def _count(self, coverage: float) -> None:
        """Count, over many subgraphs, how often each node and each edge is in one."""
        graph = self._graph
        self._node_count = torch.zeros(graph.num_nodes, dtype=torch.int32)
        self._edge_count = torch.zeros(graph.source.numel(), dtype=torch.int32)
        drawn = 0
        while drawn < coverage * graph.num_nodes:
            nodes, _, place = self._draw()
            self._node_count[nodes] += 1
            self._edge_count[place] += 1
            drawn += nodes.numel()
            self.num_counted += 1
        self._node_count.clamp_(min=1)

    def _draw(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the nodes of a subgraph, its edges as positions in them, and the places of its edges."""
        graph = self._graph
        node = torch.randint(graph.num_nodes, (self.batch_size,), generator=self.generator)
        met = [node]
        for step in uniform(self.walk_length, self.batch_size, generator=self.generator):
            start = graph.rowptr[node]
            count = graph.rowptr[node + 1] - start
            place = start + torch.minimum((step * count).long(), count - 1)
            moves = count > 0
            node = node.clone()
            node[moves] = graph.source[place[moves]].long()
            met.append(node)
        nodes: Tensor = torch.unique(torch.cat(met))
        return nodes, *graph.between(nodes)
