"""Files that are whole at any time, and are looked at before they are read."""

import errno
import json
import os
import re
import shutil
import tempfile
import threading
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, contiguous_format

from graphsparse.ops.digest import digest

#: What PyTorch says in an error that has no number when a file could not be written to its end, or not at all.
_TORCH_WRITER = ("inline_container", "PytorchStreamWriter", "unexpected pos", "basic_ios", "iostream error")
#: What it says of a file that is cut off, or none of its own.
_TORCH_READER = ("PytorchStreamReader", "inline_container", "mmap can only be used")
#: Held while names are allowed.
_NAMES = threading.RLock()
#: How PyTorch names what a file would call.
_UNSAFE = re.compile(r"GLOBAL (\S+) (?:was not|whose)")
#: Bytes of a disk that is full.
_FULL = 1 << 20


class FileError(ValueError):
    """A file does not hold what it should; the message has its path."""


class ContentError(ValueError):
    """What is wrong with the content of a file, told where its path is not known."""


@contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Turn whatever the content of a file raises into one :class:`FileError` that has its path.

    Advice of a library to read the file unsafely is not passed on, not as the cause of the error either.
    """
    try:
        yield
    except (FileNotFoundError, PermissionError, FileError):  # these have it
        raise
    except IsADirectoryError:
        raise FileError(f"{str(path)!r} is a folder in the place of a file") from None
    except Exception as error:  # a damaged file, or one that was made to harm, may raise anything
        raise FileError(f"{str(path)!r} cannot be read: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    """Return what is wrong, in one line and without advice to switch safe reading off."""
    text = str(error)
    if isinstance(error, ContentError):
        return text
    if isinstance(error, KeyError):
        return f"it lacks {error.args[0] if error.args else 'a part'!r}".replace(" is not a file in the archive", "")
    if found := _UNSAFE.search(text):
        return f"it would run {found[1]}"
    if "pickle" in text.lower() or "weights_only" in text:
        return "it holds Python objects, or is damaged"
    if any(mark in text for mark in _TORCH_READER):
        return "it is no whole file of PyTorch"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def read_torch(path: str | Path, *, mmap: bool = False) -> Any:
    """Return tensors and plain values that ``torch.save`` wrote; no code in the file is run.

    Raises:
        OSError: If it is not there or may not be read.
        ValueError: If it holds something else, or is damaged; the message has the path.
    """
    # Sparse matrices are checked: with an index that is too large, products read memory that is not theirs.
    with reading(path), torch.sparse.check_sparse_tensor_invariants():  # type: ignore[no-untyped-call]
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)


@contextmanager
def safe_names(names: Sequence[Any]) -> Iterator[None]:
    """Let ``torch.load`` build objects of some more names for a while, and leave those that it could build before.

    The list of names is one for the whole process, so that one thread at a time may change it.
    """
    with _NAMES:
        before = set(torch.serialization.get_safe_globals())
        # PyTorch would take away at the end what was there at the beginning, too.
        with torch.serialization.safe_globals([name for name in names if name not in before]):
            yield


def read_arrays(path: str | Path, *names: str, optional: Sequence[str] = ()) -> dict[str, npt.NDArray[Any]]:
    """Return arrays of numbers of an ``.npz`` file by their names; those that are optional may not be there.

    Raises:
        OSError: If it is not there or may not be read.
        ValueError: If it lacks a name, holds Python objects under it, or is damaged; the message has the path.
    """
    with reading(path), np.load(path, allow_pickle=False) as stored:
        found = {name: stored[name] for name in [*names, *(name for name in optional if name in stored)]}
        wrong = [name for name, array in found.items() if array.dtype.kind not in "biuf"]
        if wrong:
            raise ContentError(f"{wrong[0]!r} is of type {found[wrong[0]].dtype}, and only numbers are read")
    return found


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
    if not path.exists():
        raise FileNotFoundError(f"no {kind} at {path}")
    if not path.is_file():
        raise FileError(f"{path} is not a {kind}, but no file at all")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except PermissionError:
        raise
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        raise FileError(f"{path} is not a {kind}, or only a part of one: {error}") from error
    if metadata.get("format") != _format(kind):
        raise FileError(f"{path} is a safetensors file, but not a {kind}")
    if metadata.get("version") != version:
        raise FileError(
            f"{path} is a {kind} of version {metadata.get('version')}, and only version {version} is read: {remedy}"
        )
    text = metadata.get("header", "")
    if _checksum(tensors, text) != metadata.get("checksum"):
        raise FileError(f"{path} is damaged or was edited: its checksum does not fit")
    with reading(path):  # whoever edits a file can compute its checksum anew
        header = json.loads(text)
        if not isinstance(header, dict):
            raise ContentError("its header is no dictionary")
    return tensors, header


def _format(kind: str) -> str:
    return f"graphsparse-{kind.replace(' ', '-')}"


def _checksum(tensors: Mapping[str, Tensor], header: str) -> str:
    return digest([header, *(part for name in sorted(tensors) for part in (name, tensors[name]))], size=32)
