"""Short names that follow from content."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, sparse_coo, sparse_csc, sparse_csr, uint8

from graphsparse.ops.blocks import BLOCK
from graphsparse.ops.check import check_edge_index

#: Bytes of a tensor that are read at a time.
_BYTES = 1 << 26


def digest(values: Iterable[Any], size: int = 8) -> str:
    """Return hexadecimal digits that follow from types, shapes and bits of tensors, and from plain values.

    Args:
        values: Tensors of any layout, ``bytes``, and plain values, in order.
        size: Bytes of the digest; two digits stand for one.
    """
    found = hashlib.blake2b(digest_size=size)
    for value in values:
        if isinstance(value, bytes):
            found.update(value)
            continue
        if not isinstance(value, Tensor):
            found.update(plain(value).encode())
            continue
        found.update(kind_of(value).encode())
        for part in _dense_parts(value.detach()):
            flat = part.contiguous().reshape(-1).view(uint8)
            for start in range(0, flat.numel(), _BYTES):
                found.update(flat[start : start + _BYTES].cpu().numpy().data)
    return found.hexdigest()


def plain(value: Any) -> str:
    """Write plain values out; of anything else only the type, because its address may be in its text."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {plain(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(plain(entry) for entry in value) + "]"
    if isinstance(value, Tensor):
        return str(value.tolist()) if value.numel() <= 16 else f"{kind_of(value)} {digest([value])}"
    return repr(value) if value is None or isinstance(value, str | int | float | bool) else type(value).__name__


def kind_of(value: Any) -> str:
    """Return type and shape of a tensor, the class of anything else."""
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"


def _dense_parts(value: Tensor) -> Sequence[Tensor]:
    if value.layout == sparse_coo:
        value = value.coalesce()
        return value.indices(), value.values()
    if value.layout == sparse_csr:
        return value.crow_indices(), value.col_indices(), value.values()
    if value.layout == sparse_csc:
        return value.ccol_indices(), value.row_indices(), value.values()
    return (value.as_subclass(Tensor),)


def graph_fingerprint(edge_index: Tensor, num_nodes: int | tuple[int, int] | None = None) -> str:
    """Return a digest of the edges, in their order, and the number of nodes, of a bipartite graph of sources.

    What is stored per edge, such as a mask, fits another graph only if the fingerprints are equal. The integer type,
    the device and the class of ``edge_index`` do not matter.
    """
    num_nodes, _ = check_edge_index(edge_index, num_nodes)
    parts = (part for row in edge_index.as_subclass(Tensor) for part in row.split(BLOCK))
    return f"{num_nodes}-{edge_index.size(1)}-{digest(part.long() for part in parts)}"
