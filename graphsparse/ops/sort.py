"""Stable orders of edges: the permutations that turn an edge list into compressed rows, and rows into columns."""

import numpy as np
import torch
from torch import Tensor

from graphsparse.ops.blocks import blocks

#: Largest value that an int32 index holds.
INT32_LIMIT = 2**31 - 1
#: Bits of a packed key: the sign bit of an int64 stays free.
_KEY_BITS = 63


def index_dtype(*largest: int) -> torch.dtype:
    """Return int32 where all the given numbers fit into it, int64 otherwise."""
    return torch.int32 if max(largest, default=0) <= INT32_LIMIT else torch.int64


def argsort(keys: Tensor) -> Tensor:
    """Return the permutation that sorts keys, equal ones in any order; NumPy's is several times as fast as torch's."""
    return torch.argsort(keys) if keys.device.type != "cpu" else torch.from_numpy(np.argsort(keys.numpy()))


def stable_order(key: Tensor, num_keys: int) -> Tensor:
    """Return the permutation that sorts integer keys in ``[0, num_keys)``, equal keys in the order they came in.

    ``torch.sort`` on CPU is serial, and about nine times slower than NumPy's vectorised in-place sort, which is not
    stable. So key and position are packed into one int64, which makes all keys distinct and carries the permutation
    along. Besides the keys it holds 8 bytes per entry, and 4 or 8 for the result.
    """
    size = key.numel()
    bits = max(size - 1, 0).bit_length()
    if key.device.type != "cpu" or max(num_keys - 1, 0).bit_length() + bits > _KEY_BITS:
        return torch.sort(key, stable=True).indices.to(index_dtype(size))
    return _unpack(_sorted_keys([(key, bits)], size), bits)


def edge_order(row: Tensor, col: Tensor, num_rows: int, num_cols: int) -> Tensor | None:
    """Return the permutation that sorts entries by row, then by column, then by position; ``None`` when they are.

    One sort is enough when row, column and position fit into 63 bits together, or when the entries already come sorted
    by column, as an edge list of PyG does (its columns are the sources). Otherwise it takes two.
    """
    if _is_sorted(row, col):
        return None
    if row.device.type != "cpu":
        if max(num_rows, 1) * max(num_cols, 1) <= 2**_KEY_BITS:
            return stable_order(row.long() * num_cols + col, num_rows * num_cols)
    else:
        position = max(row.numel() - 1, 0).bit_length()
        shift = position + max(num_cols - 1, 0).bit_length()
        if shift + max(num_rows - 1, 0).bit_length() <= _KEY_BITS:
            return _unpack(_sorted_keys([(row, shift), (col, position)], row.numel()), position)
    if _is_sorted(col):
        return stable_order(row, num_rows)
    by_col = stable_order(col, num_cols)
    return by_col[stable_order(row.index_select(0, by_col), num_rows)]


def _sorted_keys(parts: list[tuple[Tensor, int]], size: int) -> np.ndarray:
    """Return the sorted keys: the given parts shifted by their bits, with the position in the lowest ones."""
    keys = np.empty(size, dtype=np.int64)
    for where in blocks(size):
        block = keys[where]
        block[:] = np.arange(where.start, where.stop)
        for values, shift in parts:
            block |= values[where].numpy().astype(np.int64) << shift
    keys.sort()
    return keys


def _unpack(keys: np.ndarray, bits: int) -> Tensor:
    """Return the positions held by the lowest bits of the keys."""
    order = torch.empty(len(keys), dtype=index_dtype(len(keys)))
    out = order.numpy()
    for where in blocks(len(keys)):
        out[where] = keys[where] & ((1 << bits) - 1)
    return order


def _is_sorted(first: Tensor, second: Tensor | None = None) -> bool:
    """Whether entries are sorted by the first, equal ones by the second; linear, and stops at the first that is not.

    On a device, where every look waits for it, there is one for all of them.
    """
    size = max(first.numel() - 1, 0)
    for where in blocks(size) if first.device.type == "cpu" else [slice(0, size)]:
        behind = slice(where.start + 1, where.stop + 1)
        here, there = first[where], first[behind]
        wrong = here > there
        if second is not None:
            wrong |= (here == there) & (second[where] > second[behind])
        if wrong.any():
            return False
    return True
