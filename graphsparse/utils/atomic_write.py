"""Files that are there whole or not at all, and whether one still is what was written."""

import errno
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
