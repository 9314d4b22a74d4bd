"""Files that are whole at any time, and are looked at before they are read."""

import errno
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, contiguous_format

from graphsparse.ops.digest import digest

#: What PyTorch says in an error that has no number when a file could not be written to its end, or not at all.
_TORCH_WRITER = ("inline_container", "PytorchStreamWriter", "unexpected pos", "basic_ios", "iostream error")
#: Bytes of a disk that is full.
_FULL = 1 << 20


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder, which replaces ``path`` when the block ends without an error."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        # mkstemp made it private; an ordinary file follows the umask.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except OSError as error:
        if error.errno is not None:  # those of ``write`` and ``fsync`` name no file
            error.filename = error.filename or str(path)
        raise
    except RuntimeError as error:
        if not any(mark in str(error) for mark in _TORCH_WRITER):
            raise
        number = errno.ENOSPC if shutil.disk_usage(path.parent).free < _FULL else errno.EIO
        raise OSError(number, f"{os.strerror(number)} ({str(error).strip().splitlines()[0]})", str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def is_whole(path: Path) -> bool:
    """Whether a file of ``torch.save`` is complete and all its checksums match.

    ``torch.load`` does not compare checksums: from a file in which a bit has changed it returns other numbers.
    """
    try:
        with zipfile.ZipFile(path) as parts:
            return parts.testzip() is None
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError, EOFError, NotImplementedError):
        return False


def write_tensors(
    path: str | Path, kind: str, tensors: Mapping[str, Tensor], header: Mapping[str, Any], version: str = "1"
) -> None:
    """Write tensors and a header of plain values, whole or not at all; ``kind`` names what the file holds."""
    # A copy of its own for each: tensors that share memory are refused by safetensors.
    stored = {name: value.detach().cpu().clone(memory_format=contiguous_format) for name, value in tensors.items()}
    text = json.dumps(header, allow_nan=False, separators=(",", ":"))
    metadata = {"format": _format(kind), "version": version, "header": text, "checksum": _checksum(stored, text)}
    with atomic_write(path) as temporary:
        save_file(stored, temporary, metadata)


def read_tensors(
    path: str | Path, kind: str, version: str = "1", remedy: str = "make it anew"
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the header of a file that :func:`write_tensors` wrote; nothing in it is run.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is of another kind or version, or is not what was written; the message has the path.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no {kind} at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a {kind}, or only a part of one: {error}") from error
    if metadata.get("format") != _format(kind):
        raise ValueError(f"{path} is a safetensors file, but not a {kind}")
    if metadata.get("version") != version:
        raise ValueError(
            f"{path} is a {kind} of version {metadata.get('version')}, and only version {version} is read: {remedy}"
        )
    text = metadata.get("header", "")
    if _checksum(tensors, text) != metadata.get("checksum"):
        raise ValueError(f"{path} is damaged or was edited: its checksum does not fit")
    header: dict[str, Any] = json.loads(text)
    return tensors, header


def _format(kind: str) -> str:
    return f"graphsparse-{kind.replace(' ', '-')}"


def _checksum(tensors: Mapping[str, Tensor], header: str) -> str:
    return digest([header, *(part for name in sorted(tensors) for part in (name, tensors[name]))], size=32)
