"""Train ingredients on this machine, each in a process of its own."""

import contextlib
import errno
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import torch

import graphsparse
from graphsparse.soups.store.failures import BACK_OFF, IS_BUSY, LASTING, STORAGE, storage_error
from graphsparse.soups.store.ingredient_folder import IngredientFolder
from graphsparse.soups.store.lease import held_by
from graphsparse.soups.workers.here_backend import LOOK
from graphsparse.soups.workers.job import Job, dump_job
from graphsparse.soups.workers.report import Report

#: Seconds between two looks at running processes, and those that they get to end in order.
POLL, GRACE = 0.05, 10.0
_HOME = str(Path(graphsparse.__file__).parents[1])
#: The command of a process, to which its arguments are added. It is ``-m graphsparse.soups.workers.worker`` with this
#: very package, wherever it is, and without the modules of the current folder.
WORKER = (
    sys.executable,
    "-c",
    f"import sys; sys.path[:1] = [] if {_HOME!r} in sys.path[1:] else [{_HOME!r}]; "
    "from graphsparse.soups.workers.worker import main; sys.exit(main(sys.argv[1:]))",
)
#: How much of what a process wrote is kept when it fails.
_TAIL = 20_000


@dataclass
class _Running:
    folder: IngredientFolder
    process: "subprocess.Popen[bytes]"
    token: str | None
    output: IO[bytes]


def run_local(job: Job, report: Report, *, workers: int, gpus: Sequence[str] = (), threads: int | None = None) -> None:
    """Train all open ingredients, several at once, each in a process of its own.

    A process that ends without a result, for whatever reason, costs its own ingredient only, which is tried again.
    Ingredients that another call trains are waited for. After an interruption all processes are ended.

    Args:
        job: Model and functions.
        report: Which ingredients are open, and who is told.
        workers: Most processes at once.
        gpus: Devices by the names that ``CUDA_VISIBLE_DEVICES`` takes; processes share them evenly.
        threads: Threads of each process; the cores of this machine shared evenly when ``None``.

    Raises:
        OSError: If the store cannot be written, or the folder of temporary files, which the message names then.
    """
    if not report.open:
        return
    threads = threads_of(workers) if threads is None else threads
    with tempfile.TemporaryDirectory(prefix="graphsparse-", ignore_cleanup_errors=True) as private:
        job_file = Path(private) / "job.pkl"
        _write_job(job_file, dump_job(job))
        supervisor = _Supervisor(job_file, report, workers, gpus, threads)
        try:
            supervisor.run()
        finally:
            supervisor.stop()


def _write_job(path: Path, content: bytes) -> None:
    """Write what workers read; it is no file of the store, so that an error must say which disk is full."""
    try:
        path.write_bytes(content)
    except OSError as error:
        raise OSError(
            error.errno or errno.EIO,
            f"{error.strerror}: what workers are given goes to the folder of temporary files, which does not take it; "
            "make room there, or name another folder in TMPDIR",
            str(path),
        ) from error


