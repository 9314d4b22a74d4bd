"""Who is at work on an ingredient, across processes and machines that share a folder."""

import contextlib
import json
import os
import re
import secrets
import socket
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

#: Seconds between two signs of life, and without any before others take over.
HEARTBEAT, TIMEOUT = 15.0, 120.0

_NAME = re.compile(r"lease-(\d+)")


class Lease:
    """The right to work on an ingredient, for one process at a time.

    A lease is a file ``lease-<n>`` that is created with the next free number, or not at all if another was faster.
    While it is held, a thread touches it. Whoever finds a lease that was not touched for ``timeout`` seconds, or whose
    process is no longer there on the same machine, takes the next number; nothing of another is deleted before that,
    so that two can never take over at once. Times are those of the file system, so that clocks need not agree.

    A process that was stopped for longer than the timeout may go on together with another; both write the same files,
    each of them whole.

    Args:
        path: The file.
        token: Tells this lease from every other.
        heartbeat: Seconds between two signs of life.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     first = Lease.take(folder)
        ...     second = Lease.take(folder)
        ...     with first:
        ...         print(held_by(folder) is not None, second)
        ...     print(held_by(folder))
        True None
        None
    """

    def __init__(self, path: Path, token: str, heartbeat: float = HEARTBEAT) -> None:
        self.path, self.token = path, token
        self._heartbeat = heartbeat
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    @classmethod
    def take(cls, folder: str | Path, *, timeout: float = TIMEOUT, heartbeat: float = HEARTBEAT) -> "Lease | None":
        """Take the lease of a folder; ``None`` if another process has it.

        Args:
            folder: Folder of the ingredient.
            timeout: Seconds without a sign of life after which a lease is nobody's.
            heartbeat: Seconds between two signs of life of the new one.

        Raises:
            OSError: If the folder cannot be written.
        """
        folder = Path(folder)
        if held_by(folder, timeout) is not None:
            return None
        number = max((_number(path) for path in _leases(folder)), default=0) + 1
        path, token = folder / f"lease-{number:06d}", secrets.token_hex(8)
        note = json.dumps({"host": _host(), "pid": os.getpid(), "start": _start(os.getpid()), "token": token})
        try:
            with path.open("x") as file:
                file.write(note)
        except FileExistsError:
            return None
        except OSError as error:
            error.filename = error.filename or str(path)  # that of ``write`` names none
            path.unlink(missing_ok=True)
            raise
        # Between the look and the creation others may have come and gone, and the numbers begun anew.
        if any(_alive(other, timeout) for other in _leases(folder) if other != path):
            path.unlink(missing_ok=True)
            return None
        return cls(path, token, heartbeat)

    def is_mine(self) -> bool:
        """Say whether nobody took over."""
        latest = max(_leases(self.path.parent), key=_number, default=None)
        return latest == self.path and (_read(self.path) or {}).get("token") == self.token

    def release(self) -> None:
        """Give the lease back, and remove what is left of earlier ones."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        with contextlib.suppress(OSError):  # the folder may have become read-only; the lease grows stale then
            for path in _leases(self.path.parent):
                if _number(path) < _number(self.path) or (_read(path) or {}).get("token") == self.token:
                    path.unlink(missing_ok=True)

    def __enter__(self) -> "Lease":
        """Start to give signs of life."""
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the lease back."""
        self.release()

    def _beat(self) -> None:
        while not self._ended.wait(self._heartbeat):
            with contextlib.suppress(OSError):
                os.utime(self.path)


def held_by(folder: str | Path, timeout: float = TIMEOUT) -> str | None:
    """Say which process works on an ingredient; ``None`` if none does.

    Args:
        folder: Folder of the ingredient.
        timeout: Seconds without a sign of life after which a lease is nobody's.
    """
    for path in _leases(Path(folder)):
        if _alive(path, timeout):
            note = _read(path) or {}
            return f"process {note.get('pid', '?')} on {str(note.get('host', '?')).partition(' ')[0]}"
    return None


def _leases(folder: Path) -> list[Path]:
    return [path for path in folder.glob("lease-*") if _NAME.fullmatch(path.name)] if folder.is_dir() else []


def _number(path: Path) -> int:
    return int(path.name.removeprefix("lease-"))


def _read(path: Path) -> dict[str, Any] | None:
    """Return what a lease says; ``None`` if it is gone or not yet written to its end."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _alive(path: Path, timeout: float) -> bool:
    note = _read(path)
    if note is not None and note.get("host") == _host() and not _runs(note.get("pid"), note.get("start")):
        return False
    try:
        touched = path.stat().st_mtime
    except FileNotFoundError:
        return False
    return _now(path.parent) - touched < timeout


def _now(folder: Path) -> float:
    """Return the time that the file system would give a file now."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".now.") as file:
            return os.fstat(file.fileno()).st_mtime
    except OSError:
        return time.time()


def _host() -> str:
    """Name what process numbers are unique in: a machine since its start, and a container in it."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with contextlib.suppress(OSError):
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)


def _runs(pid: Any, start: Any) -> bool:
    """Say whether a process of this machine is still there, and not another one of the same number."""
    if not isinstance(pid, int) or os.name == "nt":  # there, signal 0 would end the process
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return start is None or _start(pid) in (start, None)


def _start(pid: int) -> int | None:
    """Return when a process started, in ticks since the start of the machine, or ``None`` where nobody tells."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The name of the program, in brackets, may hold anything; a zombie runs no more.
    fields = stat.rpartition(")")[2].split()
    return -1 if fields[0] in ("Z", "X") else int(fields[19])
