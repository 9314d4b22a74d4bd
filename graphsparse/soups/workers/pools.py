"""Where ingredients are trained: in this process, in others of this machine, or on a Ray cluster."""

import contextlib
import errno
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import IO

import torch

import graphsparse
from graphsparse.ops.check import check_count, check_number
from graphsparse.soups.store.ingredient_folder import IngredientFolder
from graphsparse.soups.workers.job import Job, dump_job
from graphsparse.soups.workers.run_ingredient import STORAGE, Outcome, attempt
from graphsparse.typing import optional_module

BACKENDS = ("here", "local", "ray")
#: Seconds between two looks at running processes, and those that they get to end in order.
POLL, GRACE = 0.05, 10.0
_HOME = str(Path(graphsparse.__file__).parents[1])
#: The command of a process, to which its arguments are added: that of this very package, wherever it is, and without
#: the modules of the current folder.
WORKER = (
    sys.executable,
    "-c",
    f"import sys; sys.path[:1] = [] if {_HOME!r} in sys.path[1:] else [{_HOME!r}]; "
    "from graphsparse.soups.workers.run_ingredient import main; sys.exit(main(sys.argv[1:]))",
)
#: How much of what a process wrote is kept when it fails.
_TAIL = 20_000


@dataclass(frozen=True)
class Workers:
    """Where ingredients are trained, and how many at once.

    Args:
        backend: ``"here"`` for this process, one after the other; ``"local"`` for one process per ingredient on this
            machine; ``"ray"`` for one task each on the machines of a Ray cluster.
        num: How many are trained at once. Locally, when ``None``, one for each of ``gpus``, or 1; with Ray as many as
            the cluster has room for.
        threads: Threads of each; when ``None``, locally the cores shared evenly, and 1 with Ray. What is trained in
            this process keeps to its threads.
        gpus: Locally, the number of GPUs or a list of their names, which the workers share; in this process 1 for the
            current one; with Ray, the share of a GPU for each ingredient. Trains on CPU when ``None``.
        checkpoint_every: Save each ingredient after so many epochs; when ``None``, as often as a kill costs 10 seconds
            of work.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If one is out of range, or there are not so many GPUs.
        ImportError: If Ray is asked for and missing.

    Example:
        >>> Workers("local", num=2, threads=1)
        Workers(backend='local', num=2, threads=1, gpus=None, checkpoint_every=None)
    """

    backend: str = "local"
    _: KW_ONLY
    num: int | None = None
    threads: int | None = None
    gpus: float | Sequence[int | str] | None = None
    checkpoint_every: int | None = None

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise ValueError(f"'backend' must be one of {list(BACKENDS)} (got {self.backend!r})")
        for name in ("num", "threads", "checkpoint_every"):
            if getattr(self, name) is not None:
                check_count(getattr(self, name), name)
                if self.backend == "here" and name != "checkpoint_every":
                    raise ValueError(f"'{name}' is for other processes, but backend='here' trains in this one")
        if self.backend == "ray":
            optional_module("ray")
            if self.gpus is not None:
                check_number(self.gpus, "gpus", least=0)
        elif self.gpus and not torch.cuda.is_available():
            raise ValueError(f"'gpus' is {self.gpus!r}, but PyTorch finds no GPU here")
        elif self.backend == "local":
            gpu_names(self.gpus)
        elif self.gpus not in (None, 0, 1):
            raise ValueError(f"'gpus' must be 1 with backend='here', for this process's current one (got {self.gpus})")

    @property
    def device(self) -> str:
        """The device that ingredients are trained on, as their processes call it."""
        return "cuda" if self.gpus else "cpu"


def as_workers(workers: int | Workers) -> Workers:
    """Return what a number of workers stands for: so many processes, or this one when it is 0."""
    if isinstance(workers, Workers):
        return workers
    return Workers(num=workers) if check_count(workers, "workers", 0) else Workers("here")


def gpu_names(gpus: float | Sequence[int | str] | None) -> list[str]:
    """Return the first so many devices, or those of a list, by the names that ``CUDA_VISIBLE_DEVICES`` takes."""
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


