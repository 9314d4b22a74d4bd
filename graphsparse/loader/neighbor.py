"""Batches of training nodes with a sample of the nodes around them."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphsparse.loader.batches import Batches, check_graph, cut_out, shuffled_groups, train_nodes
from graphsparse.loader.in_graph import InGraph, distinct_below
from graphsparse.ops.check import check_count, check_list


class NeighborBatches(Batches):
    r"""Shuffled training nodes, and some random neighbours of each node that they depend on.

    Hop 1 draws, for each seed, up to ``num_neighbors[0]`` of the edges into it; hop :math:`h` does so for each node
    that hop :math:`h - 1` came upon first. Draws are uniform and without replacement: a node with no more edges than
    the fan-out keeps all. A node that is met several times is in the batch once, and its edges are drawn once.

    A mean over the drawn edges estimates that over all. With all fan-outs -1 the logits of the seeds are those of the
    whole graph, for layers that look at edges alone. A layer that divides by the degrees of both ends, such as
    ``GCNConv``, sees the degrees of the batch instead.

    Args:
        data: The graph, with ``train_mask``.
        num_neighbors: Fan-out of each hop, the seeds' first, one per layer of the model; -1 for all.
        batch_size: Seeds in a batch.
        seed: Seed of the batches.

    Yields:
        Batches with seeds first, their number as ``batch_size``, and ``n_id`` ``[n]`` and ``e_id`` ``[m]``, the nodes
        and edges of ``data``.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range, or ``edge_index`` or training nodes are missing.

    Example:
        >>> from graphsparse.testing import random_graph
        >>> loader = NeighborBatches(random_graph(), num_neighbors=[3, 2], batch_size=8)
        >>> batch = next(iter(loader))
        >>> len(loader), batch.batch_size, int(batch.edge_index[1].bincount().max())
        (3, 8, 3)

    Source: Hamilton, Ying and Leskovec, arXiv 1706.02216, Section 3.1 and appendix A.
    """

    def __init__(
        self, data: Data, *, num_neighbors: Sequence[int] = (25, 10), batch_size: int = 1024, seed: int = 0
    ) -> None:
        check_graph(data, train=True)
        check_count(batch_size, "batch_size")
        fan_outs = check_list(num_neighbors, "num_neighbors", "a list of fan-outs, one per layer")
        for fan_out in fan_outs:
            check_count(fan_out, "num_neighbors", least=-1)
        if not fan_outs or 0 in fan_outs:
            raise ValueError(f"'num_neighbors' must hold positive fan-outs, or -1 for all (got {fan_outs})")
        super().__init__(data, seed)
        self.num_neighbors, self.batch_size = tuple(fan_outs), batch_size
        self._seeds = train_nodes(data)
        self._graph = InGraph(data.edge_index, data.num_nodes)

    def __iter__(self) -> Iterator[Data]:
        """Shuffle the seeds and draw their neighbours anew."""
        for seeds in shuffled_groups(self._seeds, self.batch_size, self.generator):
            nodes, edge_index, place = self._around(seeds)
            batch = cut_out(self.data, nodes, edge_index, self._graph.edge_id(place))
            batch.batch_size = seeds.numel()
            yield batch

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return -(-self._seeds.numel() // self.batch_size)

    def _around(self, seeds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the nodes of a batch, its edges as positions in them, and the places of its edges."""
        graph = self._graph
        nodes, frontier, start = seeds, seeds, 0
        places, targets = [], []
        for fan_out in self.num_neighbors:
            place, target = draw_into(graph, frontier, fan_out, self.generator)
            places.append(place)
            targets.append(target + start)
            start = nodes.numel()
            with graph.numbered(nodes) as position:
                source = graph.source[place].long()
                frontier = torch.unique(source[position[source] < 0])
            nodes = torch.cat([nodes, frontier])
        place = torch.cat(places)
        with graph.numbered(nodes) as position:
            edge_index = torch.stack([position[graph.source[place].long()], torch.cat(targets)])
        return nodes, edge_index, place


def draw_into(graph: InGraph, nodes: Tensor, num: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw up to ``num`` of the edges into each of some nodes, all of them with -1."""
    if num < 0:
        return graph.into(nodes)
    start = graph.rowptr[nodes]
    count = graph.rowptr[nodes + 1] - start
    many = (count > num).nonzero().view(-1)
    few = (count <= num).nonzero().view(-1)
    drawn = start[many, None] + distinct_below(count[many], num, generator)
    place, target = graph.into(nodes[few])
    place = torch.cat([place, drawn.view(-1)])
    target, order = torch.cat([few[target], many.repeat_interleave(num)]).sort(stable=True)
    return place[order], target
