"""The entries of an edge list and its undirected edges: which edge each entry is, found once."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from graphsparse.edges.undirected import UndirectedEdges, entry_blocks
from graphsparse.ops.blocks import blocks
from graphsparse.ops.check import check_edge_index
from graphsparse.ops.pairs import pair_keys, unique_with_places
from graphsparse.ops.sort import index_dtype


class Entries:
    """An edge list with its edges, each of which may have several entries; self-loops are entries of no edge.

    Args:
        edge_index: Edges as ``[2, E]``, int64 or int32, in any order.
        num_nodes: Number of nodes, or ``(num_src, num_dst)`` for a bipartite graph.
        directed: Each directed entry is an edge of its own, between the source side of a node, numbered first, and the
            destination side of another one; without it both directions are one edge.

    Attributes:
        edges: The edges, each once.

    Example:
        >>> entries = Entries(torch.tensor([[1, 0, 2, 2], [0, 1, 1, 2]]))
        >>> entries.per_entry(torch.tensor([10, 20]), loops=0)
        tensor([10, 10, 20,  0])
        >>> entries.per_edge(torch.tensor([1.0, 3.0, 5.0, 7.0]), "mean")
        tensor([2., 5.], dtype=torch.float64)
    """

    def __init__(
        self, edge_index: Tensor, num_nodes: int | tuple[int, int] | None = None, *, directed: bool = False
    ) -> None:
        self.edge_index, self.directed = edge_index, directed
        self._num_src, num_dst = check_edge_index(edge_index, num_nodes)
        bipartite = isinstance(num_nodes, tuple)
        self.num_nodes = (self._num_src, num_dst) if bipartite else self._num_src
        self._two_sides = bipartite or directed
        self._loop = self._num_src if directed and not bipartite else 0
        self._sorted = None if self._two_sides else _sorted_list(edge_index.as_subclass(Tensor), self._num_src)
        self._place: Tensor | None = None  # the edge of each entry, the number of edges for a self-loop
        if self._sorted is not None:
            self.edges = self._sorted.edges
            return
        total = self._num_src + num_dst if self._two_sides else self._num_src
        loop = total * total  # sorted behind all edges
        bound, device = loop + 1, edge_index.device
        key, self._place = unique_with_places(lambda: self._keys(total, loop), edge_index.size(1), bound, device)
        has_loops = key.numel() > 0 and int(key[-1]) == loop
        self.edges = UndirectedEdges(key[:-1] if has_loops else key, total)

    def _keys(self, total: int, loop: int) -> Iterator[Tensor]:
        """Yield the keys of blocks of entries, the same one for all self-loops."""
        for _, low, high in entry_blocks(self.edge_index, self._num_src if self._two_sides else None):
            yield pair_keys((low, high), total, directed=True).masked_fill_(low + self._loop == high, loop)

    def undirected(self) -> "Entries":
        """Return the same list with both directions of an edge as one."""
        return Entries(self.edge_index, self.num_nodes) if self.directed else self

    def per_entry(self, values: Tensor, loops: float) -> Tensor:
        """Return the value of its edge for each entry ``[E]``, from one per edge ``[M]``; another for self-loops."""
        if self._place is not None:
            return torch.cat([values, values.new_full((1,), loops)]).index_select(0, self._place)
        assert self._sorted is not None
        out = values.new_empty(self.edge_index.size(1))
        below = values[self._sorted.order]
        for where, above, edges, transposed in self._sorted.halves():
            out[where].masked_scatter_(above, values[edges]).masked_scatter_(~above, below[transposed])
        return out

    def remember(self) -> "Entries":
        """Note the edge of each entry of a sorted list, too, 4 bytes each: :meth:`per_entry` then takes less time."""
        if self._place is None:
            number = self.edges.num_edges
            ids = torch.arange(number, dtype=index_dtype(number), device=self.edge_index.device)
            self._place = self.per_entry(ids, loops=number)
        return self

    def per_edge(self, values: Tensor, reduce: str) -> Tensor:
        """Return the largest (``"amax"``) or mean (``"mean"``, float64) value of the entries of each edge ``[M]``."""
        if reduce == "mean":
            total, count = (self.edges.key.new_zeros(self.edges.num_edges, dtype=torch.float64) for _ in range(2))
            for where, entry, edge in self._places():
                total.index_add_(0, edge, values[where][entry].double())
                count.index_add_(0, edge, count.new_ones(edge.numel()))
            return total / count
        lowest = -torch.inf if values.is_floating_point() else torch.iinfo(values.dtype).min
        best = values.new_full((self.edges.num_edges,), lowest)
        for where, entry, edge in self._places():
            best.scatter_reduce_(0, edge, values[where][entry], "amax")
        return best

    def _places(self) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Yield ``(slice, entries of it that are no self-loops, their edges)`` for blocks of entries."""
        if self._place is not None:
            for where in blocks(self._place.numel()):
                edge = self._place[where].long()
                entry = (edge < self.edges.num_edges).nonzero().squeeze(1)
                yield where, entry, edge[entry]
            return
        assert self._sorted is not None
        for where, above, edges, transposed in self._sorted.halves():
            entry = torch.cat([above.nonzero().squeeze(1), (~above).nonzero().squeeze(1)])
            ids = torch.arange(edges.start, edges.stop, device=entry.device)
            yield where, entry, torch.cat([ids, self._sorted.order[transposed].long()])


