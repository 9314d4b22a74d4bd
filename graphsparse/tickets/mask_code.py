"""Masks and coat counts of many tensors as few bytes: close to, and on found masks below, the entropy of their bits.

The tensors are laid side by side and split into nested planes: plane 0 says where a count is above 0, plane :math:`p`
says where it is above :math:`p`, for those entries only where plane :math:`p - 1` is 1. Each plane is coded by itself,
in whichever of these ways takes the fewest bytes:

* row by row or column by column: columns of rare words are emptier than others;
* as bits, as bits through LZMA, or as the distances between its rarer symbols through LZMA, one byte each, where 255
  means "255 and go on". LZMA without context bits is an adaptive arithmetic coder of bytes, which is what is wanted.

Stream, little endian::

    crc32 u32          of the shapes and of all that follows
    planes u8          number of planes; 255 for bool tensors, which have one
    per plane:
      way u8           bits 0-1: 0 bits, 1 LZMA of bits, 2 LZMA of distances; bit 2: by columns; bit 3: ones are rarer
      length u64       of the payload
      payload
"""

import itertools
import lzma
import math
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_BITS, _LZMA_BITS, _LZMA_GAPS = range(3)
_BY_COLUMNS, _COUNT_ONES = 4, 8
_BOOL = 255
#: No context bits: neighbouring bytes say little about each other. The window is short because it is hardly ever used,
#: and it bounds the memory of reading too.
_LZMA: list[dict[str, Any]] = [
    {
        "id": lzma.FILTER_LZMA1,
        "dict_size": 1 << 16,
        "lc": 0,
        "lp": 0,
        "pb": 0,
        "mode": lzma.MODE_NORMAL,
        "mf": lzma.MF_BT4,
        "nice_len": 273,
    }
]
#: Above this fraction of the rarer symbol, distances take more bytes than bits, and much more memory.
_DENSE = 0.35

_Bools = npt.NDArray[np.bool_]
_Bytes = npt.NDArray[np.uint8]


def encode_masks(masks: Sequence[Tensor]) -> bytes:
    r"""Return masks, or numbers of coats, as bytes.

    Args:
        masks: Tensors of any shapes, all bool or all uint8 (at most 254 coats).

    Returns:
        Bytes that :func:`decode_masks` reads, given the shapes. For a mask that keeps each of :math:`n` entries with
        probability :math:`p` they are about :math:`n H_2(p) / 8`, for coats the sum of that over the planes.

    Raises:
        TypeError: If the tensors are neither all bool nor all uint8.
        ValueError: If there are more than 254 coats.

    Example:
        >>> mask = torch.zeros(256, 1433, dtype=torch.bool)
        >>> mask[:, ::100] = True
        >>> code = encode_masks([mask])
        >>> len(code) < 100, torch.equal(decode_masks(code, [(256, 1433)])[0], mask)
        (True, True)
    """
    dtypes = {mask.dtype for mask in masks}
    if len(dtypes) > 1 or not dtypes <= {torch.bool, torch.uint8}:
        raise TypeError(f"'masks' must be all bool or all uint8 (got {sorted(map(str, dtypes))})")
    is_bool = torch.uint8 not in dtypes
    counts = [_matrix(mask.detach().cpu().numpy().view(np.uint8)) for mask in masks]
    planes = 1 if is_bool else max((int(count.max()) for count in counts if count.size), default=0)
    if planes >= _BOOL:
        raise ValueError(f"'masks' must hold at most {_BOOL - 1} coats (got {planes})")
    body = bytearray([_BOOL if is_bool else planes])
    for plane in range(planes):
        body += _encode_plane(counts, plane)
    return struct.pack("<I", _crc(body, [mask.shape for mask in masks])) + bytes(body)


def decode_masks(code: bytes, shapes: Sequence[Sequence[int]]) -> list[Tensor]:
    """Return the tensors that :func:`encode_masks` got.

    Nothing is reserved for the tensors before their code has been read and found to fit them.

    Args:
        code: What :func:`encode_masks` returned.
        shapes: Shapes of the tensors.

    Returns:
        bool or uint8 tensors of these shapes.

    Raises:
        ValueError: If the bytes are damaged or cut off, or are of other shapes.

    Example:
        >>> decode_masks(encode_masks([torch.tensor([0, 2, 1], dtype=torch.uint8)]), [(3,)])
        [tensor([0, 2, 1], dtype=torch.uint8)]
    """
    if len(code) < 5 or struct.unpack_from("<I", code)[0] != _crc(memoryview(code)[4:], shapes):
        raise ValueError(f"the code of the masks is damaged, cut off, or of other shapes ({len(code)} bytes)")
    sizes = [math.prod(shape) for shape in shapes]
    planes = 1 if code[4] == _BOOL else code[4]
    counts: list[_Bytes] = []
    num, position = sum(sizes), 5
    for plane in range(planes):
        if len(code) < position + 9:
            raise ValueError("the code of the masks ends within a plane")
        way, length = struct.unpack_from("<BQ", code, position)
        position += 9 + length
        if len(code) < position:
            raise ValueError("the code of the masks ends within a plane")
        ones = _decode_plane(code[position - length : position], way, num)
        if plane == 0:
            counts = [np.zeros(_rows_and_columns(shape), dtype=np.uint8) for shape in shapes]
        _add_plane(counts, ones, plane, by_columns=bool(way & _BY_COLUMNS))
        num = int(np.count_nonzero(ones))
    if position != len(code):
        raise ValueError(f"the code of the masks has {len(code) - position} bytes too many")
    if not counts:
        counts = [np.zeros(size, dtype=np.uint8) for size in sizes]
    dtype = torch.bool if code[4] == _BOOL else torch.uint8
    return [torch.from_numpy(c.reshape(-1)).view(dtype).view(tuple(s)) for c, s in zip(counts, shapes, strict=True)]


