"""The undirected view of an edge list: every edge once, whatever order, direction or duplicates it came in."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from graphsparse.ops.blocks import blocks
from graphsparse.ops.check import check_edge_index
from graphsparse.ops.pairs import both_ways, collect_keys, key_blocks, pair_keys


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
        return torch.searchsorted(self.key, pair_keys((u, v), self.num_nodes))


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


def undirected_edges(edge_index: Tensor, num_nodes: int | tuple[int, int] | None = None) -> UndirectedEdges:
    r"""Return the undirected edges of an edge list: self-loops dropped, duplicates and both directions joined.

    One in-place sort of the keys :math:`\min(u, v) \cdot N + \max(u, v)` serves every input, in any order. Besides the
    input it holds 8 bytes per entry.

    Args:
        edge_index: Edges as ``[2, E]``, int64 or int32.
        num_nodes: Number of nodes, or ``(num_src, num_dst)`` for a bipartite graph, whose destination nodes are then
            numbered after its source nodes.

    Raises:
        TypeError: If ``edge_index`` is not an integer tensor.
        ValueError: If its shape or an index is out of range.

    Example:
        >>> undirected_edges(torch.tensor([[0, 1, 2, 2], [1, 0, 2, 0]])).key
        tensor([1, 2])
    """
    num_src, num_dst = check_edge_index(edge_index, num_nodes)
    bipartite = isinstance(num_nodes, tuple)
    total = num_src + num_dst if bipartite else num_src
    ends = entry_blocks(edge_index, num_src if bipartite else None)
    parts = (pair_keys((low, high), total, directed=True)[low != high] for _, low, high in ends)
    if edge_index.device.type == "cpu":
        return UndirectedEdges(collect_keys(parts, edge_index.size(1)), total)
    return UndirectedEdges(torch.unique(torch.cat([edge_index.new_empty(0, dtype=torch.int64), *parts])), total)
