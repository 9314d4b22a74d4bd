"""The ticket file: safetensors, with bit-packed masks, a JSON header and a checksum over both.

Tensors of the file::

    edge_mask          the mask of the edges, 8 per byte; left out if there is no graph or every edge is left
    dense/<name>       a tensor of the state dict as it is
    mask/<name>        where a pruned tensor may be non-zero, 8 entries per byte
    values/<name>      its entries there, in row-major order
    frozen_masks       the masks of all tensors that were never trained, as graphsparse.tickets.mask_code writes them

The header holds everything else: version of the format, names, shapes of pruned tensors, the configuration, the
metrics, the fingerprint of the graph, and the seed and the law of tensors that were never trained. Nothing in the file
is executed when it is read. Version 1 had no tensors of that last kind, and a mask of the edges always.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from graphsparse.utils.atomic_write import atomic_write

FORMAT = "graphsparse-ticket"
VERSION = 2
#: Versions that can be read.
READABLE = ("1", "2")


def pack_bits(mask: Tensor) -> Tensor:
    """Return a bool tensor as bytes, 8 entries each."""
    return torch.from_numpy(np.packbits(mask.detach().cpu().numpy().reshape(-1)))


def unpack_bits(packed: Tensor, num: int) -> Tensor:
    """Return the first ``num`` entries of what :func:`pack_bits` made."""
    if packed.dtype != torch.uint8 or packed.numel() != (num + 7) // 8:
        raise ValueError(f"{packed.numel()} bytes of {packed.dtype} for a mask of {num} entries")
    return torch.from_numpy(np.unpackbits(packed.numpy(), count=num).astype(bool))


def pack_state(state_dict: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a state dict as they are stored: pruned ones as mask and values."""
    packed = {}
    for name, tensor in state_dict.items():
        tensor = tensor.detach().cpu()
        if name in masks:
            mask = masks[name].cpu()
            packed[f"mask/{name}"] = pack_bits(mask)
            packed[f"values/{name}"] = tensor[mask]
        else:
            # A copy of its own: tied tensors share memory, which safetensors refuses.
            packed[f"dense/{name}"] = tensor.clone(memory_format=torch.contiguous_format)
    return packed


def unpack_state(
    tensors: Mapping[str, Tensor], shapes: Mapping[str, list[int] | None]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the state dict and the masks that :func:`pack_state` stored.

    The shape of a tensor that is stored as it is may be ``None``. A name without any tensor is left out.
    """
    state_dict, masks = {}, {}
    for name, shape in shapes.items():
        if f"dense/{name}" in tensors:
            dense = tensors[f"dense/{name}"]
            state_dict[name] = dense if shape is None else dense.reshape(shape)
            continue
        if shape is None:
            continue
        values = tensors[f"values/{name}"]
        mask = unpack_bits(tensors[f"mask/{name}"], int(np.prod(shape))).reshape(shape)
        dense = torch.zeros(shape, dtype=values.dtype)
        dense[mask] = values
        state_dict[name], masks[name] = dense, mask
    return state_dict, masks


def checksum(tensors: Mapping[str, Tensor], header: str) -> str:
    """Return a digest of the header and of every tensor with its name, type and shape."""
    digest = hashlib.sha256(header.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def write(path: str | Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors and header, whole or not at all."""
    text = json.dumps(header, allow_nan=False, separators=(",", ":"))
    metadata = {"format": FORMAT, "version": str(VERSION), "header": text, "sha256": checksum(tensors, text)}
    with atomic_write(path) as temporary:
        save_file(dict(tensors), temporary, metadata)


def read(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read tensors and header, checked.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a ticket, is of a newer format, or is not what was written.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no ticket at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a ticket, or only a part of one: {error}") from error
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{path} is a safetensors file, but not a ticket")
    if metadata.get("version") not in READABLE:
        raise ValueError(
            f"{path} has version {metadata.get('version')} of the ticket format, "
            f"and this release reads {' and '.join(READABLE)}"
        )
    text = metadata.get("header", "")
    if checksum(tensors, text) != metadata.get("sha256"):
        raise ValueError(f"{path} is damaged or was edited: its checksum does not fit")
    header: dict[str, Any] = json.loads(text)
    return tensors, header
