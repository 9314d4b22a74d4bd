"""Loops that numba turns into machine code for the CPU: at their first call, kept on disk, and without a compiler.

A row belongs to one thread and is added up in the order of its entries, so that the number of threads changes no bit.
Columns are read as unsigned: numba would look at each signed one for being negative, which leaves no vector
instructions. ``value`` is ``None`` where all entries are 1, of which numba makes a loop of its own.
"""

import math
import threading
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphsparse.ops.pattern import Pattern
from graphsparse.typing import optional_module

_numba, _ir = optional_module("numba"), optional_module("llvmlite.ir")
_cgutils, _arrays = optional_module("numba.core.cgutils"), optional_module("numba.np.arrayobj")
#: Columns that are added up in registers, and numbers that are added up in the cache.
_TILE, _BUFFER = 64, 512
#: Multiplications below which another thread costs more than it saves.
_GRAIN = 1 << 20


@_numba.extending.intrinsic  # type: ignore[untyped-decorator]
def _on_stack(context: Any, like: Any, size: Any) -> Any:
    """Return an array on the stack, which the compiler knows to overlap with no other and may keep in registers."""
    if not isinstance(size, _numba.types.IntegerLiteral):
        return None
    kind = _numba.types.Array(like.dtype, 1, "C")

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        number = context.get_data_type(like.dtype)
        with builder.goto_entry_block():
            memory = builder.alloca(_ir.ArrayType(number, size.literal_value))
        memory.align = 64
        array = context.make_array(kind)(context, builder)
        length, step = (
            context.get_constant(_numba.types.intp, n) for n in (size.literal_value, context.get_abi_sizeof(number))
        )
        _arrays.populate_array(
            array,
            data=builder.bitcast(memory, number.as_pointer()),
            shape=_cgutils.pack_array(builder, [length]),
            strides=_cgutils.pack_array(builder, [step]),
            itemsize=step,
            meminfo=None,
        )
        return array._getvalue()

    return kind(like, size), build


def _tiles(rows: Any, rowptr: Any, col: Any, value: Any, x: Any, out: Any) -> None:
    """Add up ``value * x``, ``[E, H]`` times ``[N, H, C]``, over rows: whole tiles of the columns of each head."""
    heads, width = x.shape[1], np.uint64(x.shape[2])
    tile = _on_stack(x, _TILE)
    for i in range(rows[0], rows[1]):
        for h in range(heads):
            j = np.uint64(0)
            while j + np.uint64(_TILE) <= width:
                for k in range(_TILE):
                    tile[k] = 0
                for e in range(rowptr[i], rowptr[i + 1]):
                    a = x[col[e], h]
                    if value is None:
                        for k in range(_TILE):
                            tile[k] += a[j + np.uint64(k)]
                    else:
                        p = value[e, h]
                        for k in range(_TILE):
                            tile[k] += p * a[j + np.uint64(k)]
                for k in range(_TILE):
                    out[i, h, j + np.uint64(k)] = tile[k]
                j += np.uint64(_TILE)


