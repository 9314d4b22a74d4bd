"""The undirected view of an edge list: every edge once, whatever order, direction or duplicates it came in."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from graphsparse.ops.blocks import blocks
from graphsparse.ops.check import check_edge_index
from graphsparse.ops.pairs import both_ways, collect_keys, find_sorted, key_blocks, pair_keys
from graphsparse.ops.sort import stable_order


class UndirectedEdges(NamedTuple):
    """The undirected edges of a graph, without self-loops, each one once.

    An edge ``{u, v}`` with ``u < v`` is stored as the key ``u * num_nodes + v``; keys are sorted, so the position of a
    key is the canonical id of the edge, the same for every order of the input.
    """

    key: Tensor
    num_nodes: int

    @property
    def num_edges(self) -> int:
        """Number of undirected edges."""
        return self.key.numel()

    def blocks(self) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Yield ``(slice, u, v)`` for blocks of edges in canonical order."""
        return key_blocks(self.key, self.num_nodes)

    def degree(self) -> Tensor:
        """Return the number of neighbours of every node as int64 ``[N]``."""
        degree = torch.zeros(self.num_nodes, dtype=torch.int64, device=self.key.device)
        for _, u, v in self.blocks():
            degree += torch.bincount(u, minlength=self.num_nodes)
            degree += torch.bincount(v, minlength=self.num_nodes)
        return degree

    def csr(self) -> tuple[Tensor, Tensor]:
        """Return ``(pointer [N + 1], neighbour [2M])``, int64, with both directions of every edge and each row sorted.

        Besides its result it holds one block: on CPU both directions are sorted in place.
        """
        neighbour = both_ways(self.key, self.num_nodes)
        for where in blocks(neighbour.numel()):
            neighbour[where] %= self.num_nodes
        pointer = torch.zeros(self.num_nodes + 1, dtype=torch.int64, device=self.key.device)
        torch.cumsum(self.degree(), 0, out=pointer[1:])
        return pointer, neighbour

    def position(self, u: Tensor, v: Tensor) -> Tensor:
        """Return the canonical ids of the edges between some nodes, all of which must be there, in any direction."""
        return find_sorted(pair_keys((u, v), self.num_nodes), self.key)

    def fill(self, of_pair: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Return a number for each edge ``[M]`` from a function of both ends ``u < v``, called with parts of the edges.

        Example:
            >>> undirected_edges(torch.tensor([[0, 2], [1, 1]])).fill(lambda u, v: u + v)
            tensor([1, 3])
        """
        nothing = self.key[:0]
        values = of_pair(nothing, nothing).new_empty(self.num_edges)
        for where, u, v in self.blocks():
            values[where] = of_pair(u, v)
        return values

    def by_higher_end(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the edges at each node: ``(as lower end [N + 1], as higher end [N + 1], order [M])``.

        Node ``i`` is the lower end of the edges ``lower[i]`` to ``lower[i + 1]``, in canonical order, and the higher
        end of those that ``order`` has from ``higher[i]`` to ``higher[i + 1]``.
        """
        lower, higher = (self.key.new_zeros(self.num_nodes + 1) for _ in range(2))
        end = self.key.new_empty(self.num_edges, dtype=torch.int32 if self.num_nodes < 2**31 else torch.int64)
        for where, u, v in self.blocks():
            lower[1:] += torch.bincount(u, minlength=self.num_nodes)
            higher[1:] += torch.bincount(v, minlength=self.num_nodes)
            end[where] = v
        lower, higher = lower.cumsum(0), higher.cumsum(0)
        if end.device.type != "cpu" or end.dtype != torch.int32 or self.num_edges >= 2**31:
            return lower, higher, stable_order(end.long(), self.num_nodes)
        # Rows to columns is one pass; a sort would take several times as long.
        ids = np.arange(self.num_edges, dtype=np.int32)
        shape = (self.num_nodes, self.num_nodes)
        matrix = sparse.csr_array((ids, end.numpy(), lower.numpy().astype(np.int32)), shape=shape)
        return lower, higher, torch.from_numpy(matrix.tocsc().data)


def entry_blocks(edge_index: Tensor, num_src: int | None = None) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Yield ``(slice, low, high)``: the end points of each entry as int64, the smaller one first.

    With ``num_src`` the graph is bipartite, and destination nodes are numbered after the source nodes.
    """
    edge_index = edge_index.as_subclass(Tensor)
    for where in blocks(edge_index.size(1)):
        src, dst = edge_index[:, where].to(torch.int64)
        if num_src is not None:
            dst = dst + num_src
        yield where, torch.minimum(src, dst), torch.maximum(src, dst)


def undirected_edges(
    edge_index: Tensor, num_nodes: int | tuple[int, int] | None = None, *, directed: bool = False
) -> UndirectedEdges:
    r"""Return the undirected edges of an edge list: self-loops dropped, duplicates and both directions joined.

    One in-place sort of the keys :math:`\min(u, v) \cdot N + \max(u, v)` serves every input, in any order. Besides the
    input it holds 8 bytes per entry.

    Args:
        edge_index: Edges as ``[2, E]``, int64 or int32.
        num_nodes: Number of nodes, or ``(num_src, num_dst)`` for a bipartite graph, whose destination nodes are then
            numbered after its source nodes.
        directed: Take each directed entry for an edge of its own, from the source side of a node to the destination
            side of another one: destinations are numbered after all sources.
    """
    num_src, num_dst = check_edge_index(edge_index, num_nodes)
    two_sides = isinstance(num_nodes, tuple) or directed
    total = num_src + num_dst if two_sides else num_src
    loop = num_src if directed and not isinstance(num_nodes, tuple) else 0  # from one end of a self-loop to the other
    ends = entry_blocks(edge_index, num_src if two_sides else None)
    parts = (pair_keys((low, high), total, directed=True)[low + loop != high] for _, low, high in ends)
    if edge_index.device.type == "cpu":
        return UndirectedEdges(collect_keys(parts, edge_index.size(1)), total)
    return UndirectedEdges(torch.unique(torch.cat([edge_index.new_empty(0, dtype=torch.int64), *parts])), total)