def _crc(body: bytes | bytearray | memoryview, shapes: Sequence[Sequence[int]]) -> int:
    return zlib.crc32(body, zlib.crc32(repr([tuple(shape) for shape in shapes]).encode()))


def _rows_and_columns(shape: Sequence[int]) -> tuple[int, int]:
    return (shape[0], math.prod(shape[1:])) if len(shape) > 1 else (1, math.prod(shape))


def _matrix(array: _Bytes) -> _Bytes:
    return array.reshape(_rows_and_columns(array.shape))


def _flat(counts: Sequence[_Bytes], *, by_columns: bool) -> _Bytes:
    """Lay the tensors one after another."""
    parts = [(count.T if by_columns else count).reshape(-1) for count in counts]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.uint8)


def _plane(counts: Sequence[_Bytes], plane: int, *, by_columns: bool) -> _Bools:
    """Say of the entries with a count of at least ``plane`` whether it is above."""
    flat = _flat(counts, by_columns=by_columns)
    return np.asarray((flat if plane == 0 else flat[flat >= plane]) > plane)


def _add_plane(counts: Sequence[_Bytes], ones: _Bools, plane: int, *, by_columns: bool) -> None:
    """Undo :func:`_plane`: count one more where ``ones`` says so."""
    start = 0
    for count in counts:
        # The transposed view walks through the matrix by columns, in reading and in writing.
        view = count.T if by_columns else count
        if plane == 0:
            num = count.size
            view[...] = ones[start : start + num].reshape(view.shape)
        else:
            reached = view == plane
            num = int(np.count_nonzero(reached))
            view[reached] += ones[start : start + num]
        start += num


def _encode_plane(counts: Sequence[_Bytes], plane: int) -> bytes:
    best: bytes | None = None
    best_way = 0
    for by_columns in (False, True):
        ones = _plane(counts, plane, by_columns=by_columns)
        rare = int(np.count_nonzero(ones)) * 2 <= ones.size
        order = _BY_COLUMNS if by_columns else 0
        for way, payload in _payloads(ones, rare=rare):
            if best is None or len(payload) < len(best):
                best, best_way = payload, way | order
    assert best is not None
    return struct.pack("<BQ", best_way, len(best)) + best


def _payloads(ones: _Bools, *, rare: bool) -> itertools.chain[tuple[int, bytes]]:
    bits = np.packbits(ones).tobytes()
    ways = [(_BITS, bits), (_LZMA_BITS, _compress(bits))]
    marked = ones if rare else ~ones
    if int(np.count_nonzero(marked)) <= _DENSE * ones.size:
        ways.append((_LZMA_GAPS | (_COUNT_ONES if rare else 0), _compress(_gaps(marked))))
    return itertools.chain(ways)


def _decode_plane(payload: bytes, way: int, num: int) -> _Bools:
    kind = way & 3
    if kind > _LZMA_GAPS or way >= 16:
        raise ValueError(f"the code of the masks names the unknown way {way}")
    if kind == _LZMA_GAPS:
        # Every byte but 255 is a marked entry, and every 255 stands for as many unmarked ones.
        marked = _from_gaps(_decompress(payload, num + num // 255), num)
        return marked if way & _COUNT_ONES else ~marked
    bits = payload if kind == _BITS else _decompress(payload, (num + 7) // 8)
    if len(bits) != (num + 7) // 8:
        raise ValueError(f"the code of the masks holds {len(bits)} bytes for {num} bits")
    return np.unpackbits(np.frombuffer(bits, dtype=np.uint8), count=num).view(np.bool_)


def _gaps(marked: _Bools) -> bytes:
    """Return the number of unmarked entries before every marked one."""
    distances = np.diff(np.flatnonzero(marked), prepend=-1) - 1
    again, rest = np.divmod(distances, 255)
    gaps = np.full(int(again.sum()) + rest.size, 255, dtype=np.uint8)
    gaps[np.cumsum(again + 1) - 1] = rest
    return gaps.tobytes()


def _from_gaps(gaps: bytes, num: int) -> _Bools:
    steps = np.frombuffer(gaps, dtype=np.uint8)
    ends = np.flatnonzero(steps < 255)
    if steps.size and steps[-1] == 255:
        raise ValueError("the code of the masks ends within a distance")
    positions = np.cumsum(steps, dtype=np.int64)[ends] + np.arange(ends.size)
    if positions.size and positions[-1] >= num:
        raise ValueError(f"the code of the masks marks entry {positions[-1]} of {num}")
    marked = np.zeros(num, dtype=np.bool_)
    marked[positions] = True
    return marked


def _compress(data: bytes) -> bytes:
    return lzma.compress(data, format=lzma.FORMAT_RAW, filters=_LZMA)


def _decompress(data: bytes, limit: int) -> bytes:
    """Return at most ``limit`` bytes, whatever the data claim."""
    decompressor = lzma.LZMADecompressor(format=lzma.FORMAT_RAW, filters=_LZMA)
    try:
        out = decompressor.decompress(data, max_length=limit + 1)
    except (lzma.LZMAError, EOFError) as error:
        raise ValueError(f"the code of the masks is damaged: {error}") from error
    if len(out) > limit or not decompressor.eof or decompressor.unused_data:
        raise ValueError("the code of the masks is damaged: it does not end where it should")
    return out
