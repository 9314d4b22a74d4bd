"""What can go wrong while ingredients are trained: what to try again, what to give up, and when to stop."""

import errno
import os
import shutil
from pathlib import Path

from graphsparse.utils.atomic_write import TORCH_WRITER

#: After so many failures an ingredient is not tried again.
MOST_FAILURES = 3
#: Seconds to wait before an ingredient is tried again, doubled with each failure.
BACK_OFF = 1.0

#: How a worker process ends, besides 0: another one is at it, try again, no use to try again, store cannot be written.
IS_BUSY, TRY_AGAIN, LASTING, STORAGE = 10, 11, 12, 13

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_CLOSED = {errno.EROFS, errno.EACCES, errno.EPERM}


class IngredientError(RuntimeError):
    """Some ingredients could not be trained; all others are finished and in the store."""


class StorageError(OSError):
    """A store cannot be written; what was finished before is kept."""


def is_storage_error(error: BaseException, store: str | Path) -> bool:
    """Say whether a store could not be written: nothing is wrong with the ingredient then.

    Args:
        error: What was raised.
        store: Folder of the store. That a file elsewhere may not be opened has nothing to do with it.

    Example:
        >>> is_storage_error(OSError(errno.ENOSPC, "No space left on device"), "store")
        True
    """
    if isinstance(error, OSError):
        named = Path(os.fsdecode(error.filename)).absolute() if isinstance(error.filename, str | bytes) else None
        elsewhere = named is not None and not named.is_relative_to(Path(store).absolute())
        return error.errno in _FULL or (error.errno in _CLOSED and not elsewhere)
    return isinstance(error, RuntimeError) and any(mark in str(error) for mark in TORCH_WRITER)


def is_transient(error: BaseException) -> bool:
    """Say whether trying again may help: too little memory, devices and files, not wrong arguments.

    Errors of devices are ``RuntimeError``, as are others, so that all of those count.

    Example:
        >>> is_transient(MemoryError()), is_transient(ValueError())
        (True, False)
    """
    return isinstance(error, OSError | MemoryError | RuntimeError) and not isinstance(error, NotImplementedError)


def storage_error(folder: str | Path, error: BaseException | str) -> StorageError:
    """Return an error that says which store cannot be written, why, and that nothing is lost.

    Args:
        folder: Folder of the store.
        error: What went wrong, or its text.
    """
    number = getattr(error, "errno", None) or errno.EIO
    free = _free(Path(folder))
    told = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
    return StorageError(
        number,
        f"'store' cannot be written ({told}; {free}). All that was finished is there and whole: make room or "
        "give the right to write, and the same call goes on",
        str(folder),
    )


def _free(folder: Path) -> str:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        return f"{shutil.disk_usage(folder).free / 2**20:.0f} MiB free"
    except OSError:
        return "free space unknown"
