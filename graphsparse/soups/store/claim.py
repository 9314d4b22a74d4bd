"""Who is at work on an ingredient, across processes and machines that share a folder."""

import contextlib
import json
import os
import secrets
import socket
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

#: Seconds between two signs of life, and without any before others take over.
HEARTBEAT, TIMEOUT = 15.0, 120.0


class Claims:
    """The ingredients that this process may work on, each by the file ``claim`` in its folder.

    The file is created, or it is not because another process has it. A thread touches the files that this process
    holds. One that was not touched for ``timeout`` seconds, or whose process is no longer there on the same machine,
    is moved away by whoever comes next. Times are those of the file system, so that clocks need not agree.

    A process that was stopped for longer than the timeout may go on together with another; both write the same files,
    each of them whole, and only the one who holds the claim publishes.

    Args:
        timeout: Seconds without a sign of life after which a claim is nobody's.
        heartbeat: Seconds between two signs of life.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder, Claims() as first, Claims() as second:
        ...     print(first.take(Path(folder)), second.take(Path(folder)))
        ...     first.release(Path(folder))
        ...     print(second.take(Path(folder)))
        True False
        True
    """

    def __init__(self, timeout: float = TIMEOUT, heartbeat: float = HEARTBEAT) -> None:
        self.token = secrets.token_hex(8)
        self._timeout, self._heartbeat = timeout, heartbeat
        self._held: set[Path] = set()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="claims", daemon=True)

    def take(self, folder: Path) -> bool:
        """Claim an ingredient, unless another process has it; an error names the file that cannot be written."""
        path = folder / "claim"
        if not self._create(path):
            text = _read(path)
            if _is_alive(path, text, self._timeout):
                return False
            self._move_away(path, text)
            if not self._create(path):  # another one was faster
                return False
        self._held.add(path)
        return True

    def is_mine(self, folder: Path) -> bool:
        """Say whether nobody took over."""
        return token_of(folder) == self.token

    def release(self, folder: Path) -> None:
        """Give an ingredient back."""
        self._held.discard(folder / "claim")
        with contextlib.suppress(OSError):  # the folder may have become read-only; the claim grows old then
            if self.is_mine(folder):
                (folder / "claim").unlink(missing_ok=True)

    def __enter__(self) -> "Claims":
        """Start to give signs of life."""
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Give everything back."""
        self._ended.set()
        self._thread.join()
        for path in list(self._held):
            self.release(path.parent)

    def _beat(self) -> None:
        while not self._ended.wait(self._heartbeat):
            for path in list(self._held):
                with contextlib.suppress(OSError):
                    if self.is_mine(path.parent):  # nobody else's claim is kept alive
                        os.utime(path)

    def _create(self, path: Path) -> bool:
        note = {"host": _host(), "pid": os.getpid(), "start": _start(os.getpid()), "token": self.token}
        try:
            with path.open("x") as file:
                file.write(json.dumps(note))
        except FileExistsError:
            return False
        except OSError as error:
            error.filename = error.filename or str(path)  # that of ``write`` names none
            path.unlink(missing_ok=True)
            raise
        return True

    def _move_away(self, path: Path, text: str | None) -> None:
        """Remove a claim that is nobody's, but not one that has taken its place in the meantime."""
        aside = path.with_name(f".claim.{self.token}")
        try:
            path.rename(aside)
        except FileNotFoundError:
            return
        if _read(aside) != text:
            with contextlib.suppress(OSError):
                path.hardlink_to(aside)
        aside.unlink()


def token_of(folder: Path) -> str | None:
    """Return what tells the claim of an ingredient from every other, ``None`` if there is none."""
    return _note(_read(folder / "claim")).get("token")


def _read(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return None


def _note(text: str | None) -> dict[str, Any]:
    """Return what a claim says; nothing if it is gone or not yet written to its end."""
    try:
        found = json.loads(text or "")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _is_alive(path: Path, text: str | None, timeout: float) -> bool:
    note = _note(text)
    if note.get("host") == _host() and not _runs(note.get("pid"), note.get("start")):
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
    except (ProcessLookupError, OverflowError):  # no number of a process is that large
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
