"""The products of a sparse matrix with a dense one, without gradients: one function per reduction, four backends.

On CPU the backend ``"numba"``, loops compiled at their first call, is chosen where numba is installed and rows are not
narrow, else ``"torch"``. Time of the others as a multiple of the time of the first, for the normalised adjacency of
ogbn-arxiv (169,343 nodes, 2,484,941 entries), float32, one thread of an AMD EPYC with AVX-512 on a machine that was
also at other work, torch 2.13, medians of 3 to 7 runs, by ``benchmarks/spmm.py``; F features, ``both`` is forward and
the gradient of x, ``values`` those of the values too:

==================  =====  ======  ======  =======  =======  ===========  =============  ===========  ============
path                sum 8  sum 32  sum 64  sum 128  sum 256  sum both 64  sum values 64  max both 64  max both 128
==================  =====  ======  ======  =======  =======  ===========  =============  ===========  ============
torch, its best     0.7    1.4     1.6     1.8      1.9      2.2          1.8            1.6          1.5
torch-sparse        2.5    4.0     6.4     5.1      6.1      7.0          3.7            2.9          2.2
gather-scatter      6.4    2.4     3.2     2.7      2.9      3.0          2.2            3.7          3.0
PyG's three steps   9.8    3.0     5.8     5.4      6.2      5.5          4.0            8.3          4.9
==================  =====  ======  ======  =======  =======  ===========  =============  ===========  ============

PyG gathers, weighs and scatters. An extremum without gradients takes torch 0.6 to 0.85 of the time of the loops, which
look for its entry as well, and is left to torch.

For a sum on CPU torch has two kernels: that of MKL, and its own, which is called with a reduction. Time of the former
times that of the latter on the same graph: 0.35 at F = 8, 0.4 at 16, 0.65 at 32, 0.6 at 40, 0.9 at 64, 1.05 at 96, 1.3
at 128 and at 256; float64: 0.6 at F = 16, 0.9 at 32, 1.4 at 64. On a synthetic graph of 306,128 nodes and 15.8 million
entries: 0.25 at F = 8, 0.55 at 32, 1.05 at 64, 1.2 at 96, 1.5 at 128. So MKL takes rows of less than 256 bytes.

On GPU nothing has been measured yet. torch multiplies there through cuSPARSE, which has sums alone.
"""

import torch
from torch import Tensor

from graphsparse.ops.csr import csr_tensor
from graphsparse.ops.pattern import Pattern
from graphsparse.typing import has_module, optional_module

BACKENDS = ("numba", "torch", "torch-sparse", "gather-scatter")
#: Bytes of one block of gathered rows: what stays in the cache of a CPU core, or what fills a GPU.
_BLOCK_BYTES = {"cpu": 1 << 22, "cuda": 1 << 28}
#: Types too narrow to add up in.
HALF = (torch.bfloat16, torch.float16)
#: Bytes of a row of x from which on MKL's kernel is not the fastest for sums; measured as told above.
NARROW = 256
#: Bytes of a row of x from which on a compiled loop is the fastest for sums.
_COMPILED_FROM = 128
#: Types that the compiled loops are there for.
COMPILED = (torch.float32, torch.float64)


def choose_backend(backend: str | None, reduce: str, device: torch.device, row_bytes: int = NARROW) -> str:
    """Return the backend to use for rows of so many bytes, or raise an error when the one asked for cannot be used."""
    on_cpu = device.type == "cpu"
    has_reduction = on_cpu or reduce in ("sum", "mean")
    if backend is None:
        narrow = reduce in ("sum", "mean") and row_bytes < _COMPILED_FROM
        if on_cpu and not narrow and has_module("numba"):
            return "numba"
        if has_reduction:
            return "torch"
        return "torch-sparse" if has_module("torch_sparse") else "gather-scatter"
    if backend not in BACKENDS:
        raise ValueError(f"'backend' must be one of {BACKENDS} or None (got {backend!r})")
    if backend in ("torch-sparse", "numba"):
        optional_module(backend.replace("-", "_"))
    if (backend == "torch" and not has_reduction) or (backend == "numba" and not on_cpu):
        raise ValueError(f"backend {backend!r} has no reduction {reduce!r} on {device.type!r}; leave 'backend' out")
    return backend


