"""Blocks of rows of powers of a transition matrix, and single entries of their products with the adjacency."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
#: Entries looked at together where single entries are computed.
_BLOCK = 1 << 20


class SparseGraph:
    """An adjacency with entries 1 as compressed rows, and its transpose, for products on CPU.

    Args:
        rowptr: Where each row starts, ``[N + 1]``.
        col: Columns ``[E]``, each once in its row.
        incoming: Compressed rows of the transpose; ``None`` for a symmetric adjacency.
    """

    def __init__(self, rowptr: Tensor, col: Tensor, incoming: tuple[Tensor, Tensor] | None) -> None:
        from scipy.sparse import csr_array  # slow to import, and nothing else here needs it

        self.num_nodes = rowptr.numel() - 1
        ones = np.ones(col.numel(), dtype=np.float32)
        shape = (self.num_nodes, self.num_nodes)
        kind = torch.promote_types(rowptr.dtype, col.dtype)
        self.matrix = csr_array((ones, col.to(kind).numpy(), rowptr.to(kind).numpy()), shape=shape)
        self.degree: Ints = np.diff(rowptr.numpy()).astype(np.int64)
        in_ptr, in_col = (rowptr, col) if incoming is None else incoming
        self.in_ptr: Ints = in_ptr.numpy().astype(np.int64)
        self.in_col = in_col.numpy()


class RowBlock:
    r"""Rows :math:`\mathbf{e}_u^\top \mathbf{S}^k` of some sources, :math:`\mathbf{S} = \mathbf{D}^{-1} \mathbf{A}`.

    They start at :math:`k = 0`, and :meth:`step` takes them on. Each row may have an edge of its own that is not there
    for it, neither as an entry nor in a degree.

    Args:
        graph: The graph.
        sources: Source of each row, ``[B]``.
        partners: The other end of the edge at the source that is not there for the row, ``[B]``; ``None`` for none.
        both: Whether the opposite direction of that edge is not there either.
        scratch: Zeros, at least ``B * N``; they are zeros again after :meth:`close`.
    """

    def __init__(self, graph: SparseGraph, sources: Ints, partners: Ints | None, both: bool, scratch: Floats) -> None:
        from scipy.sparse import csr_array

        self.graph, self.sources, self.partners, self.both = graph, sources, partners, both
        self._scratch = scratch
        num = len(sources)
        # Indices of the type that the matrix has: SciPy would convert the whole matrix at every product otherwise.
        kind = graph.matrix.indices.dtype
        ones, ends = np.ones(num, dtype=np.float32), np.arange(num + 1, dtype=kind)
        self.rows: Any = csr_array((ones, sources.astype(kind), ends), shape=(num, graph.num_nodes))
        self._base = np.arange(num, dtype=np.int64) * graph.num_nodes
        self._load()

    def step(self, topk: int | None) -> None:
        """Multiply the rows by the transition matrix, and keep the largest entries of each one if ``topk`` is set."""
        graph, rows = self.graph, self.rows
        degree = graph.degree[rows.indices]
        if self.partners is not None:
            number = self._row_of_entries()
            degree -= rows.indices == self.sources[number]
            if self.both:
                degree -= rows.indices == self.partners[number]
        # A walk that came to a node without a way on ends there.
        share = np.divide(rows.data, degree, out=np.zeros_like(rows.data), where=degree > 0, casting="same_kind")
        self.close()
        gone = []
        if self.partners is not None:
            self._scratch[self._place] = share
            ends = [(self.sources, self.partners)] + ([(self.partners, self.sources)] if self.both else [])
            gone = [(self._base + there, self._scratch[self._base + here]) for here, there in ends]
            self._scratch[self._place] = 0
        rows.data = share
        self.rows = rows @ graph.matrix
        self._load()
        if self.partners is not None:
            for place, value in gone:
                self._scratch[place] = np.maximum(self._scratch[place] - value, 0)
            self.rows.data = self._scratch[self._place]
        if topk is not None:
            self._keep(topk)

    def products(self, row: Ints, column: Ints) -> NDArray[np.float64]:
        """Return entries of the product of the rows with the adjacency: sums over the edges into the columns."""
        graph = self.graph
        start = graph.in_ptr[column]
        count = graph.in_ptr[column + 1] - start
        result = np.zeros(len(row))
        for part in _parts(count):
            entry, pick = _ranges(start[part], count[part])
            value = self._scratch[self._base[row[part]][entry] + graph.in_col[pick]]
            result[part] = np.bincount(entry, weights=value, minlength=part.stop - part.start)
        if self.partners is not None:
            own = self.partners[row] == column
            result -= own * self._scratch[self._base[row] + self.sources[row]]
            if self.both:
                back = self.sources[row] == column
                result -= back * self._scratch[self._base[row] + self.partners[row]]
        return np.maximum(result, 0)

    def sums_of(self, row: Ints, column: Ints, values: Callable[[Tensor], Tensor]) -> NDArray[np.float64]:
        """Return, for rows and columns, the sums of a function of ``(w, column)`` over the entries ``w`` of the row."""
        start = self.rows.indptr[row].astype(np.int64)
        count = self.rows.indptr[row + 1] - start
        result = np.zeros(len(row))
        for part in _parts(count):
            entry, pick = _ranges(start[part], count[part])
            pairs = np.stack([self.rows.indices[pick].astype(np.int64), column[part][entry]])
            value = values(torch.from_numpy(pairs)).detach().cpu().double().numpy() * self.rows.data[pick]
            result[part] = np.bincount(entry, weights=value, minlength=part.stop - part.start)
        return result

    def close(self) -> None:
        """Make the scratch zeros again."""
        self._scratch[self._place] = 0

    def _load(self) -> None:
        self._place = self._base[self._row_of_entries()] + self.rows.indices
        self._scratch[self._place] = self.rows.data

    def _row_of_entries(self) -> Ints:
        return np.repeat(np.arange(len(self.sources)), np.diff(self.rows.indptr))

    def _keep(self, topk: int) -> None:
        """Keep the largest entries of each row, of equal ones those of the lowest columns."""
        from scipy.sparse import csr_array

        self.close()
        rows, count = self.rows, np.diff(self.rows.indptr)
        lowest = np.full(len(count), -np.inf, dtype=np.float32)
        for i in np.flatnonzero(count > topk):  # rows of a block, not entries
            row = rows.data[rows.indptr[i] : rows.indptr[i + 1]]
            lowest[i] = np.partition(row, len(row) - topk)[len(row) - topk]
        number = self._row_of_entries()
        keep = rows.data > lowest[number]
        tied = np.flatnonzero(rows.data == lowest[number])
        tied = tied[np.lexsort((rows.indices[tied], number[tied]))]
        rank = np.arange(len(tied)) - np.searchsorted(number[tied], number[tied])
        free = topk - np.bincount(number[keep], minlength=len(count))
        keep[tied[rank < free[number[tied]]]] = True
        ends = np.concatenate([[0], np.bincount(number[keep], minlength=len(count)).cumsum()])
        kind = rows.indices.dtype
        self.rows = csr_array((rows.data[keep], rows.indices[keep], ends.astype(kind)), shape=rows.shape)
        self._load()


def _ranges(start: Ints, count: Ints) -> tuple[Ints, Ints]:
    """Return which range each element of some ranges belongs to, and the elements."""
    entry = np.repeat(np.arange(len(start)), count)
    before = count.cumsum() - count
    return entry, np.arange(len(entry)) + (start - before)[entry]


def _parts(count: Ints) -> Iterator[slice]:
    """Cut items into slices of about a block of elements, at least one item each."""
    total = count.cumsum()
    start = 0
    while start < len(count):
        before = total[start] - count[start]
        stop = max(int(np.searchsorted(total, before + _BLOCK, side="right")), start + 1)
        yield slice(start, stop)
        start = stop
