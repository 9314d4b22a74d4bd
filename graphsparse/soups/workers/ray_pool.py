"""Train ingredients on the machines of a Ray cluster, one task each."""

import sys
import time
from typing import Any

from graphsparse.soups.store.ingredient_folder import IngredientFolder
from graphsparse.soups.workers.job import Job, dump_job
from graphsparse.soups.workers.pools import Workers
from graphsparse.soups.workers.run_ingredient import AGAIN, Outcome, attempt_elsewhere
from graphsparse.typing import optional_module


class RayPool:
    """Trains as tasks of Ray, whose results are files in the store.

    Tasks go to the cluster that this process is connected to, or to that of ``RAY_ADDRESS``, or to one on this machine
    alone that ends with the call. All machines must reach the store under the same path, and have this package. One
    that is large enough for a task must be there when the call starts.
    A task returns nothing but how it ended, so that nothing is lost with the driver: the same call goes on.
    """

    def __init__(self, job: Job, workers: Workers) -> None:
        self._ray = optional_module("ray")
        self.size = workers.num or sys.maxsize
        self._threads, gpus = workers.threads or 1, float(workers.gpus or 0)  # type: ignore[arg-type]
        self._running: dict[Any, str] = {}
        content = dump_job(job)
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
