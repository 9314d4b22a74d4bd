"""A safetensors file with a JSON header and a checksum over both; nothing in it is executed when it is read."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, contiguous_format

from graphsparse.ops.digest import digest
from graphsparse.utils.atomic_write import atomic_write


def write_tensors(path: str | Path, kind: str, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors and a header of plain values, whole or not at all; ``kind`` names what the file holds."""
    # A copy of its own for each: tensors that share memory are refused by safetensors.
    stored = {name: value.detach().cpu().clone(memory_format=contiguous_format) for name, value in tensors.items()}
    text = json.dumps(header, allow_nan=False, separators=(",", ":"))
    with atomic_write(path) as temporary:
        save_file(stored, temporary, {"kind": kind, "header": text, "checksum": _checksum(stored, text)})


def read_tensors(path: str | Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the header of a file that :func:`write_tensors` wrote.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is of another kind, or is not what was written.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} does not hold a {kind}, or only a part of one: {error}") from error
    if metadata.get("kind") != kind:
        raise ValueError(f"{path} is a safetensors file, but does not hold a {kind}")
    text = metadata.get("header", "")
    if _checksum(tensors, text) != metadata.get("checksum"):
        raise ValueError(f"{path} is damaged or was edited: its checksum does not fit")
    header: dict[str, Any] = json.loads(text)
    return tensors, header


def _checksum(tensors: Mapping[str, Tensor], header: str) -> str:
    return digest([header, *(part for name in sorted(tensors) for part in (name, tensors[name]))], size=32)
