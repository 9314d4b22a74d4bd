"""A file from which a killed training goes on, and what tells one training from another."""

import time
from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch_geometric.data import HeteroData

from graphsparse.ops.digest import digest, kind_of, plain
from graphsparse.training.step_projection import KEY
from graphsparse.training.training import Training
from graphsparse.utils.files import atomic_write, is_whole, read_torch

#: What tells one training from another: names and plain values.
Identity: TypeAlias = Mapping[str, str | int | float | bool | None]

FORMAT = "graphsparse training 2"
#: Without ``every``, the seconds of work that a kill may cost, and how often the time of a save must pass between two.
SECONDS, TIMES = 10.0, 20.0


class Checkpoint:
    """A file that holds how far a training is; it is whole at any time, and ``weights_only`` reads it.

    Args:
        path: The file; its folder is made when it is missing.
        every: Save after every so many epochs. When ``None``, after the first epoch that ends 10 seconds or more after
            the last save, or later where saving would take more than a twentieth of the time.
        identity: What tells this training from others; a file of another one is refused.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Checkpoint(f"{folder}/a.pt", 5, {"seed": 0}).write({"epoch": 3})
        ...     Checkpoint(f"{folder}/a.pt", 5, {"seed": 0}).load()["epoch"]
        3
    """

    def __init__(self, path: str | Path, every: int | None, identity: Identity) -> None:
        self.path = Path(path)
        self.every = every
        self.identity = dict(identity)
        self._last = time.monotonic()
        self._cost = 0.0

    def load(self) -> dict[str, Any] | None:
        """Return what was saved last, ``None`` if there is no file.

        Raises:
            ValueError: If the file is none of a training, or one of another training; the message says what differs.
        """
        if not self.path.exists():
            return None
        try:
            saved = read_torch(self.path)
        except (OSError, ValueError) as error:
            raise ValueError(f"'checkpoint' {error}") from None
        if not is_whole(self.path):
            raise ValueError(
                f"'checkpoint' {str(self.path)!r} is damaged: it does not hold what was saved. Delete it to start anew"
            )
        if not isinstance(saved, dict) or saved.get("format") != FORMAT or not isinstance(saved.get("identity"), dict):
            raise ValueError(f"'checkpoint' {str(self.path)!r} is no checkpoint of a training of this release")
        differences = _differences(saved["identity"], self.identity)
        if differences:
            raise ValueError(
                f"'checkpoint' {str(self.path)!r} belongs to another training: {differences}. "
                "Name another file, or delete this one to start anew"
            )
        return saved

    def due(self, epochs_run: int) -> bool:
        """Say whether it is time to save after so many epochs."""
        if self.every is not None:
            return epochs_run % self.every == 0
        return time.monotonic() - self._last >= max(SECONDS, TIMES * self._cost)

    def write(self, content: Mapping[str, Any]) -> None:
        """Put the content in the place of what was saved last.

        Raises:
            TypeError: If it holds something that ``weights_only`` would not read again.
        """
        start = time.monotonic()
        with atomic_write(self.path) as temporary:
            torch.save({"format": FORMAT, "identity": self.identity, **content}, temporary)
            try:
                # Mapped, not read: this looks at the structure, not at the numbers.
                read_torch(temporary, mmap=True)
            except ValueError as error:
                raise TypeError(
                    "'checkpoint' cannot hold the state of the model, the optimizer or the scheduler, which must "
                    f"consist of tensors and plain values: {error}"
                ) from None
        self._last = time.monotonic()
        self._cost = self._last - start


def _differences(saved: Identity, now: Identity) -> str:
    found = []
    for name in [*saved, *(name for name in now if name not in saved)]:
        if name not in now or name not in saved or saved[name] != now[name]:
            found.append(f"{name} was {saved.get(name, 'missing')} and is now {now.get(name, 'missing')}")
    more = "" if len(found) <= 3 else f"; and {len(found) - 3} more"
    return "; ".join(found[:3]) + more


def training_identity(
    model: nn.Module,
    optimizer: Optimizer,
    scheduler: LRScheduler | None,
    training: Training,
    *,
    functions: Mapping[str, Any],
    hooks: Mapping[str, Sequence[Any]],
    task: Mapping[str, Any],
) -> Identity:
    """Describe a training before its first step, in names and plain values that are equal in every process.

    Weights and graphs become digests; functions are known by their name only, objects of a dataclass by their fields.
    """
    state = model.state_dict()
    return {
        **{f"'{name}'": getattr(training, name) for name in ("epochs", "patience", "eval_every", "seed")},
        "'model'": type(model).__name__,
        **{f"'model' {name}": kind_of(value) for name, value in state.items()},
        "the device of 'model'": next(model.parameters()).device.type,
        "the weights that 'model' starts from": digest(state.values()),
        "'optimizer'": _describe_optimizer(optimizer),
        "'scheduler'": None if scheduler is None else f"{type(scheduler).__name__} {plain(scheduler.state_dict())}",
        **{f"'{name}'": name_of(function) for name, function in functions.items()},
        **{f"'{name}'": str([name_of(hook) for hook in each]) for name, each in hooks.items()},
        **{f"'{name}'": _describe(value) for name, value in task.items()},
    }


def graph_tensors(data: Any, name: str) -> dict[str, Any]:
    """Return what a training reads of a graph, by its full name."""
    if isinstance(data, HeteroData):
        parts = [graph_tensors(store, f"{name}[{store._key!r}]") for store in data.stores]
        return {key: value for part in parts for key, value in part.items()}
    keys = ("x", "edge_index", "adj_t", "edge_weight", "edge_attr", "y", "train_mask", "val_mask", "test_mask")
    return {f"{name}.{key}": data[key] for key in keys if data.get(key) is not None}


def describe_loader(loader: Iterable[Any] | None) -> str | None:
    """Name a loader by what it says itself, or by its class, the number of its batches and their size."""
    if loader is None:
        return None
    if (own := getattr(loader, "identity", None)) is not None:
        return str(own())
    length = len(loader) if isinstance(loader, Sized) else "?"
    size = getattr(loader, "batch_size", None)
    return f"{type(loader).__name__} of {length} batches" + ("" if size is None else f" of size {size}")


def name_of(function: Any) -> str | None:
    """Name a function by its qualified name, an object of a dataclass by its fields, anything else by its class."""
    if is_dataclass(function) and not isinstance(function, type):
        options = {entry.name: getattr(function, entry.name) for entry in fields(function)}
        return f"{type(function).__name__} {plain(options)}"
    return None if function is None else str(getattr(function, "__qualname__", None) or type(function).__name__)


def _describe(value: Any) -> str | int | float | bool | None:
    if isinstance(value, Tensor):
        return f"{kind_of(value)} {digest([value])}"
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if hasattr(value, "csr"):  # the sparse tensor of torch-sparse
        return f"{list(value.sizes())} {digest(part for part in value.csr() if part is not None)}"
    return type(value).__name__


def _describe_optimizer(optimizer: Optimizer) -> str:
    groups = []
    for group in optimizer.param_groups:
        options = {key: value for key, value in group.items() if key != "params"}
        groups.append(f"{len(group['params'])} tensors with {plain(options)}")
    projections = [entry["settings"] for key, entry in optimizer.state_dict().items() if key.startswith(KEY)]
    return f"{type(optimizer).__name__} {'; '.join([*groups, *projections])}"
