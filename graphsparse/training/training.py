"""How a model is trained: one object, taken by everything that trains."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from graphsparse.ops.check import check_count, check_integer, check_number
from graphsparse.training.check import check_callable, check_scheduler
from graphsparse.typing import Log

#: Makes an optimiser from parameters, learning rate and weight decay, and perhaps a schedule of its learning rate.
MakeOptimizer: TypeAlias = Callable[[list[nn.Parameter], float, float], Optimizer | tuple[Optimizer, LRScheduler]]


@dataclass(frozen=True, kw_only=True)
class Training:
    """How long, how fast and from which seed a model is trained, and where a killed training goes on from.

    Everything that trains takes it as ``training=``; :func:`~graphsparse.training.fit` takes its fields by name, too.

    Args:
        epochs: Number of epochs.
        lr: Learning rate.
        weight_decay: L2 coefficient.
        optimizer: ``(parameters, lr, weight_decay) -> Optimizer``, or a pair of an optimiser and a schedule that is
            stepped after every epoch; Adam when ``None``.
        patience: Stop after so many epochs without a better validation metric; never when ``None``. Looked at when the
            model is evaluated.
        eval_every: Evaluate every so many epochs, and after the last one.
        seed: Seed of dropout, of loaders and of everything else that draws from the global generators of PyTorch,
            Python and NumPy, whose state is restored; of the initial weights, where a model is built.
        fast: Whether what builds a model, such as :func:`~graphsparse.tickets.find_ticket`, brings it into the faster
            form of :func:`~graphsparse.nn.accelerate`. A model that is handed over is trained as it is.
        checkpoint: File from which a killed training goes on, or a folder for what trains several times; none when
            ``None``.
        checkpoint_every: Save after every so many epochs. When ``None``, as often as a kill costs 10 seconds of work,
            or less often where saving would take more than a twentieth of the time.
        progress: Whether to show a progress bar; a string names it.
        log: Receives the numbers of every evaluated epoch, one dictionary each.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If one is out of range.

    Example:
        >>> Training(epochs=50, seed=3).lr
        0.01
    """

    epochs: int = 200
    lr: float = 0.01
    weight_decay: float = 5e-4
    optimizer: MakeOptimizer | None = None
    patience: int | None = None
    eval_every: int = 1
    seed: int = 0
    fast: bool = True
    checkpoint: str | Path | None = None
    checkpoint_every: int | None = None
    progress: bool | str = False
    log: Log | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "eval_every", "patience", "checkpoint_every"):
            value = getattr(self, name)
            if value is not None or name in ("epochs", "eval_every"):
                check_count(value, name)
        check_integer(self.seed, "seed")
        for name in ("lr", "weight_decay"):
            check_number(getattr(self, name), name, least=0)
        for name in ("optimizer", "log"):
            if getattr(self, name) is not None:
                check_callable(getattr(self, name), name)
        if self.checkpoint is None and self.checkpoint_every is not None:
            raise ValueError(
                f"'checkpoint_every' is {self.checkpoint_every!r}, but there is no 'checkpoint' to save to"
            )
        if self.checkpoint is not None and not isinstance(self.checkpoint, str | os.PathLike):
            raise TypeError(
                f"'checkpoint' must be a path (got {self.checkpoint!r} of type {type(self.checkpoint).__name__})"
            )

    def named(self, name: str) -> "Training":
        """Return the same training with a name at its progress bar, if one is shown, behind the name that is there."""
        if not self.progress:
            return self
        return replace(self, progress=f"{self.progress}, {name}" if isinstance(self.progress, str) else name)

    def make_optimizer(self, parameters: nn.Module | Iterable[nn.Parameter]) -> tuple[Optimizer, LRScheduler | None]:
        """Return an optimiser of what is trainable among the parameters, or in a model, and its schedule, if any.

        Raises:
            TypeError: If the optimiser's function returns something else.
        """
        listed = parameters.parameters() if isinstance(parameters, nn.Module) else parameters
        trained = [parameter for parameter in listed if parameter.requires_grad]
        made = (self.optimizer or adam)(trained, self.lr, self.weight_decay)
        optimizer, scheduler = made if isinstance(made, tuple) else (made, None)
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"'optimizer' must make a torch.optim.Optimizer (got {type(optimizer).__name__})")
        check_scheduler(scheduler, optimizer)
        return optimizer, scheduler


def adam(parameters: list[nn.Parameter], lr: float, weight_decay: float) -> Optimizer:
    """Return Adam, its step as one kernel where all parameters allow for it."""
    fused = all(p.dtype in (torch.float32, torch.float64) and p.device.type in ("cpu", "cuda") for p in parameters)
    return Adam(parameters, lr=lr, weight_decay=weight_decay, fused=fused)


class ClippedAdam(Adam):
    """Adam that shortens the gradient of all parameters together before every step; a copy of it does so, too."""

    def __init__(self, parameters: Iterable[nn.Parameter], clip: float, **options: Any) -> None:
        super().__init__(parameters, **options)
        self.defaults["clip"] = clip
        for group in self.param_groups:
            group["clip"] = clip
        self.register_step_pre_hook(_clip)

    def __setstate__(self, state: dict[str, Any]) -> None:
        # PyTorch comes here with a copy, which has lost its hooks, and with a state dict, where they are still there.
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        if _clip not in self._optimizer_step_pre_hooks.values():
            self.register_step_pre_hook(_clip)


def clipped_adam(parameters: list[nn.Parameter], lr: float, weight_decay: float, clip: float = 2.0) -> Optimizer:
    """Return Adam that shortens the gradient of all parameters together to a length of ``clip`` before every step.

    An optimiser for ``Training``; for another length give ``functools.partial(clipped_adam, clip=1.0)``.
    """
    return ClippedAdam(parameters, clip, lr=lr, weight_decay=weight_decay)


def _clip(optimizer: Optimizer, *_: object) -> None:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    nn.utils.clip_grad_norm_(parameters, optimizer.param_groups[0]["clip"])
