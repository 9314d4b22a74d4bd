"""The places of the entries of a sparse matrix in compressed rows, and what is derived from them once and kept."""

from collections.abc import Callable, Hashable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor

from graphsparse.ops.sort import edge_order, index_dtype, stable_order
from graphsparse.ops.traced import is_batched, is_transformed

T = TypeVar("T")

#: Bytes that the address of an operand of cuSPARSE must be a multiple of.
_ALIGNMENT = 16


class Pattern:
    """Compressed sparse rows without values: entry ``k`` stands in column ``col[k]``.

    Entries are sorted by row, then by column; repeated ones are allowed and keep the order they came in. A pattern is
    never changed, so that matrices with different values share one, and with it everything that is kept here.

    Args:
        rowptr: Where each row starts, ``[num_rows + 1]``.
        col: Columns, ``[E]``, of the dtype of ``rowptr``.
        num_cols: Number of columns.
        perm: ``perm[k]`` is the position of entry ``k`` in the edge list; ``None`` when the orders are the same.
        symmetric: Whether the pattern equals its transpose; ``None`` when it is not known.
    """

    def __init__(
        self, rowptr: Tensor, col: Tensor, num_cols: int, perm: Tensor | None = None, symmetric: bool | None = None
    ) -> None:
        self.rowptr = rowptr
        self.col = col
        self.num_cols = num_cols
        self.perm = perm
        self.symmetric = symmetric
        self.cache: dict[Hashable, Any] = {}

    @classmethod
    def build(cls, row: Tensor, col: Tensor, num_rows: int, num_cols: int, symmetric: bool | None = None) -> "Pattern":
        """Build a pattern from checked entries in any order."""
        dtype = index_dtype(row.numel(), num_rows, num_cols)
        order = edge_order(row, col, num_rows, num_cols)
        rowptr = offsets(row, num_rows, dtype)
        # A copy in any case: a view would keep the whole edge list alive, and change with it.
        col = col.to(dtype, copy=True) if order is None else col.index_select(0, order).to(dtype)
        return cls(rowptr, col, num_cols, order, symmetric)

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return self.rowptr.numel() - 1

    @property
    def num_entries(self) -> int:
        """Number of entries, repeated ones counted each."""
        return self.col.numel()

    def row(self) -> Tensor:
        """Return the row of each entry, ``[E]``; not kept."""
        rows = torch.arange(self.num_rows, dtype=self.col.dtype, device=self.col.device)
        return rows.repeat_interleave(self.rowptr.diff(), output_size=self.num_entries)

    def blocks(self, size: int) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Yield ``(slice, row, col)`` for blocks of at most ``size`` entries; a device is waited for the first time."""
        for start, stop, low, high in self.keep(("blocks", size), lambda: self._bounds(size)):
            count = self.rowptr[low : high + 1].clamp(start, stop).diff()
            row = torch.arange(low, high, device=self.col.device).repeat_interleave(count, output_size=stop - start)
            yield slice(start, stop), row, self.col[start:stop]

    def _bounds(self, size: int) -> list[tuple[int, int, int, int]]:
        """Return first and last entry, and first and last row, of each block of entries."""
        starts = list(range(0, self.num_entries, size))
        stops = [*starts[1:], self.num_entries] if starts else []
        if len(starts) == 1:  # known without looking
            return [(0, self.num_entries, 0, self.num_rows)]
        ends = torch.tensor([starts, stops], dtype=self.rowptr.dtype).to(self.col.device)
        first = torch.searchsorted(self.rowptr, ends[0], right=True) - 1
        last = torch.searchsorted(self.rowptr, ends[1])
        return list(zip(starts, stops, *torch.stack([first, last]).tolist(), strict=True))

    def from_edges(self, values: Tensor) -> Tensor:
        """Bring values from the order of the edge list into the order of the rows."""
        return values if self.perm is None else _reordered(values, self.perm, False)

    def to_edges(self, values: Tensor) -> Tensor:
        """Bring values from the order of the rows into the order of the edge list."""
        return values if self.perm is None else _reordered(values, self.perm, True)

    def transposed(self) -> tuple["Pattern", Tensor]:
        """Return the transposed pattern, and for each of its entries the entry here; one sort, then kept.

        A symmetric pattern shares its rows with its transpose; only the permutation differs then.
        """
        return self.keep("transposed", self._transpose)

    def _transpose(self) -> tuple["Pattern", Tensor]:
        order = stable_order(self.col, self.num_cols)
        perm = order if self.perm is None else self.perm.index_select(0, order)
        if not self.symmetric:
            rowptr, col = offsets(self.col, self.num_cols, self.rowptr.dtype), self.row().index_select(0, order)
            if self.symmetric is None:
                square = self.num_rows == self.num_cols
                self.symmetric = square and torch.equal(torch.cat([rowptr, col]), torch.cat([self.rowptr, self.col]))
            if not self.symmetric:
                return Pattern(rowptr, col, self.num_rows, perm, False), order
        return Pattern(self.rowptr, self.col, self.num_cols, perm, True), order

    def is_symmetric(self) -> bool:
        """Whether the pattern equals its transpose; on CPU linear where the degrees differ, else one sort."""
        if self.symmetric is None:
            may_be = self.num_rows == self.num_cols
            if may_be and self.col.device.type == "cpu":  # a device would be waited for once more
                may_be = torch.equal(self.rowptr, offsets(self.col, self.num_cols, self.rowptr.dtype))
            if may_be:
                self.transposed()
            else:
                self.symmetric = False
        return bool(self.symmetric)

    def select(self, keep: Tensor) -> "Pattern":
        """Return the entries marked in a mask over the edge list, by prefix sums."""
        rows = self.from_edges(keep)
        count = torch.zeros(self.num_entries + 1, dtype=self.rowptr.dtype, device=self.col.device)
        torch.cumsum(rows, 0, out=count[1:])
        rowptr = count.index_select(0, self.rowptr)
        perm = None
        if self.perm is not None:
            torch.cumsum(keep, 0, out=count[1:])
            perm = count.index_select(0, self.perm[rows])
        dtype = index_dtype(int(rowptr[-1]), self.num_rows, self.num_cols)
        perm = None if perm is None else perm.to(dtype)
        return Pattern(rowptr.to(dtype), self.col[rows].to(dtype), self.num_cols, perm)

    def rows(self, start: int, stop: int) -> tuple["Pattern", slice]:
        """Return the rows ``start`` to ``stop - 1`` in their own order, and where their entries are here."""
        rowptr = self.rowptr[start : stop + 1]
        entries = slice(int(rowptr[0]), int(rowptr[-1]))
        return Pattern(rowptr - entries.start, aligned(self.col[entries]), self.num_cols), entries

    def ones(self, dtype: torch.dtype) -> Tensor:
        """Return a one for each entry; kept."""
        return self.keep(("ones", dtype), lambda: torch.ones(self.num_entries, dtype=dtype, device=self.col.device))

    def wide(self) -> tuple[Tensor, Tensor]:
        """Return ``rowptr`` and ``col`` as int64, which torch-sparse asks for; kept."""
        return self.keep("wide", lambda: (self.rowptr.long(), self.col.long()))

    def keep(self, key: Hashable, compute: Callable[[], T]) -> T:
        """Compute something once and keep it."""
        if key not in self.cache:
            with torch.inference_mode(False):  # what is kept must serve in training, too
                self.cache[key] = compute()
        found: T = self.cache[key]
        return found

    def map(self, function: Callable[[Tensor], Tensor]) -> "Pattern":
        """Return the pattern with all tensors replaced; what can be derived is derived anew."""
        perm = None if self.perm is None else function(self.perm)
        return Pattern(function(self.rowptr), function(self.col), self.num_cols, perm, self.symmetric)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what can be derived."""
        own = {name: own_memory(part) for name, part in self.__dict__.items() if isinstance(part, Tensor)}
        return {**self.__dict__, **own, "cache": {}}