def _rest(rows: Any, rowptr: Any, col: Any, value: Any, x: Any, out: Any) -> None:
    """Add up the columns behind the last whole tile, of several heads at once."""
    heads, first = x.shape[1], np.uint64(x.shape[2] - x.shape[2] % _TILE)
    width = np.uint64(x.shape[2] % _TILE)
    group = _BUFFER // (x.shape[2] % _TILE)
    buffer = _on_stack(x, _BUFFER)
    for i in range(rows[0], rows[1]):
        for low in range(0, heads, group):
            high = min(low + group, heads)
            for k in range(np.uint64(high - low) * width):
                buffer[k] = 0
            e, end = rowptr[i], rowptr[i + 1]
            while e + 4 <= end:
                a, b, c, d = x[col[e]], x[col[e + 1]], x[col[e + 2]], x[col[e + 3]]
                for h in range(low, high):
                    at = np.uint64(h - low) * width
                    if value is None:
                        for k in range(width):
                            j = first + k
                            buffer[at + k] += a[h, j] + b[h, j] + c[h, j] + d[h, j]
                    else:
                        p, q, r, s = value[e, h], value[e + 1, h], value[e + 2, h], value[e + 3, h]
                        for k in range(width):
                            j = first + k
                            buffer[at + k] += p * a[h, j] + q * b[h, j] + r * c[h, j] + s * d[h, j]
                e += 4
            while e < end:
                a = x[col[e]]
                for h in range(low, high):
                    at = np.uint64(h - low) * width
                    p = 1 if value is None else value[e, h]
                    for k in range(width):
                        buffer[at + k] += p * a[h, first + k]
                e += 1
            for h in range(low, high):
                at = np.uint64(h - low) * width
                for k in range(width):
                    out[i, h, first + k] = buffer[at + k]


def _extremum(rows: Any, rowptr: Any, col: Any, value: Any, x: Any, sign: Any, out: Any, entry: Any) -> None:
    """Find the largest ``sign * value * x`` of each row and where it stands; what is no number is the largest."""
    width = x.shape[1]
    for i in range(rows[0], rows[1]):
        best, place = out[i], entry[i]
        for k in range(width):
            best[k] = 0 if rowptr[i] == rowptr[i + 1] else -np.inf
            place[k] = rowptr[i] if rowptr[i] < rowptr[i + 1] else len(col)
        for e in range(rowptr[i], rowptr[i + 1]):
            a, p = x[col[e]], sign if value is None else sign * value[e]
            for k in range(width):
                message = p * a[k]
                if message > best[k] or (message != message and best[k] == best[k]):
                    best[k] = message
                    place[k] = e
        for k in range(width):
            best[k] *= sign


def _dots(rows: Any, rowptr: Any, col: Any, left: Any, right: Any, out: Any) -> None:
    """Multiply rows of ``left``, ``[N, H, C]``, with rows of ``right``: one number for each entry and head."""
    heads, width = left.shape[1], left.shape[2]
    for i in range(rows[0], rows[1]):
        for h in range(heads):
            x = left[i, h]
            e, end = rowptr[i], rowptr[i + 1]
            while e + 4 <= end:
                a, b, c, d = right[col[e], h], right[col[e + 1], h], right[col[e + 2], h], right[col[e + 3], h]
                p = q = r = s = x[0] * 0
                for k in range(width):
                    p += x[k] * a[k]
                    q += x[k] * b[k]
                    r += x[k] * c[k]
                    s += x[k] * d[k]
                out[e, h], out[e + 1, h], out[e + 2, h], out[e + 3, h] = p, q, r, s
                e += 4
            while e < end:
                a = right[col[e], h]
                p = x[0] * 0
                for k in range(width):
                    p += x[k] * a[k]
                out[e, h] = p
                e += 1


def _score(source: Any, target: Any, edge: Any, c: Any, i: Any, p: Any, h: Any) -> Any:
    """Add up the parts of the score of an edge, of which all but the first may not be there."""
    score = source[c, h]
    if target is not None:
        score += target[i, h]
    if edge is not None:
        score += edge[p, h]
    return score


# Sums may be regrouped, but infinities and what is no number keep their meaning.
_options = {"nogil": True, "cache": True, "error_model": "numpy", "fastmath": {"contract", "reassoc"}}
_compiled_score = _numba.njit(_score, **_options)


