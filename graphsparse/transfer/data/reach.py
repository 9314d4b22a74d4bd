"""Scores of some nodes with all others within their reach, as rows of sparse products."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphsparse.ops.pairs import key_pairs, pair_keys, unique_keys

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
#: Entries of a block of rows that are aimed at, most rows of one, and rows of the first.
_ENTRIES, _ROWS, _FIRST = 1 << 24, 4096, 16


class Reach:
    r"""The links of a graph as a sparse matrix :math:`\mathbf{A}` on CPU, and scores that are products of some rows.

    Self-loops are left out, and repeated edges count once. Nothing is N x N: a row has an entry for each node that is
    within reach.

    Args:
        edge_index: Edges ``[2, E]``; both directions of each where they have none.
        num_nodes: Number of nodes.

    Example:
        >>> from graphsparse.testing import toy_edge_index
        >>> reach = Reach(toy_edge_index(), 5)
        >>> reach.common(np.array([0]), np.ones(5)).toarray()[0, 2]
        np.float32(1.0)
    """

    def __init__(self, edge_index: Tensor, num_nodes: int) -> None:
        from scipy.sparse import csr_array  # slow to import, and seldom needed

        proper = edge_index[:, edge_index[0] != edge_index[1]].cpu()
        keys = unique_keys(pair_keys(proper, num_nodes, directed=True))
        start = torch.searchsorted(keys, torch.arange(num_nodes + 1) * num_nodes)
        kind = np.int32 if max(num_nodes, keys.numel()) < 2**31 else np.int64
        column = key_pairs(keys, num_nodes)[1].numpy().astype(kind)
        del keys
        ones = np.ones(len(column), dtype=np.float32)
        self.num_nodes = num_nodes
        self.matrix = csr_array((ones, column, start.numpy().astype(kind)), shape=(num_nodes, num_nodes))
        self.degree: Ints = np.diff(start.numpy())
        self._per_degree = (1 / np.maximum(self.degree, 1)).astype(np.float32)

    def start(self, nodes: Ints) -> Any:
        """Return a row for each node with an entry 1 at the node."""
        from scipy.sparse import csr_array

        # Indices of the type that the matrix has: SciPy would convert the whole matrix at every product otherwise.
        kind = self.matrix.indices.dtype
        ends = np.arange(len(nodes) + 1, dtype=kind)
        ones = np.ones(len(nodes), dtype=np.float32)
        return csr_array((ones, nodes.astype(kind), ends), shape=(len(nodes), self.num_nodes))

    def common(self, nodes: Ints, weight: NDArray[Any], back: Any = None) -> Any:
        r"""Return :math:`\sum_{w \in N(u) \cap N(v)} g_w` for nodes u as rows; ``back`` is the transposed."""
        rows = self.matrix[nodes]
        rows.data = weight.astype(np.float32)[rows.indices]
        return rows @ (self.matrix if back is None else back)

    def shared_out(self, rows: Any) -> Any:
        r"""Return :math:`\mathbf{R} \mathbf{D}^{-1}`: each entry divided by the degree of its column."""
        rows.data = rows.data * self._per_degree[rows.indices]
        return rows

    def walk(self, nodes: Ints, damping: float = 0.85, tol: float = 1e-5) -> Any:
        r"""Return lower bounds of personalised PageRank of some nodes as rows, by pushing what is left of the walks.

        A walk that is at node v with a probability above :math:`\mathrm{tol}\, d_v` is taken one step further. So the
        edges that are looked at for a node are at most :math:`1 / ((1 - \alpha) \mathrm{tol})`, however large the
        graph is, and what is missing at v is at most :math:`\mathrm{tol}\, d_v` if edges have no direction.

        Source: Andersen, Chung and Lang, *Local graph partitioning using PageRank vectors*, FOCS 2006.
        """
        left = self.start(nodes)
        found = 0 * left
        enough = np.float32(tol) * np.maximum(self.degree, 1).astype(np.float32)
        while True:
            on = left.data > enough[left.indices]
            if not on.any():
                return found + (1 - damping) * left
            going = left.copy()
            going.data, left.data = np.where(on, left.data, 0), np.where(on, 0, left.data)
            for part in (going, left):
                part.eliminate_zeros()
            found = found + (1 - damping) * going
            going.data *= np.float32(damping)
            left = left + self.shared_out(going) @ self.matrix


def in_blocks(nodes: Ints, score: Callable[[Ints], Any]) -> Iterator[tuple[slice, Any]]:
    """Yield scores of some nodes as rows, so many at a time as about a bounded number of entries goes with."""
    start, size = 0, _FIRST
    while start < len(nodes):
        rows = score(nodes[start : start + size])
        where = slice(start, start + rows.shape[0])
        yield where, rows
        start = where.stop
        per_row = max(rows.nnz // rows.shape[0], 1)
        size = max(1, min(4 * size, _ENTRIES // per_row, _ROWS))
