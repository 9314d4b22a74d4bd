"""The one training loop, for any task."""

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from tqdm import tqdm

from graphsparse.training.checkpoint import Checkpoint
from graphsparse.training.result import FitResult
from graphsparse.training.rng_state import restore_rng_state, rng_state
from graphsparse.training.seeding import seeded
from graphsparse.typing import Log
from graphsparse.utils.eval_mode import keep_mode

#: Called with the model and the epoch after every step of the optimiser.
AfterStep: TypeAlias = Callable[[nn.Module, int], object]


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Args:
        val: Metric on the validation part.
        logits: What the task wants to get back at the end if this epoch is the best.
        figures: Further entries of the history.
    """

    val: float
    logits: Tensor
    figures: dict[str, float] = field(default_factory=dict)


class Task(Protocol):
    """What is learned: all that differs between nodes and graphs."""

    #: ``"node"`` or ``"graph"``, for messages.
    unit: str
    #: Whether a larger metric is better.
    maximize: bool
    #: Message where no batch of an epoch gave a loss.
    nothing_to_train: str
    #: Generators that the batches draw from besides the global ones.
    generators: Sequence[torch.Generator]

    def batches(self) -> Iterable[Any]:
        """Return the batches of an epoch."""
        ...

    def loss(self, model: nn.Module, batch: Any, epoch: int) -> Tensor | None:
        """Return the loss of a batch, a scalar with a gradient, or ``None`` to pass it over."""
        ...

    def evaluate(self, model: nn.Module, epoch: int) -> Evaluation:
        """Evaluate the model; neither its mode nor the labels of the test part may be touched."""
        ...

    def finish(self, model: nn.Module, best: Evaluation) -> tuple[Tensor, float, float | None]:
        """Return logits, training and test metric of a model that holds the best weights."""
        ...


@dataclass
class Course:
    """How far a training is, and the best of it so far."""

    epochs_run: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    best: Evaluation | None = None
    best_state: dict[str, Any] | None = None


@dataclass(frozen=True)
class Loop:
    """Trains any model on any task and keeps the weights of the best epoch.

    Args:
        epochs: Number of epochs.
        optimizer: Optimiser of the model's parameters.
        scheduler: Schedule of its learning rate, stepped after every epoch.
        after_step: Run after every step of the optimiser.
        patience: Stop after so many epochs without a better validation metric; never when ``None``.
        eval_every: Evaluate every so many epochs, and after the last one.
        seed: Seed of everything that draws from the global generators.
        progress: Whether to show a progress bar.
        log: Receives a copy of every entry of the history.
        checkpoint: Where a killed training goes on from.
    """

    epochs: int
    optimizer: Optimizer
    scheduler: LRScheduler | None = None
    after_step: Sequence[AfterStep] = ()
    patience: int | None = None
    eval_every: int = 1
    seed: int = 0
    progress: bool = False
    log: Log | None = None
    checkpoint: Checkpoint | None = None

    def run(self, model: nn.Module, task: Task) -> FitResult:
        """Train the model in place; it holds the best weights afterwards."""
        saved = None if self.checkpoint is None else self.checkpoint.load()
        if saved is not None and saved["result"] is not None:
            return _finished(model, saved["result"])
        with keep_mode(model), seeded(self.seed):
            if saved is None:
                course = Course()
                self._save(model, task, course)  # a file that cannot be written is found before the first step
            else:
                course = self._resume(model, task, saved)
            self._train(model, task, course)
            if course.best is None or course.best_state is None:
                raise ValueError(f"'metric' gave no number on the validation {task.unit}s")
            model.load_state_dict(course.best_state)
            logits, train, test = task.finish(model, course.best)
        result = FitResult(
            state_dict=course.best_state,
            logits=logits,
            best_epoch=course.best_epoch,
            epochs_run=course.epochs_run,
            train=train,
            val=course.best.val,
            test=test,
            history=course.history,
        )
        if self.checkpoint is not None:
            self.checkpoint.write({"result": {entry.name: getattr(result, entry.name) for entry in fields(result)}})
        return result

    def _train(self, model: nn.Module, task: Task, course: Course) -> None:
        start = course.epochs_run
        with tqdm(range(start, self.epochs), initial=start, total=self.epochs, disable=not self.progress) as bar:
            for epoch in bar:
                model.train()
                loss = _mean([self._step(model, task, batch, epoch) for batch in task.batches()], task)
                if self.scheduler is not None:
                    self.scheduler.step()
                course.epochs_run = epoch + 1
                if (epoch + 1) % self.eval_every == 0 or epoch + 1 == self.epochs:
                    val = self._evaluate(model, task, course, loss)
                    best = math.nan if course.best is None else course.best.val
                    bar.set_postfix(loss=f"{loss:.3f}", val=f"{val:.3f}", best=f"{best:.3f}", refresh=False)
                    if self.patience is not None and epoch - course.best_epoch >= self.patience:
                        break
                if self.checkpoint is not None and epoch + 1 < self.epochs and self.checkpoint.due(epoch + 1):
                    self._save(model, task, course)

    def _step(self, model: nn.Module, task: Task, batch: Any, epoch: int) -> float | None:
        """Take one step on a batch and return its loss; a batch that gives no loss is passed over."""
        self.optimizer.zero_grad()
        loss = task.loss(model, batch, epoch)
        if loss is None:
            return None
        value = float(loss.detach())
        if not math.isfinite(value):
            raise FloatingPointError(f"the loss is {value} in epoch {epoch}; a smaller 'lr' may help")
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        for hook in self.after_step:
            hook(model, epoch)
        return value

    def _evaluate(self, model: nn.Module, task: Task, course: Course, loss: float) -> float:
        epoch = course.epochs_run - 1
        found = task.evaluate(model, epoch)
        course.history.append({"epoch": epoch, "loss": loss, "val": found.val, **found.figures})
        if self.log is not None:
            self.log(dict(course.history[-1]))
        sign = 1 if task.maximize else -1
        if sign * found.val > (-math.inf if course.best is None else sign * course.best.val):
            course.best, course.best_epoch = found, epoch
            course.best_state = {name: _copy(entry) for name, entry in model.state_dict().items()}
        return found.val

    def _save(self, model: nn.Module, task: Task, course: Course) -> None:
        if self.checkpoint is None:
            return
        best = course.best
        # What the model holds now is written once, even where it is the best so far.
        is_best = best is not None and course.best_epoch + 1 == course.epochs_run
        self.checkpoint.write(
            {
                "result": None,
                "epochs_run": course.epochs_run,
                "history": course.history,
                "best_epoch": course.best_epoch,
                "best": None if best is None else {"val": best.val, "logits": best.logits, "figures": best.figures},
                "best_state": None if is_best else course.best_state,
                "model": model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
                "rng": rng_state(task.generators),
            }
        )

    def _resume(self, model: nn.Module, task: Task, saved: dict[str, Any]) -> Course:
        model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(saved["scheduler"])
        restore_rng_state(saved["rng"], task.generators)
        course = Course(saved["epochs_run"], saved["history"], saved["best_epoch"])
        if saved["best"] is not None:
            best, state = saved["best"], saved["best_state"]
            course.best = Evaluation(best["val"], best["logits"].to(_device(model)), best["figures"])
            now = model.state_dict()
            course.best_state = {k: _copy(v) if state is None else _like(state[k], v) for k, v in now.items()}
        return course


def _finished(model: nn.Module, result: dict[str, Any]) -> FitResult:
    """Return the result of a training that was finished before, without a step."""
    own = model.state_dict()
    state = {name: _like(entry, own[name]) for name, entry in result["state_dict"].items()}
    model.load_state_dict(state)
    logits = result["logits"].to(_device(model))
    return FitResult(**{**result, "state_dict": state, "logits": logits})


def _copy(entry: Any) -> Any:
    """Copy an entry of a state dict, which may be something else than a tensor."""
    return entry.detach().clone() if isinstance(entry, Tensor) else copy.deepcopy(entry)


def _like(entry: Any, other: Any) -> Any:
    return entry.to(other.device) if isinstance(entry, Tensor) else entry


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _mean(losses: Sequence[float | None], task: Task) -> float:
    known = [loss for loss in losses if loss is not None]
    if not known:
        raise ValueError(task.nothing_to_train)
    return sum(known) / len(known)
