"""Train ingredients on the machines of a Ray cluster, one task each."""

import time
import traceback
from typing import Any

import torch

from graphsparse.soups.store.failures import BACK_OFF, is_storage_error, is_transient, storage_error
from graphsparse.soups.store.ingredient_folder import IngredientFolder
from graphsparse.soups.store.lease import held_by
from graphsparse.soups.workers.here_backend import LOOK
from graphsparse.soups.workers.job import Job, apply_settings, dump_job, load_job
from graphsparse.soups.workers.report import Report
from graphsparse.soups.workers.run_ingredient import run_ingredient
from graphsparse.typing import optional_module


def run_ray(job: Job, report: Report, *, gpus: float = 0.0, threads: int = 1, workers: int | None = None) -> None:
    """Train all open ingredients as tasks of Ray, whose results are files in the store.

    Tasks go to the cluster that this process is connected to, or to that of ``RAY_ADDRESS``, or to one on this machine
    alone that ends with the call. All machines must reach the store under the same path, and have this package. One
    that is large enough for a task must be there when the call starts.
    A task returns nothing but how it ended, so that nothing is lost with the driver: the same call goes on.

    Args:
        job: Model and functions.
        report: Which ingredients are open, and who is told.
        gpus: Share of a GPU for each task, 0 for none.
        threads: Cores of each task.
        workers: Most tasks at once; as many as the cluster runs when ``None``.

    Raises:
        ImportError: If Ray is missing.
        ValueError: If no machine of the cluster could ever run a task.
        OSError: If the store cannot be written.
    """
    ray = optional_module("ray")
    if not report.open:
        return
    own = not ray.is_initialized()
    if own:
        ray.init(include_dashboard=False, log_to_driver=False, configure_logging=False)
    try:
        _check_room(ray, gpus, threads)
        _Driver(ray, job, report, gpus, threads, workers).run()
    finally:
        if own:
            ray.shutdown()


def train_task(store: str, key: str, payload: bytes, threads: int) -> tuple[str, str]:
    """Train an ingredient on whatever machine this runs, and say how it ended.

    Args:
        store: Folder of the store.
        key: Name of the ingredient.
        payload: What :func:`~graphsparse.soups.workers.job.dump_job` returned.
        threads: Number of threads.

    Returns:
        ``"done"``, ``"busy"``, ``"failed"`` or ``"storage"``, and what there is to say about it.
    """
    folder = IngredientFolder(store, key)
    try:
        torch.set_num_threads(threads)
        job = load_job(payload)
        apply_settings(job.settings)
        return run_ingredient(store, key, job), ""
    except Exception as error:
        if is_storage_error(error, store):
            return "storage", str(error)
        folder.record_failure(traceback.format_exc(), lasting=not is_transient(error))
        return "failed", ""


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


class _Driver:
    """Hands tasks out and takes them back as they end."""

    def __init__(self, ray: Any, job: Job, report: Report, gpus: float, threads: int, workers: int | None) -> None:
        self.ray, self.report, self.threads = ray, report, threads
        self.most = len(report.open) if workers is None else workers
        # One copy for all, which each machine fetches once.
        self.payload = ray.put(dump_job(job))
        # What went wrong is counted here and not by Ray, which would start a task again without a note.
        self.task = ray.remote(num_cpus=threads, num_gpus=gpus, max_retries=0)(train_task)
        self.running: dict[Any, IngredientFolder] = {}
        self.not_before: dict[str, float] = {}

    def run(self) -> None:
        try:
            while self.report.open:
                self.start_more()
                self.report.running(len(self.running))
                if not self.running:
                    time.sleep(LOOK)
                    continue
                ready, _ = self.ray.wait(list(self.running), num_returns=1, timeout=LOOK)
                for reference in ready:
                    self.ended(self.running.pop(reference), reference)
        finally:
            for reference in self.running:
                self.ray.cancel(reference, force=True)

    def start_more(self) -> None:
        at_work = {folder.key for folder in self.running.values()}
        for folder in list(self.report.open):
            if folder.key in at_work or time.monotonic() < self.not_before.get(folder.key, 0):
                continue
            if self.report.settle(folder) or len(self.running) >= self.most:
                continue
            if held_by(folder.path) is not None:
                self.not_before[folder.key] = time.monotonic() + LOOK
                continue
            reference = self.task.remote(str(folder.store.absolute()), folder.key, self.payload, self.threads)
            self.running[reference] = folder

    def ended(self, folder: IngredientFolder, reference: Any) -> None:
        outcome, told = "failed", ""
        try:
            outcome, told = self.ray.get(reference)
        except self.ray.exceptions.RayError as error:  # the process or its machine died
            if not self.report.settle(folder):
                folder.record_failure(f"{type(error).__name__}: {error}")
        if outcome == "storage":
            raise storage_error(folder.store, told)
        if not self.report.settle(folder):
            wait = BACK_OFF * 2 ** (len(folder.failures()) - 1) if outcome == "failed" else LOOK
            self.not_before[folder.key] = time.monotonic() + wait
