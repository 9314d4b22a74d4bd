"""The ticket file: safetensors with compressed masks, a JSON header, and a checksum over both.

Tensors of the file::

    dense/<name>    a tensor of the state dict as it is
    values/<name>   the entries of a pruned tensor that its mask keeps, in row-major order
    plane/<p>       where the masks of all tensors are above p, among the entries that are above p - 1
    edge_mask       the mask of the edges, 8 per byte; left out if there is no graph or every edge is kept
    edge_mask/<i>   the same of the edge type of this number of a HeteroData

The header holds everything else: names, shapes, the configuration, the metrics, the fingerprint of the graph, and the
seed and the law of tensors that were never trained. Nothing in the file is executed when it is read.
"""

import lzma
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from graphsparse.utils.files import read_tensors, write_tensors

VERSION = "3"
#: No context bits: neighbouring bytes say little about each other. The window is short because it is hardly ever used.
_LZMA: list[dict[str, Any]] = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 16, "lc": 0, "lp": 0, "pb": 0}]

_Array = npt.NDArray[Any]


def pack_bits(mask: Tensor) -> Tensor:
    """Return a bool tensor as bytes, 8 entries each."""
    return torch.from_numpy(np.packbits(mask.detach().cpu().numpy().reshape(-1)))


def unpack_bits(packed: Tensor, num: int) -> Tensor:
    """Return the first ``num`` entries of what :func:`pack_bits` made."""
    if packed.dtype != torch.uint8 or packed.numel() != (num + 7) // 8:
        raise ValueError(f"{packed.numel()} bytes of {packed.dtype} for a mask of {num} entries")
    return torch.from_numpy(np.unpackbits(packed.numpy(), count=num).astype(bool))


def pack_edges(masks: Mapping[Any, Tensor]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return masks of entries, by edge type or that of a ``Data`` under ``None``, and what JSON must say of them."""
    names = {kind: "edge_mask" if kind is None else f"edge_mask/{i}" for i, kind in enumerate(masks)}
    tensors = {names[kind]: pack_bits(mask) for kind, mask in masks.items() if not mask.all()}
    header: dict[str, Any] = {"num_edges": masks[None].numel() if None in masks else None}
    if masks and None not in masks:
        header["edge_types"] = [[*kind, mask.numel()] for kind, mask in masks.items()]
    return tensors, header


def unpack_edges(tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> dict[Any, Tensor]:
    """Return what :func:`pack_edges` got."""
    sizes: dict[Any, int] = {} if header["num_edges"] is None else {None: header["num_edges"]}
    sizes |= {(src, relation, dst): num for src, relation, dst, num in header.get("edge_types", [])}
    found: dict[Any, Tensor] = {}
    for i, (kind, num) in enumerate(sizes.items()):
        name = "edge_mask" if kind is None else f"edge_mask/{i}"
        found[kind] = unpack_bits(tensors[name], num) if name in tensors else torch.ones(num, dtype=torch.bool)
    return found


def pack_masks(masks: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return masks, bool or uint8 numbers of coats, as compressed planes, and what JSON must say of them.

    The tensors are laid side by side, column by column, because columns of rare words are emptier than others. A plane
    is compressed as bits, or, where few are set, as the distances between these.
    """
    counts = np.concatenate([np.zeros(0, np.uint8), *map(_by_columns, masks.values())])
    planes, kinds = {}, []
    for level in range(int(counts.max(initial=0))):
        above = counts > level
        few = 8 * np.count_nonzero(above) < above.size
        packed = _distances(above) if few else np.packbits(above).tobytes()
        code = lzma.compress(packed, format=lzma.FORMAT_RAW, filters=_LZMA)
        planes[f"plane/{level}"] = torch.frombuffer(bytearray(code), dtype=torch.uint8)
        kinds.append("distances" if few else "bits")
        counts = counts[above]
    tensors = {name: [_dtype_name(mask), list(mask.shape)] for name, mask in masks.items()}
    return planes, {"planes": kinds, "tensors": tensors}


def unpack_masks(planes: Mapping[str, Tensor], description: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return what :func:`pack_masks` got."""
    shapes = [shape for _, shape in description["tensors"].values()]
    counts = np.zeros(sum(map(math.prod, shapes)), np.uint8)
    left = np.arange(counts.size)
    for level, kind in enumerate(description["planes"]):
        code = planes[f"plane/{level}"].numpy().tobytes()
        if kind == "distances":
            left = left[np.cumsum(_numbers(_decompress(code, 8 * left.size)) + 1) - 1]
        else:
            bits = np.frombuffer(_decompress(code, (left.size + 7) // 8), np.uint8)
            left = left[np.unpackbits(bits, count=left.size).view(bool)]
        counts[left] += 1
    masks, start = {}, 0
    for name, (dtype, shape) in description["tensors"].items():
        rows, columns = _rows_and_columns(shape)
        part = counts[start : start + rows * columns].reshape(columns, rows).T
        mask = torch.from_numpy(np.ascontiguousarray(part)).view(tuple(shape))
        masks[name] = mask.view(torch.bool) if dtype == "bool" else mask
        start += part.size
    return masks


def write(path: str | Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors and header, whole or not at all."""
    write_tensors(path, "ticket", tensors, header, VERSION)


def read(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read tensors and header, and refuse what is no ticket, is of another version, or is not what was written."""
    return read_tensors(path, "ticket", VERSION, "find the ticket anew, or read it with the release that wrote it")


def _dtype_name(mask: Tensor) -> str:
    return str(mask.dtype).removeprefix("torch.")


def _rows_and_columns(shape: Sequence[int]) -> tuple[int, int]:
    return (shape[0], math.prod(shape[1:])) if len(shape) > 1 else (1, math.prod(shape))


def _by_columns(mask: Tensor) -> _Array:
    array = mask.detach().cpu().numpy().view(np.uint8)
    return array.reshape(_rows_and_columns(array.shape)).T.reshape(-1)


def _distances(marked: _Array) -> bytes:
    """Return the number of unmarked entries before every marked one: the lowest bytes of all, then the next, ..."""
    distances = np.diff(np.flatnonzero(marked), prepend=-1) - 1
    return distances.astype("<i8").view(np.uint8).reshape(-1, 8).T.tobytes()


def _numbers(data: bytes) -> _Array:
    """Return the numbers that :func:`_distances` wrote byte by byte."""
    lowest_first = np.frombuffer(data, np.uint8).reshape(8, -1).T
    return np.ascontiguousarray(lowest_first).view("<i8").reshape(-1)


def _decompress(data: bytes, limit: int) -> bytes:
    """Return at most ``limit`` bytes, whatever the data claim."""
    return lzma.LZMADecompressor(format=lzma.FORMAT_RAW, filters=_LZMA).decompress(data, max_length=limit)