class _SortedList(NamedTuple):
    """A list with both directions of every edge, as ``coalesce`` and ``to_undirected`` return it.

    Its entries above the diagonal are the edges in their order, those below it the edges in the order of their higher
    ends: neither is to be sorted, nor to be looked for.
    """

    row: Tensor
    col: Tensor
    edges: UndirectedEdges
    order: Tensor

    def halves(self) -> Iterator[tuple[slice, Tensor, slice, slice]]:
        """Yield ``(slice, which of its entries are above the diagonal, their edges, places in order of the rest)``."""
        above = below = 0
        for where in blocks(self.row.numel()):
            first = self.row[where] < self.col[where]
            count = int(first.count_nonzero())
            rest = first.numel() - count
            yield where, first, slice(above, above + count), slice(below, below + rest)
            above, below = above + count, below + rest


def _sorted_list(edge_index: Tensor, num_nodes: int) -> _SortedList | None:
    """Return a list as one with both directions of every edge, sorted by its first or by its second row, if it is."""
    src, dst = edge_index
    half = src.numel() // 2
    for row, col in ((src, dst), (dst, src)):
        keys = tuple(row.new_empty(half, dtype=torch.int64) for _ in range(2))  # the first is kept, without the other
        above = below = 0
        last = -1
        for where in blocks(row.numel()):
            u, v = row[where].long(), col[where].long()
            key = u * num_nodes + v
            first = u < v
            count = int(first.count_nonzero())
            rest = key.numel() - count
            if above + count > half or below + rest > half or last >= int(key[0]) or bool((key[1:] <= key[:-1]).any()):
                break
            torch.masked_select(key, first, out=keys[0][above : above + count])
            keys[1][below : below + rest] = (v * num_nodes + u)[~first]
            above, below, last = above + count, below + rest, int(key[-1])
        if above + below < row.numel() or 2 * above != row.numel():
            continue
        edges = UndirectedEdges(keys[0], num_nodes)
        order = edges.by_higher_end()[2]
        if all(torch.equal(keys[0][order[where]], keys[1][where]) for where in blocks(half)):
            return _SortedList(row, col, edges, order)
    return None


def check_edge_weight(edge_weight: Tensor, edge_index: Tensor, name: str = "edge_weight") -> Tensor:
    """Return weights of the entries ``[E]``; refuse what is no number from 0 up for each."""
    if not isinstance(edge_weight, Tensor) or edge_weight.is_complex() or edge_weight.dtype == torch.bool:
        got = edge_weight.dtype if isinstance(edge_weight, Tensor) else type(edge_weight).__name__
        raise TypeError(f"'{name}' must be a tensor of real numbers (got {got})")
    weight = edge_weight.detach()
    weight = weight.squeeze(1) if weight.dim() == 2 and weight.size(1) == 1 else weight
    if weight.shape != (edge_index.size(1),):
        raise ValueError(f"'{name}' must have shape [{edge_index.size(1)}] (got {list(edge_weight.shape)})")
    if weight.numel() and not (bool((weight >= 0).all()) and bool(torch.isfinite(weight).all())):
        bad = weight[~(torch.isfinite(weight) & (weight >= 0))][0]
        raise ValueError(f"'{name}' must be finite and not negative (got {float(bad)})")
    return weight
