"""What can go wrong while ingredients are trained, and what is an error of the store rather than of an ingredient."""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_CLOSED = {errno.EROFS, errno.EACCES, errno.EPERM}
_UNWRITABLE = _FULL | _CLOSED | {errno.EIO}
#: Bytes of a disk that is as good as full.
_LITTLE = 1 << 20


class IngredientError(RuntimeError):
    """Some ingredients could not be trained; all others are finished and in the store."""


class StorageError(OSError):
    """A store cannot be written; what was finished before is kept."""


def is_storage_error(error: BaseException, store: str | Path) -> bool:
    """Say whether a store could not be written: nothing is wrong with the ingredient then.

    A full disk or a closed folder of something else, such as the cache of a user's sampler, is no error of the store.
    An error that names no file, which those of the store's own files do, is one of the store if its disk is full.
    """
    if not isinstance(error, OSError) or error.errno not in _UNWRITABLE:
        return False
    if isinstance(error.filename, str | bytes | os.PathLike):
        return _lies_in(Path(os.fsdecode(error.filename)), Path(store))
    return error.errno in _FULL and _is_full(Path(store))


def is_transient(error: BaseException) -> bool:
    """Say whether trying again may help: too little memory, devices and files, not wrong arguments.

    Errors of devices are ``RuntimeError``, as are others, so that all of those count.
    """
    return isinstance(error, OSError | MemoryError | RuntimeError) and not isinstance(error, NotImplementedError)


@contextmanager
def writing(store: str | Path) -> Iterator[None]:
    """Turn whatever keeps the block from writing, which it does to the store alone, into a :class:`StorageError`."""
    try:
        yield
    except OSError as error:
        if isinstance(error, StorageError) or error.errno not in _UNWRITABLE:
            raise
        raise storage_error(store, error) from error


def storage_error(folder: str | Path, error: BaseException | str) -> StorageError:
    """Return an error that says which store cannot be written, why, and that nothing is lost.

    Args:
        folder: Folder of the store.
        error: What went wrong, or its traceback as a text.
    """
    lines = str(error).strip().splitlines()
    told = lines[-1] if lines else "no reason was given" if isinstance(error, str) else type(error).__name__
    told = next((line for line in reversed(lines) if "[Errno" in line), told)  # others may write after the error
    found = re.search(r"\[Errno (\d+)\]", told)
    number = getattr(error, "errno", None) or (int(found[1]) if found else None)
    return StorageError(
        number or (errno.ENOSPC if _is_full(Path(folder)) else errno.EIO),
        f"'store' cannot be written ({told}; {_free(Path(folder))}). All that was finished is there and whole: make "
        "room or give the right to write, and the same call goes on",
        str(folder),
    )


def _lies_in(path: Path, store: Path) -> bool:
    """Say whether a file belongs to a folder, by its name or by where that leads to."""
    return any(Path(whole(path)).is_relative_to(whole(store)) for whole in (os.path.abspath, os.path.realpath))


def _is_full(folder: Path) -> bool:
    free = _free_bytes(folder)
    return free is not None and free < _LITTLE


def _free(folder: Path) -> str:
    free = _free_bytes(folder)
    return "free space unknown" if free is None else f"{free / 2**20:.0f} MiB free"


def _free_bytes(folder: Path) -> int | None:
    """Return the free bytes of the disk of a folder, or of the one that it would be made in."""
    try:
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        return shutil.disk_usage(folder).free
    except OSError:
        return None
