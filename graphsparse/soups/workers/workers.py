"""Where ingredients are trained, and how many at once."""

import os
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

import torch

from graphsparse.ops.check import check_count, check_number
from graphsparse.typing import optional_module

BACKENDS = ("here", "local", "ray")


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
