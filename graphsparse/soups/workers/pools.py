"""The three pools that train ingredients: this process, others of this machine, and a Ray cluster."""

import contextlib
import errno
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import graphsparse
from graphsparse.soups.store.ingredient_folder import IngredientFolder
from graphsparse.soups.workers.elsewhere import attempt_elsewhere, dump_recipe
from graphsparse.soups.workers.recipe import Recipe
from graphsparse.soups.workers.run_ingredient import AGAIN, STORAGE, Job, Outcome, attempt
from graphsparse.soups.workers.supervise import Pool
from graphsparse.soups.workers.workers import gpu_names, threads_of
from graphsparse.typing import optional_module

#: Seconds between two looks at running processes, and those that they get to end in order.
POLL, GRACE = 0.05, 10.0
_HOME = str(Path(graphsparse.__file__).parents[1])
#: The command of a process, to which its arguments are added: that of this very package, wherever it is, and without
#: the modules of the current folder.
WORKER = (
    sys.executable,
    "-c",
    f"import sys; sys.path[:1] = [] if {_HOME!r} in sys.path[1:] else [{_HOME!r}]; "
    "from graphsparse.soups.workers.elsewhere import main; sys.exit(main(sys.argv[1:]))",
)
#: How much of what a process wrote is kept when it fails.
_TAIL = 20_000


class HerePool:
    """Trains in this process, one after the other, for debuggers and notebooks."""

    size = 1

    def __init__(self, recipe: Recipe | Job) -> None:
        self._recipe = recipe
        self._ended: list[tuple[str, Outcome]] = []

    def start(self, folder: IngredientFolder, token: str) -> None:
        """Train an ingredient to its end."""
        self._ended.append((folder.key, attempt(folder.store, folder.key, self._recipe, token)))

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

    def __init__(self, recipe: Recipe | Job) -> None:
        workers = recipe.workers
        gpus = gpu_names(workers.gpus)
        self.size = workers.num or len(gpus) or 1
        self._threads = workers.threads or threads_of(self.size)
        self._gpus = [gpus[i % len(gpus)] if gpus else "" for i in range(self.size)]
        self._running: list[_Running] = []
        content = dump_recipe(recipe)
        self._private = tempfile.TemporaryDirectory(prefix="graphsparse-", ignore_cleanup_errors=True)
        self._file = Path(self._private.name) / "recipe.pkl"
        try:
            self._file.touch(0o600)  # in a folder that only this user may enter
            self._file.write_bytes(content)
        except OSError as error:  # no file of the store: say which disk is full
            self._private.cleanup()
            raise OSError(
                error.errno or errno.EIO,
                f"{error.strerror}: what workers are given goes to the folder of temporary files, which does not take "
                "it; make room there, or name another folder in TMPDIR",
                str(self._file),
            ) from error

    def start(self, folder: IngredientFolder, token: str) -> None:
        """Start a process."""
        gpu = self._gpus.pop(0)
        environment = {**os.environ, "OMP_NUM_THREADS": str(self._threads), "CUDA_VISIBLE_DEVICES": gpu}
        numbers = [str(self._threads), str(os.getpid())]
        output = (self._file.parent / f"{folder.key}.txt").open("w+b")
        try:
            process = subprocess.Popen(
                [*WORKER, str(self._file), str(folder.store.absolute()), folder.key, token, *numbers],
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


class RayPool:
    """Trains as tasks of Ray, whose results are files in the store.

    Tasks go to the cluster that this process is connected to, or to that of ``RAY_ADDRESS``, or to one on this machine
    alone that ends with the call. All machines must reach the store under the same path, and have this package. One
    that is large enough for a task must be there when the call starts.
    A task returns nothing but how it ended, so that nothing is lost with the driver: the same call goes on.
    """

    def __init__(self, recipe: Recipe | Job) -> None:
        self._ray, workers = optional_module("ray"), recipe.workers
        self.size = workers.num or sys.maxsize
        self._threads, gpus = workers.threads or 1, float(workers.gpus or 0)  # type: ignore[arg-type]
        self._running: dict[Any, str] = {}
        content = dump_recipe(recipe)
        self._own = not self._ray.is_initialized()
        if self._own:
            self._ray.init(include_dashboard=False, log_to_driver=False, configure_logging=False)
        try:
            _check_room(self._ray, gpus, self._threads)
            # One copy for all, which each machine fetches once.
            self._content = self._ray.put(content)
            # What went wrong is counted here and not by Ray, which would start a task again without a note.
            remote = self._ray.remote(num_cpus=self._threads, num_gpus=gpus, max_retries=0)
            self._task = remote(attempt_elsewhere)
        except BaseException:
            self.stop()
            raise

    def start(self, folder: IngredientFolder, token: str) -> None:
        """Hand out a task."""
        store = str(folder.store.absolute())
        self._running[self._task.remote(self._content, store, folder.key, token, self._threads)] = folder.key

    def poll(self, seconds: float) -> list[tuple[str, Outcome]]:
        """Return how the next task ended."""
        if not self._running:
            time.sleep(seconds)
            return []
        ready, _ = self._ray.wait(list(self._running), num_returns=1, timeout=seconds)
        return [(self._running.pop(reference), self._outcome(reference)) for reference in ready]

    def stop(self) -> None:
        """End all tasks, and the cluster that was started for them."""
        for reference in self._running:
            self._ray.cancel(reference, force=True)
        if self._own:
            self._ray.shutdown()

    def _outcome(self, reference: Any) -> Outcome:
        try:
            found: Outcome = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:  # the process or its machine died
            return Outcome(AGAIN, f"{type(error).__name__}: {error}")
        return found


def make_pool(recipe: Recipe | Job) -> Pool:
    """Return the pool that the workers of a recipe name."""
    pools: dict[str, type[Pool]] = {"here": HerePool, "local": LocalPool, "ray": RayPool}
    return pools[recipe.workers.backend](recipe)  # type: ignore[call-arg]


def _outcome(code: int, told: str) -> Outcome:
    """Return how a process ended, with its code or signal where it did not say itself what went wrong."""
    reason = f"killed by signal {-code}" if code < 0 else f"ended with code {code}"
    return Outcome(code, told if code == STORAGE else f"{told}\nthe process {reason}")


def _check_room(ray: Any, gpus: float, threads: int) -> None:
    """Refuse tasks that would wait for ever, as no machine is large enough."""
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    sizes = [(float(machine.get("GPU", 0)), float(machine.get("CPU", 0))) for machine in machines]
    if not any(size[0] >= gpus and size[1] >= threads for size in sizes):
        most = max(sizes, default=(0.0, 0.0))
        raise ValueError(
            f"'gpus' and 'threads' must be what a machine of the Ray cluster has (got gpus={gpus:g} and threads="
            f"{threads} for each ingredient; the largest has {most[0]:g} GPUs and {most[1]:g} cores)"
        )
