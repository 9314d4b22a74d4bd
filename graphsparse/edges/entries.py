"""The entries of an edge list and its undirected edges: which edge each entry is, found once."""

from collections.abc import Iterator
from functools import cached_property

import torch
from torch import Tensor

from graphsparse.edges.undirected import entry_blocks, undirected_edges
from graphsparse.ops.blocks import blocks
from graphsparse.ops.check import check_edge_index


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
        self.edges = undirected_edges(edge_index, num_nodes, directed=directed)
        self.edge_index, self.directed = edge_index, directed
        self._num_src, num_dst = check_edge_index(edge_index, num_nodes)
        bipartite = isinstance(num_nodes, tuple)
        self.num_nodes = (self._num_src, num_dst) if bipartite else self._num_src
        self._two_sides = bipartite or directed
        self._loop = self._num_src if directed and not bipartite else 0

    def undirected(self) -> "Entries":
        """Return the same list with both directions of an edge as one."""
        return Entries(self.edge_index, self.num_nodes) if self.directed else self

    def per_entry(self, values: Tensor, loops: float) -> Tensor:
        """Return the value of its edge for each entry ``[E]``, from one per edge ``[M]``; another for self-loops."""
        out = values.new_full((self.edge_index.size(1),), loops)
        for where, entry, edge in self._places():
            out[where][entry] = values[edge]
        return out

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
        if self._halves is not None:
            yield from _sorted_places(*self._halves)
            return
        for where, low, high in entry_blocks(self.edge_index, self._num_src if self._two_sides else None):
            entry = (low + self._loop != high).nonzero().squeeze(1)
            yield where, entry, self.edges.position(low[entry], high[entry])

    @cached_property
    def _halves(self) -> tuple[Tensor, Tensor, Tensor] | None:
        """Return ``(rows, columns, edges of the entries below the diagonal)`` of what ``to_undirected`` returns.

        ``None`` for a list that is not sorted, or holds self-loops, duplicates or one direction only: there each entry
        is looked for.
        """
        src, dst = self.edge_index.as_subclass(Tensor)
        if self._two_sides or src.numel() != 2 * self.edges.num_edges:
            return None
        # Distinct, half of them above the diagonal and half below, two for each edge: all are in both directions.
        for row, col in ((src, dst), (dst, src)):
            if _rises(row, col):
                above = sum(int((row[where] < col[where]).count_nonzero()) for where in blocks(row.numel()))
                below = sum(int((row[where] > col[where]).count_nonzero()) for where in blocks(row.numel()))
                return (row, col, self.edges.by_higher_end()[2]) if 2 * above == 2 * below == row.numel() else None
        return None


def _rises(row: Tensor, col: Tensor) -> bool:
    """Say whether entries are sorted by row, then by column, and distinct."""
    for where in blocks(max(row.numel() - 1, 0)):
        behind = slice(where.start + 1, where.stop + 1)
        if not bool(((row[where] < row[behind]) | ((row[where] == row[behind]) & (col[where] < col[behind]))).all()):
            return False
    return True


def _sorted_places(row: Tensor, col: Tensor, order: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Yield the places of a sorted, symmetric list: above the diagonal the edges in order, below it transposed."""
    above = below = 0
    for where in blocks(row.numel()):
        first = row[where] < col[where]
        entry = torch.cat([first.nonzero().squeeze(1), (~first).nonzero().squeeze(1)])
        end = above + int(first.count_nonzero())
        rest = slice(below, below + entry.numel() - (end - above))
        yield where, entry, torch.cat([torch.arange(above, end, device=row.device), order[rest].long()])
        above, below = end, rest.stop