class _Reordered(torch.autograd.Function):
    """Values gathered by a permutation, or put back; torch's gradient of the former adds up, which is slow."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, order: Tensor, back: bool) -> Tensor:
        ctx.order, ctx.back = order, back
        if back:
            return torch.empty_like(values).index_copy_(0, order.long(), values)
        return values.index_select(0, order)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _reordered(grad, ctx.order, not ctx.back), None, None


def _reordered(values: Tensor, order: Tensor, back: bool) -> Tensor:
    if is_transformed() or is_batched(values):
        order = order.long()
        return values.index_select(0, order.argsort() if back else order)
    found: Tensor = _Reordered.apply(values, order, back)  # type: ignore[no-untyped-call]
    return found


def own_memory(part: Tensor) -> Tensor:
    """Return a copy of a part of a larger tensor, all of which would be pickled with it."""
    return part.clone() if part.untyped_storage().nbytes() > part.nbytes else part


def aligned(part: Tensor) -> Tensor:
    """Return a part of a larger tensor, or a copy of it where kernels of a device cannot read from where it begins."""
    return part if part.device.type == "cpu" or part.data_ptr() % _ALIGNMENT == 0 else part.clone()


def offsets(index: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    """Return where each value in ``[0, size)`` starts in the sorted index, ``[size + 1]``."""
    ptr = torch.zeros(size + 1, dtype=dtype, device=index.device)
    if index.device.type == "cpu":
        count = torch.bincount(index, minlength=size)
    else:  # `bincount` would wait for the largest index
        count = ptr.new_zeros(size, dtype=torch.int64).scatter_add_(
            0, index.long(), ptr.new_ones((), dtype=torch.int64).expand_as(index)
        )
    torch.cumsum(count, 0, out=ptr[1:])
    return ptr


def in_row_order(pattern: Pattern, value: Tensor | None) -> Tensor | None:
    """Return values of edges in the order of the entries."""
    if value is None or pattern.perm is not None:
        return None if value is None else pattern.from_edges(value)
    # A copy in any case: what is kept must not change with the tensor of the caller. Its memory has no gaps.
    return value.clone(memory_format=torch.contiguous_format)


def has_history(value: Tensor | None) -> bool:
    """Say whether values are learned."""
    return value is not None and value.requires_grad


def version_of(value: Tensor | None) -> int | None:
    """Return how often torch has counted a change in place; nothing is counted of what is made in inference mode."""
    return None if value is None or value.is_inference() else value._version
