"""Searches for tickets described in plain values: for the file of a ticket, and to know the folder of a run again."""

import json
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from graphsparse.ops.digest import digest, plain
from graphsparse.tickets.distillation import Distillation
from graphsparse.tickets.method import PruningMethod, Target
from graphsparse.training import Task, Training
from graphsparse.utils.files import atomic_write

#: Fields of :class:`Training` that change nothing of what is found.
_NOT_THE_RUN = ("checkpoint", "checkpoint_every", "progress", "log")


def open_folder(
    method: PruningMethod,
    targets: Sequence[Target],
    training: Training,
    distillation: Distillation | None,
    task: Task,
) -> None:
    """Write into the folder of the checkpoints what run it is of, or refuse the folder of another run."""
    if training.checkpoint is None:
        return
    path = Path(training.checkpoint) / "run.json"
    if path.parent.is_file():
        raise ValueError(f"'checkpoint' must be a folder, of several trainings (got the file {str(path.parent)!r})")
    described = {"method": _text(method), "targets": str([tuple(target) for target in targets])}
    for name, value in {"training": training, "distillation": distillation}.items():
        described |= {f"{name}.{key}": _text(entry) for key, entry in (as_plain(value) or {}).items()}
    described["data"] = digest(task.identity().values())
    if path.exists():
        saved = json.loads(path.read_text())
        names = [name for name in {**saved, **described} if saved.get(name) != described.get(name)]
        if names:
            was, now = saved.get(names[0], "missing"), described.get(names[0], "missing")
            raise ValueError(
                f"'checkpoint' {str(path.parent)!r} belongs to another run: {names[0]} was {was} and is now {now}. "
                "Name another folder, or delete this one to start anew"
            )
        return
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(described, indent=1))


def as_plain(value: Any) -> dict[str, Any] | None:
    """Return the fields of an object, each as JSON can hold it, without those that only say how a run is watched."""
    if value is None:
        return None
    named = {entry.name: getattr(value, entry.name) for entry in fields(value) if entry.name not in _NOT_THE_RUN}
    return {k: v if v is None or isinstance(v, str | int | float | bool) else _text(v) for k, v in named.items()}


def _text(value: Any) -> str:
    """Write out objects of dataclasses by their fields and functions by their names, the same in every process."""
    if is_dataclass(value) and not isinstance(value, type):
        named = (f"{entry.name}={_text(getattr(value, entry.name))}" for entry in fields(value))
        return f"{type(value).__name__}({', '.join(named)})"
    return str(value.__qualname__) if hasattr(value, "__qualname__") else plain(value)
