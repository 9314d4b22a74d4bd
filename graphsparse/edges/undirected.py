"""The undirected view of an edge list: every edge once, whatever order, direction or duplicates it came in."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from graphsparse.ops.blocks import blocks
from graphsparse.ops.check import check_edge_index


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
        for where in blocks(self.num_edges):
            key = self.key[where]
            u = key // max(self.num_nodes, 1)
            yield where, u, key - u * self.num_nodes

    def degree(self) -> Tensor:
        """Return the number of neighbours of every node as int64 ``[N]``."""
        degree = torch.zeros(self.num_nodes, dtype=torch.int64, device=self.key.device)
        for _, u, v in self.blocks():
            degree += torch.bincount(u, minlength=self.num_nodes)
            degree += torch.bincount(v, minlength=self.num_nodes)
        return degree

    def position(self, key: Tensor) -> Tensor:
        """Return the canonical ids of the given keys, all of which must be there."""
        return torch.searchsorted(self.key, key)


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
    buffer = np.empty(edge_index.size(1), dtype=np.int64) if edge_index.device.type == "cpu" else None
    keys = []
    filled = 0
    for _, low, high in entry_blocks(edge_index, num_src if bipartite else None):
        key = (low * total + high)[low != high]
        if buffer is None:
            keys.append(key)
        else:
            buffer[filled : filled + key.numel()] = key.numpy()
            filled += key.numel()
    if buffer is None:
        return UndirectedEdges(
            torch.unique(torch.cat(keys)) if keys else edge_index.new_empty(0, dtype=torch.int64), total
        )
    return UndirectedEdges(torch.from_numpy(_sorted_unique(buffer, filled)), total)


def _sorted_unique(values: np.ndarray, size: int) -> np.ndarray:
    """Sort ``values[:size]`` in place, drop repetitions in place, and give the unused memory back."""
    # NumPy's in-place sort of integers is vectorised and needs no index array; torch.sort returns one.
    values[:size].sort()
    kept = 0
    for where in blocks(size):
        block = values[where]
        new = np.empty(len(block), dtype=bool)
        new[0] = kept == 0 or block[0] != values[kept - 1]
        np.not_equal(block[1:], block[:-1], out=new[1:])
        unique = block[new]
        values[kept : kept + len(unique)] = unique
        kept += len(unique)
    values.resize(kept, refcheck=False)
    return values