def _scores(
    rows: Any,
    rowptr: Any,
    col: Any,
    perm: Any,
    source: Any,
    target: Any,
    edge: Any,
    weight: Any,
    slope: Any,
    bound: Any,
    out: Any,
) -> None:
    """Write the score of each edge less the largest of its row; that of an edge of weight 0 does not count."""
    heads = source.shape[1]
    largest = np.empty(heads, source.dtype)
    for i in range(rows[0], rows[1]):
        for h in range(heads):
            largest[h] = -np.inf
        for e in range(rowptr[i], rowptr[i + 1]):
            p, c = e if perm is None else perm[e], col[e]
            for h in range(heads):
                score = _compiled_score(source, target, edge, c, i, p, h)
                score = score if score > 0 else score * slope
                out[p, h] = score
                if score > largest[h] and (weight is None or weight[p] != 0):
                    largest[h] = score
        for e in range(rowptr[i], rowptr[i + 1]):
            p = e if perm is None else perm[e]
            for h in range(heads):
                if largest[h] != -np.inf:
                    out[p, h] -= largest[h]
                if weight is not None and out[p, h] > bound:
                    out[p, h] = bound


def _shares(rows: Any, rowptr: Any, col: Any, perm: Any, weight: Any, least: Any, out: Any) -> None:
    """Divide numbers of edges, times their weights, by their sum over each row."""
    heads = out.shape[1]
    total = np.empty(heads, out.dtype)
    for i in range(rows[0], rows[1]):
        for h in range(heads):
            total[h] = least
        for e in range(rowptr[i], rowptr[i + 1]):
            p = e if perm is None else perm[e]
            for h in range(heads):
                if weight is not None:
                    out[p, h] *= weight[p]
                total[h] += out[p, h]
        for h in range(heads):
            total[h] = 1 / total[h] if total[h] != 0 else 0
        for e in range(rowptr[i], rowptr[i + 1]):
            p = e if perm is None else perm[e]
            for h in range(heads):
                out[p, h] *= total[h]


def _score_gradients(
    rows: Any,
    rowptr: Any,
    col: Any,
    perm: Any,
    source: Any,
    target: Any,
    edge: Any,
    slope: Any,
    alpha: Any,
    grad: Any,
    out: Any,
    total: Any,
) -> None:
    """Write the gradient of the score of each edge, and add it up over each row."""
    heads = source.shape[1]
    dot = np.empty(heads, source.dtype)
    for i in range(rows[0], rows[1]):
        for h in range(heads):
            dot[h] = 0
            total[i, h] = 0
        for e in range(rowptr[i], rowptr[i + 1]):
            p = e if perm is None else perm[e]
            for h in range(heads):
                dot[h] += alpha[p, h] * grad[p, h]
        for e in range(rowptr[i], rowptr[i + 1]):
            p, c = e if perm is None else perm[e], col[e]
            for h in range(heads):
                score = _compiled_score(source, target, edge, c, i, p, h)
                gradient = alpha[p, h] * (grad[p, h] - dot[h])
                gradient = gradient if score > 0 else gradient * slope
                out[p, h] = gradient
                total[i, h] += gradient


_LOOPS = {
    loop: _numba.njit(loop, **_options)
    for loop in (_tiles, _rest, _extremum, _dots, _scores, _shares, _score_gradients)
}


def total(pattern: Pattern, value: Tensor | None, x: Tensor) -> Tensor:
    """Return the sum of ``value * x`` over each row, ``[num_rows, F]``, for values ``[E]`` or, by head, ``[E, H]``."""
    out = x.new_empty(pattern.num_rows, x.size(1))
    heads = 1 if value is None or value.dim() == 1 else value.size(1)
    given = None if value is None else value.reshape(-1, heads).contiguous().numpy()
    arrays = (given, _by_head(x, heads), _by_head(out, heads))
    width = x.size(1) // heads
    for loop in [_tiles] * (width >= _TILE) + [_rest] * (width % _TILE > 0):
        _by_rows(loop, pattern, x.size(1), *arrays)
    return out