def block_size(width: int, x: Tensor) -> int:
    """Return how many rows of ``width`` numbers of the dtype of ``x`` make a block on its device."""
    return max(_BLOCK_BYTES.get(x.device.type, 1 << 22) // max(width * x.element_size(), 1), 256)


def product(pattern: Pattern, value: Tensor | None, x: Tensor, backend: str) -> Tensor:
    """Return the sum of ``value * x`` over each row, ``[num_rows, F]``; values ``[E, H]`` are those of heads."""
    if _is_empty(pattern, x):
        return x.new_zeros(pattern.num_rows, x.size(1))
    value = None if value is None else value.detach().to(x.dtype)
    x = x.detach().contiguous()
    by_head = value is not None and value.dim() == 2
    if backend == "numba" and x.dtype in COMPILED:
        from graphsparse.ops import compiled

        return compiled.total(pattern, value, x)
    if value is not None and by_head:
        heads = zip(value.t().contiguous(), x.chunk(value.size(1), 1), strict=True)
        return torch.cat([product(pattern, values, part, backend) for values, part in heads], 1)
    if backend in ("torch", "numba"):
        matrix = _csr(pattern, value, x.dtype)
        with torch.autocast(x.device.type, enabled=False):  # it would narrow the operands, for which there is no kernel
            total: Tensor = torch.sparse.mm(matrix, x) if _without_reduction(x) else torch.sparse.mm(matrix, x, "sum")
        return total
    if backend == "torch-sparse":
        optional_module("torch_sparse")
        rowptr, col = pattern.wide()
        summed: Tensor = torch.ops.torch_sparse.spmm_sum(None, rowptr, col, value, None, None, x)
        return summed
    # Half precision would lose small terms against a large running sum.
    wide = torch.float32 if x.dtype in HALF else x.dtype
    out = x.new_zeros(pattern.num_rows, x.size(1), dtype=wide)
    for part, row, col in pattern.blocks(block_size(x.size(1), x)):
        message = x.index_select(0, col).to(wide)
        if value is not None:
            message.mul_(value[part].unsqueeze(1))
        out.index_add_(0, row, message)
    return out.to(x.dtype)


def extremum(
    pattern: Pattern, value: Tensor | None, x: Tensor, reduce: str, backend: str, need_entry: bool
) -> tuple[Tensor, Tensor | None]:
    """Return the minimum or maximum of ``value * x`` over each row, and the entry where it stands, if needed.

    Of equal ones the first entry counts. Rows without entries give 0, and ``num_entries`` as entry, an integer of 32 or
    64 bits.
    """
    if _is_empty(pattern, x):
        shape = (pattern.num_rows, x.size(1))
        return x.new_zeros(shape), torch.full(shape, pattern.num_entries, device=x.device)
    value = None if value is None else value.detach().to(x.dtype)
    x = x.detach().contiguous()
    if backend == "numba" and need_entry and x.dtype in COMPILED:
        from graphsparse.ops import compiled

        return compiled.extremum(pattern, value, x, reduce)
    if backend == "torch-sparse":
        optional_module("torch_sparse")
        kernel = torch.ops.torch_sparse.spmm_max if reduce == "max" else torch.ops.torch_sparse.spmm_min
        out, entry = kernel(*pattern.wide(), value, x)
        return out, entry
    if backend == "gather-scatter":
        return _extremum_by_scatter(pattern, value, x, reduce, need_entry)
    matrix = _csr(pattern, value, x.dtype)
    if not need_entry:
        return torch.sparse.mm(matrix, x, reduce), None
    # The kernel behind `torch.sparse.mm(..., reduce)` fills in the entries only where it expects a backward pass.
    with torch.enable_grad():
        out, entry = torch.ops.aten._sparse_mm_reduce_impl(matrix, x.detach().requires_grad_(), reduce)
    return out.detach(), entry.detach()


def _extremum_by_scatter(
    pattern: Pattern, value: Tensor | None, x: Tensor, reduce: str, need_entry: bool
) -> tuple[Tensor, Tensor | None]:
    """Find the extrema first, then the first entry that reaches each."""
    shape = (pattern.num_rows, x.size(1))
    out = x.new_full(shape, -torch.inf if reduce == "max" else torch.inf)
    entry = torch.full(shape, pattern.num_entries, device=x.device)
    size = block_size(x.size(1), x)
    for find_entry in (False, True) if need_entry else (False,):
        for part, row, col in pattern.blocks(size):
            message = x.index_select(0, col)
            if value is not None:
                message.mul_(value[part].unsqueeze(1))
            target = row.unsqueeze(1).expand_as(message)
            if find_entry:
                position = torch.arange(part.start, part.stop, device=x.device).unsqueeze(1)
                reached = torch.where(message == out.index_select(0, row), position, pattern.num_entries)
                entry.scatter_reduce_(0, target, reached, "amin")
            else:
                out.scatter_reduce_(0, target, message, "amax" if reduce == "max" else "amin")
    out[pattern.rowptr.diff() == 0] = 0
    return out, entry if need_entry else None


def sampled_product(
    pattern: Pattern, left: Tensor, right: Tensor, heads: int | None = None, backend: str = "torch"
) -> Tensor:
    """Return ``left[row] . right[col]`` of each entry, ``[E]``, without ever holding ``E x F`` numbers.

    With ``heads`` one for each of as many equal parts of the rows, ``[E, H]``.
    """
    if _is_empty(pattern, left):
        return left.new_zeros(pattern.num_entries if heads is None else (pattern.num_entries, heads))
    if backend == "numba" and left.dtype in COMPILED and right.dtype == left.dtype:
        from graphsparse.ops import compiled

        dots = compiled.dots(pattern, left, right, heads or 1)
        return dots if heads else dots.squeeze(1)
    if heads:
        parts = zip(left.chunk(heads, 1), right.chunk(heads, 1), strict=True)
        return torch.stack([sampled_product(pattern, *part) for part in parts], 1)
    # With more entries than places torch shortens the result before it writes all of them.
    fits = pattern.num_entries <= pattern.num_rows * pattern.num_cols
    if left.device.type == "cpu" and left.dtype in (torch.float32, torch.float64) and fits:
        places = _csr(pattern, left.new_zeros(pattern.num_entries), left.dtype)
        # In place: a new result would copy the indices too.
        torch.sparse.sampled_addmm(places, left.contiguous(), right.contiguous().t(), out=places)
        return places.values()
    out = left.new_empty(pattern.num_entries)
    wide = torch.float32 if left.dtype in HALF else left.dtype
    for part, row, col in pattern.blocks(block_size(left.size(1), left)):
        terms = left.index_select(0, row).to(wide)
        out[part] = terms.mul_(right.index_select(0, col)).sum(1)
    return out


def _without_reduction(x: Tensor) -> bool:
    """Whether to take the kernel of MKL or cuSPARSE instead of torch's own, which supports reductions."""
    if x.device.type != "cpu":
        return True  # its own is there on CPU alone
    narrow = x.size(1) * x.element_size() < NARROW
    return narrow and x.dtype in (torch.float32, torch.float64) and torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]


def _is_empty(pattern: Pattern, x: Tensor) -> bool:
    """Whether there is nothing to multiply: torch raises an error then, and torch-sparse crashes the process."""
    return pattern.num_entries == 0 or x.size(1) == 0


def _csr(pattern: Pattern, value: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Return the matrix as torch keeps it; nothing is copied, nor checked again."""
    value = pattern.ones(dtype) if value is None else value.contiguous()
    size = (pattern.num_rows, pattern.num_cols)
    return csr_tensor(pattern.rowptr, pattern.col, value, size)
