"""What tells one training from another, so that nobody goes on with the checkpoint of the wrong one."""

from collections.abc import Iterable, Sequence, Sized
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch_geometric.data import Data

from graphsparse.ops.digest import digest, kind_of, plain
from graphsparse.training.checkpoint import Identity
from graphsparse.training.step_projection import KEY


def training_identity(
    model: nn.Module,
    optimizer: Optimizer,
    scheduler: LRScheduler | None,
    *,
    epochs: int,
    patience: int | None,
    eval_every: int,
    seed: int,
    functions: dict[str, Any],
    after_step: Sequence[Any],
    data: dict[str, Any],
) -> Identity:
    """Describe a training before its first step.

    Args:
        model: Every tensor of its state is named with its shape; a digest stands for the weights it starts from.
        optimizer: Its class and the options of its groups.
        scheduler: Its class and its state.
        epochs: Number of epochs.
        patience: As in ``fit``.
        eval_every: As in ``fit``.
        seed: As in ``fit``.
        functions: What is called during training, by the name of its argument; known by its own name only, an object
            of a dataclass by its fields, too.
        after_step: As in ``fit``; known by name and number.
        data: What is trained and evaluated on, by the name of its argument: tensors become digests, plain values are
            taken as they are.

    Returns:
        Names and plain values, equal for equal calls in different processes.
    """
    state = model.state_dict()
    shapes = {f"'model' {name}": kind_of(value) for name, value in state.items()}
    return {
        "'epochs'": epochs,
        "'patience'": patience,
        "'eval_every'": eval_every,
        "'seed'": seed,
        "'model'": type(model).__name__,
        **shapes,
        "the device of 'model'": next(model.parameters()).device.type,
        "the weights that 'model' starts from": digest(state.values()),
        "'optimizer'": _describe_optimizer(optimizer),
        "'scheduler'": None if scheduler is None else f"{type(scheduler).__name__} {plain(scheduler.state_dict())}",
        **{f"'{name}'": _name(function) for name, function in functions.items()},
        "'after_step'": str([_name(hook) for hook in after_step]),
        **{f"'{name}'": _describe(value) for name, value in data.items()},
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


def _name(function: Any) -> str | None:
    if is_dataclass(function) and not isinstance(function, type):
        options = {entry.name: getattr(function, entry.name) for entry in fields(function)}
        return f"{type(function).__name__} {plain(options)}"
    return None if function is None else str(getattr(function, "__qualname__", None) or type(function).__name__)