def extremum(pattern: Pattern, value: Tensor | None, x: Tensor, reduce: str) -> tuple[Tensor, Tensor]:
    """Return the minimum or maximum of ``value * x`` over each row, and the entry where it stands."""
    out = x.new_empty(pattern.num_rows, x.size(1))
    entry = pattern.col.new_empty(out.shape)
    sign = out.numpy().dtype.type(1 if reduce == "max" else -1)
    _by_rows(_extremum, pattern, x.size(1), _array(value), x.numpy(), sign, out.numpy(), entry.numpy())
    return out, entry


def dots(pattern: Pattern, left: Tensor, right: Tensor, heads: int) -> Tensor:
    """Return ``left[row] . right[col]`` of each entry and head, ``[E, H]``."""
    out = left.new_empty(pattern.num_entries, heads)
    _by_rows(_dots, pattern, left.size(1), _by_head(left, heads), _by_head(right, heads), out.numpy())
    return out


def attention(
    pattern: Pattern, source: Tensor, target: Tensor | None, edge: Tensor | None, weight: Tensor | None, slope: float
) -> Tensor:
    """Return the coefficients of :func:`graphsparse.ops.attention.attention`, in the order of the edge list."""
    out = source.new_empty(pattern.num_entries, source.size(1))
    perm, parts, kind = _array(pattern.perm), [_array(part) for part in (source, target, edge)], out.numpy().dtype.type
    bound = kind(math.log(torch.finfo(out.dtype).max) / 2)
    _by_rows(_scores, pattern, source.size(1), perm, *parts, _array(weight), kind(slope), bound, out.numpy())
    out.exp_()
    least = kind(1e-16 if weight is None else 0)  # as PyG has it
    _by_rows(_shares, pattern, source.size(1), perm, _array(weight), least, out.numpy())
    return out


def attention_gradients(
    pattern: Pattern,
    source: Tensor,
    target: Tensor | None,
    edge: Tensor | None,
    slope: float,
    alpha: Tensor,
    grad: Tensor,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return the gradients of the three parts of the scores."""
    out, of_target = torch.empty_like(alpha), source.new_empty(pattern.num_rows, source.size(1))
    perm, parts, kind = _array(pattern.perm), [_array(part) for part in (source, target, edge)], out.numpy().dtype.type
    arrays = [kind(slope), *(_array(part) for part in (alpha, grad, out, of_target))]
    _by_rows(_score_gradients, pattern, source.size(1), perm, *parts, *arrays)
    turned, order = pattern.transposed()
    edges = order if turned.perm is None else turned.perm
    of_source = total(Pattern(turned.rowptr, edges, pattern.num_entries), None, out)
    return of_source, None if target is None else of_target, None if edge is None else out


def _array(part: Tensor | None) -> Any:
    if part is None:
        return None
    return part.detach().contiguous().numpy() if part.is_floating_point() else _unsigned(part)


def _by_head(x: Tensor, heads: int) -> Any:
    return x.detach().contiguous().numpy().reshape(x.size(0), heads, x.size(1) // heads)


def _by_rows(loop: Callable[..., None], pattern: Pattern, width: int, *arrays: Any) -> None:
    """Run a loop over all rows, in as many threads as torch has; each gets as many entries as the others."""
    loop = _LOOPS[loop]
    rowptr, col = pattern.rowptr.numpy(), _unsigned(pattern.col)
    num_threads = max(min(torch.get_num_threads(), pattern.num_entries * width // _GRAIN), 1)
    shares = np.linspace(0, pattern.num_entries, num_threads + 1)[1:-1]
    bounds = [0, *np.searchsorted(rowptr, shares).tolist(), pattern.num_rows]
    others = [threading.Thread(target=loop, args=(rows, rowptr, col, *arrays)) for rows in pairwise(bounds[1:])]
    for thread in others:
        thread.start()
    loop((0, bounds[1]), rowptr, col, *arrays)
    for thread in others:
        thread.join()


def _unsigned(index: Tensor) -> Any:
    return index.contiguous().numpy().view(np.uint32 if index.dtype == torch.int32 else np.uint64)