def threads_of(workers: int) -> int:
    """Return the threads of each of so many processes: an even share of the cores that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // workers)


def gpu_tokens(gpus: int | Sequence[int | str] | None) -> list[str]:
    """Return devices by the names that ``CUDA_VISIBLE_DEVICES`` takes.

    Args:
        gpus: How many of the devices that this process may use, or their names; none when ``None``.

    Raises:
        TypeError: If it is neither a number nor a list.
        ValueError: If it is negative, or more than there are.

    Example:
        >>> gpu_tokens([1, "GPU-5b"]), gpu_tokens(None)
        (['1', 'GPU-5b'], [])
    """
    if gpus is None:
        return []
    if isinstance(gpus, bool) or not isinstance(gpus, int | Sequence) or isinstance(gpus, str):
        raise TypeError(f"'gpus' must be a number or a list of devices (got {gpus!r} of type {type(gpus).__name__})")
    if not isinstance(gpus, int):
        return [str(gpu) for gpu in gpus]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [name.strip() for name in visible.split(",") if name.strip()] if visible is not None else None
    num_visible = torch.cuda.device_count() if names is None else len(names)
    if not 0 <= gpus <= num_visible:
        raise ValueError(f"'gpus' must be at least 0 and at most the {num_visible} visible devices (got {gpus})")
    return [str(gpu) for gpu in range(gpus)] if names is None else names[:gpus]


class _Supervisor:
    """Keeps processes running until no ingredient is open."""

    def __init__(self, job_file: Path, report: Report, workers: int, gpus: Sequence[str], threads: int) -> None:
        self.job_file, self.report, self.workers, self.threads = job_file, report, workers, threads
        self.tokens: list[str | None] = [gpus[i % len(gpus)] if gpus else None for i in range(workers)]
        self.running: list[_Running] = []
        self.not_before: dict[str, float] = {}
        self.looked = -LOOK

    def run(self) -> None:
        while self.report.open:
            self.look_at_running()
            if time.monotonic() - self.looked >= LOOK:
                for folder in self.waiting():
                    self.report.settle(folder)  # another call may have finished it
                self.looked = time.monotonic()
            self.start_more()
            self.report.running(len(self.running))
            time.sleep(POLL)

    def waiting(self) -> list[IngredientFolder]:
        at_work = {entry.folder.key for entry in self.running}
        return [folder for folder in self.report.open if folder.key not in at_work]

    def start_more(self) -> None:
        for folder in self.waiting():
            if len(self.running) >= self.workers:
                return
            if time.monotonic() < self.not_before.get(folder.key, 0) or self.report.settle(folder):
                continue
            if held_by(folder.path) is None:
                self.running.append(self.start(folder))
            else:
                self.not_before[folder.key] = time.monotonic() + LOOK

    def start(self, folder: IngredientFolder) -> _Running:
        token = self.tokens.pop(0)
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(self.threads),
            "CUDA_VISIBLE_DEVICES": token or "",
        }
        arguments = [str(self.job_file), str(folder.store.absolute()), folder.key, str(self.threads), str(os.getpid())]
        output = (self.job_file.parent / f"{folder.key}.txt").open("w+b")
        try:
            process = subprocess.Popen(
                [*WORKER, *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches this process alone, which ends the others in order
            )
        except BaseException:
            output.close()
            self.tokens.append(token)
            raise
        return _Running(folder, process, token, output)

    def look_at_running(self) -> None:
        for entry in list(self.running):
            code = entry.process.poll()
            if code is None:
                continue
            self.running.remove(entry)
            self.tokens.append(entry.token)
            with entry.output as output:
                output.seek(max(0, output.seek(0, os.SEEK_END) - _TAIL))
                told = output.read().decode(errors="replace")
            self.ended(entry.folder, code, told)

    def ended(self, folder: IngredientFolder, code: int, told: str) -> None:
        if self.report.settle(folder):
            return
        if code == IS_BUSY:
            self.not_before[folder.key] = time.monotonic() + LOOK
            return
        if code == STORAGE:
            raise _storage_error(folder, told)
        reason = f"killed by signal {-code}" if code < 0 else f"ended with code {code}"
        try:
            folder.record_failure(f"{told}\nthe process {reason}", lasting=code == LASTING)
        except OSError as error:
            raise storage_error(folder.store, error) from error
        if not self.report.settle(folder):
            wait = BACK_OFF * 2 ** (len(folder.failures()) - 1)
            self.not_before[folder.key] = time.monotonic() + wait

    def stop(self) -> None:
        """End all processes, and wait until they are gone; after a second interruption without giving them time."""
        for entry in self.running:
            entry.process.terminate()
        end = time.monotonic() + GRACE
        try:
            for entry in self.running:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    entry.process.wait(max(0.0, end - time.monotonic()))
        finally:
            for entry in self.running:
                entry.process.kill()
                entry.process.wait()
                entry.output.close()
            self.running.clear()


def _storage_error(folder: IngredientFolder, told: str) -> OSError:
    """Return the error that a process told of in the last line of its output."""
    lines = told.strip().splitlines()
    with contextlib.suppress(ValueError, IndexError):
        found = json.loads(lines[-1])
        if isinstance(found, dict) and found.get("error"):
            return storage_error(folder.store, found["error"], found.get("errno"))
    return storage_error(folder.store, told)
