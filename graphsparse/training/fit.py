"""Train a model on a task."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch_geometric.data.data import BaseData

from graphsparse.ops import constant
from graphsparse.ops.check import check_count
from graphsparse.training.check import check_callable, check_model, check_optimizer, check_scheduler
from graphsparse.training.checkpoint import Checkpoint, training_identity
from graphsparse.training.graph_task import GraphTask
from graphsparse.training.loop import Hook, Loop
from graphsparse.training.node_task import NodeTask
from graphsparse.training.seeding import seeded
from graphsparse.training.step_projection import (
    StepProjection,
    check_not_parametrized,
    projected_names,
    projections_of,
)
from graphsparse.training.task import ExtraLoss, FitResult, Task
from graphsparse.training.training import Training

_FIELDS = frozenset(entry.name for entry in fields(Training))


def fit(
    model: nn.Module,
    task: Task | Any,
    training: Training | None = None,
    *,
    optimizer: Optimizer | None = None,
    scheduler: LRScheduler | None = None,
    project: Callable[[Optimizer], StepProjection] | None = None,
    extra_loss: ExtraLoss | None = None,
    before_step: Sequence[Hook] = (),
    after_step: Sequence[Hook] = (),
    save_at: int | None = None,
    **options: Any,
) -> FitResult:
    """Train a model and keep the weights of the epoch with the best validation metric.

    Only training labels are used to train and only validation labels to choose; test labels are read once, at the end.
    The model is trained in place and holds the best weights when the function returns; after an error or an
    interruption it holds those of the last whole step. Its mode, training or evaluation, is the one it came with. All
    arguments are checked before the first step, for which the model is called once in evaluation mode.

    The graphs of the task are :func:`~graphsparse.ops.constant` meanwhile: what our layers compute from them is
    kept, and where hooks or the model itself change a graph by ``.data`` or NumPy, there is an error at the end.

    Where a projection of the optimiser has a ramp, as :class:`~graphsparse.training.L0Projection` may, no epoch within
    it is ever the best.

    With a ``checkpoint`` a killed training is not lost: the same call, on a model built the same way, goes on where the
    last save was and ends with the result of an undisturbed one, on CPU bit for bit. The file is whole at any time and
    holds the state dicts of model, optimiser and schedule, the best weights so far, and the state of all random
    generators, also of one that the loader was given. A finished training leaves its result there, and the same call
    returns it at once, without a step and without a ``log``. The file of another training is refused. What it cannot
    hold is what lives elsewhere: the own state of hooks, of ``metric`` and of ``extra_loss``, and of loaders that
    remember more than a generator. The functions themselves are told apart by name only, or by their fields if they are
    objects of a dataclass. Projections are held and told apart.

    Args:
        model: Any module; see the task for how it is called.
        task: A :class:`~graphsparse.training.NodeTask`, :class:`~graphsparse.training.GraphTask` or any other
            :class:`~graphsparse.training.Task`. A ``Data`` stands for ``NodeTask(data)``, a data set of graphs for
            ``GraphTask(dataset)``.
        training: How to train; ``Training()`` when ``None``.
        optimizer: A ready optimiser of the model's parameters in the place of that of ``training``.
        scheduler: Schedule of the learning rate of ``optimizer``, stepped after every epoch.
        project: Attaches a projection to the optimiser: ``lambda optimizer: L0Projection(optimizer, 0.9)``.
        extra_loss: A further term of the loss, ``(logits, batch, epoch) -> scalar``.
        before_step: Functions ``(model, epoch)``, run before every step of the optimiser, when gradients are there.
        after_step: Functions ``(model, epoch)``, run after every step of the optimiser.
        save_at: Number of epochs after which the weights are kept as ``saved`` of the result, best or not, such as for
            late rewinding; between 1 and all epochs.
        options: In the short form, fields of ``Training`` by name, and, where ``task`` is a graph or a data set,
            arguments of its task.

    Returns:
        The result at the best epoch.

    Raises:
        TypeError: If an argument, the labels or the model's output have the wrong type.
        ValueError: If the graph or the model cannot be trained, or the checkpoint is that of another training; the
            message says what is wrong.
        FloatingPointError: If the loss is no longer finite, or a logit is not a number.
        RuntimeError: If a graph was changed meanwhile in a way that torch does not count.

    Example:
        >>> from torch_geometric import seed_everything
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.testing import random_graph
        >>> seed_everything(0)
        >>> data = random_graph()
        >>> result = fit(GCN(8, 16, 2, 3, dropout=0.5), data, epochs=30)
        >>> result.test > 0.5
        True
    """
    task, training = _short_form(task, training, options)
    before, after = _hooks(before_step, "before_step"), _hooks(after_step, "after_step")
    for name, function in (("extra_loss", extra_loss), ("project", project)):
        if function is not None:
            check_callable(function, name)
    if save_at is not None and check_count(save_at, "save_at") > training.epochs:
        raise ValueError(f"'save_at' must be at most the {training.epochs} epochs of the training (got {save_at})")
    if training.checkpoint is not None and Path(training.checkpoint).is_dir():
        raise ValueError(f"'checkpoint' must be a file (got the folder {str(training.checkpoint)!r})")
    check_scheduler(scheduler, optimizer)
    check_model(model)
    with constant(*getattr(task, "graphs", ())):
        return _fit(model, task, training, optimizer, scheduler, project, extra_loss, before, after, save_at)


def _fit(
    model: nn.Module,
    task: Task,
    training: Training,
    optimizer: Optimizer | None,
    scheduler: LRScheduler | None,
    project: Callable[[Optimizer], StepProjection] | None,
    extra_loss: ExtraLoss | None,
    before: list[Hook],
    after: list[Hook],
    save_at: int | None,
) -> FitResult:
    """Train on arguments that were checked, and graphs that stay as they are."""
    with seeded(training.seed):
        task.check(model)
    if optimizer is None:
        optimizer, scheduler = training.make_optimizer(model)
    check_optimizer(optimizer, model)
    projection = None if project is None else project(optimizer)
    projections = projections_of(optimizer)
    check_not_parametrized(model, projections)
    covered = {id(model.get_parameter(name)): name for name in projected_names(model, projections)}
    file = None
    if training.checkpoint is not None:
        identity = training_identity(
            model,
            optimizer,
            scheduler,
            training,
            functions={"extra_loss": extra_loss},
            hooks={"before_step": before, "after_step": after},
            task=task.identity(),
        )
        identity = {**identity, **({} if save_at is None else {"'save_at'": save_at})}
        file = Checkpoint(training.checkpoint, training.checkpoint_every, identity)
    try:
        loop = Loop(training, optimizer, scheduler, extra_loss, before, after, file, covered, save_at)
        return loop.run(model, task)
    finally:
        if projection is not None:
            projection.remove()


def _short_form(task: Any, training: Training | None, options: dict[str, Any]) -> tuple[Task, Training]:
    """Return the task and how to train, of which fields and arguments may have come by name."""
    if not isinstance(training, Training | None):
        raise TypeError(f"'training' must be a Training (got {type(training).__name__})")
    own = {name: value for name, value in options.items() if name in _FIELDS}
    if training is not None and own:
        raise TypeError(f"give {sorted(own)} as fields of 'training', not beside it")
    rest = {name: value for name, value in options.items() if name not in own}
    if not hasattr(task, "evaluate"):
        make: Any = task_of(task)
        known = list(inspect.signature(make).parameters)[1:]
        unknown = [name for name in rest if name not in known]
        if unknown:
            raise TypeError(
                f"fit() takes no {unknown[0]!r}: it knows {sorted(_FIELDS)} and, of {make.__name__}, {known}"
            )
        return make(task, **rest), Training(**own) if training is None else training
    if rest:
        raise TypeError(f"fit() takes no {next(iter(rest))!r} beside a task: it knows {sorted(_FIELDS)}")
    return task, Training(**own) if training is None else training


def task_of(data: Any) -> type[NodeTask] | type[GraphTask]:
    """Return the task that data stand for: a graph, or several; each says what it cannot take."""
    return NodeTask if isinstance(data, BaseData) or not hasattr(data, "__getitem__") else GraphTask


def _hooks(given: Sequence[Hook], name: str) -> list[Hook]:
    if callable(given):
        raise TypeError(f"'{name}' must be a list of functions (got {given!r})")
    for hook in (found := list(given)):
        check_callable(hook, name)
    return found
