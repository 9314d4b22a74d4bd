"""What tells one training from another, so that nobody goes on with the checkpoint of the wrong one."""

from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch_geometric.data import Data

from graphsparse.ops.digest import digest, kind_of, plain
from graphsparse.training.checkpoint import Identity
from graphsparse.training.step_projection import KEY
from graphsparse.training.training import Training


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


def graph_tensors(data: Data, name: str) -> dict[str, Any]:
    """Return what a training reads of a graph, by its full name."""
    keys = ("x", "edge_index", "adj_t", "edge_weight", "edge_attr", "y", "train_mask", "val_mask", "test_mask")
    return {f"{name}.{key}": data[key] for key in keys if data.get(key) is not None}


def describe_loader(loader: Iterable[Any] | None) -> str | None:
    """Name a loader by its class, the number of its batches and their size, as far as it tells them."""
    if loader is None:
        return None
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