def threads_of(workers: int) -> int:
    """Return the threads of each of so many processes: an even share of the cores that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // workers)


class HerePool:
    """Trains in this process, one after the other, for debuggers and notebooks."""

    size = 1

    def __init__(self, job: Job, workers: Workers) -> None:
        self._job = job
        self._ended: list[tuple[str, Outcome]] = []

    def start(self, folder: IngredientFolder, token: str) -> None:
        """Train an ingredient to its end."""
        self._ended.append((folder.key, attempt(folder.store, folder.key, self._job, token)))

    def poll(self, seconds: float) -> list[tuple[str, Outcome]]:
        """Return how it ended."""
        ended, self._ended = self._ended, []
        if not ended:
            time.sleep(seconds)
        return ended

    def stop(self) -> None:
        """Nothing runs."""


@dataclass
class _Running:
    key: str
    process: "subprocess.Popen[bytes]"
    gpu: str
    output: IO[bytes]


class LocalPool:
    """Trains on this machine, each ingredient in a process of its own."""

    def __init__(self, job: Job, workers: Workers) -> None:
        gpus = gpu_names(workers.gpus)
        self.size = workers.num or len(gpus) or 1
        self._threads = workers.threads or threads_of(self.size)
        self._gpus = [gpus[i % len(gpus)] if gpus else "" for i in range(self.size)]
        self._running: list[_Running] = []
        content = dump_job(job)
        self._private = tempfile.TemporaryDirectory(prefix="graphsparse-", ignore_cleanup_errors=True)
        self._job_file = Path(self._private.name) / "job.pkl"
        try:
            self._job_file.write_bytes(content)
        except OSError as error:  # no file of the store: say which disk is full
            self._private.cleanup()
            raise OSError(
                error.errno or errno.EIO,
                f"{error.strerror}: what workers are given goes to the folder of temporary files, which does not take "
                "it; make room there, or name another folder in TMPDIR",
                str(self._job_file),
            ) from error

    def start(self, folder: IngredientFolder, token: str) -> None:
        """Start a process."""
        gpu = self._gpus.pop(0)
        environment = {**os.environ, "OMP_NUM_THREADS": str(self._threads), "CUDA_VISIBLE_DEVICES": gpu}
        numbers = [str(self._threads), str(os.getpid())]
        output = (self._job_file.parent / f"{folder.key}.txt").open("w+b")
        try:
            process = subprocess.Popen(
                [*WORKER, str(self._job_file), str(folder.store.absolute()), folder.key, token, *numbers],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches this process alone, which ends the others in order
            )
        except BaseException:
            output.close()
            self._gpus.append(gpu)
            raise
        self._running.append(_Running(folder.key, process, gpu, output))

    def poll(self, seconds: float) -> list[tuple[str, Outcome]]:
        """Return how processes ended, and what they wrote."""
        time.sleep(min(POLL, seconds))
        ended = [entry for entry in self._running if entry.process.poll() is not None]
        outcomes = []
        for entry in ended:
            self._running.remove(entry)
            self._gpus.append(entry.gpu)
            with entry.output as output:
                output.seek(max(0, output.seek(0, os.SEEK_END) - _TAIL))
                told = output.read().decode(errors="replace").strip()
            outcomes.append((entry.key, _outcome(entry.process.returncode, told)))
        return outcomes

    def stop(self) -> None:
        """End all processes, and wait until they are gone; after a second interruption without giving them time."""
        for entry in self._running:
            entry.process.terminate()
        end = time.monotonic() + GRACE
        try:
            for entry in self._running:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    entry.process.wait(max(0.0, end - time.monotonic()))
        finally:
            for entry in self._running:
                entry.process.kill()
                entry.process.wait()
                entry.output.close()
            self._running.clear()
            self._private.cleanup()


def _outcome(code: int, told: str) -> Outcome:
    """Return how a process ended, with its code or signal where it did not say itself what went wrong."""
    reason = f"killed by signal {-code}" if code < 0 else f"ended with code {code}"
    return Outcome(code, told if code == STORAGE else f"{told}\nthe process {reason}")
