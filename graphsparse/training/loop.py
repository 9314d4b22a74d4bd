"""The one training loop, for any task."""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from tqdm import tqdm

from graphsparse.training.checkpoint import Checkpoint
from graphsparse.training.seeding import restore_rng_state, rng_state, seeded
from graphsparse.training.step_projection import kept_weights, projections_of
from graphsparse.training.task import Evaluation, ExtraLoss, FitResult, Task
from graphsparse.training.training import Training
from graphsparse.utils.call_model import keep_mode

#: Called with the model and the epoch around every step of the optimiser.
Hook: TypeAlias = Callable[[nn.Module, int], object]


@dataclass
class Course:
    """How far a training is, and the best of it so far."""

    epochs_run: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    best: Evaluation | None = None
    best_state: dict[str, Any] | None = None
    best_masks: dict[str, Tensor] = field(default_factory=dict)
    ever_counted: bool = False
    saved: dict[str, Any] | None = None


@dataclass(frozen=True)
class Loop:
    """Trains any model on any task and keeps the weights of the best epoch."""

    training: Training
    optimizer: Optimizer
    scheduler: LRScheduler | None = None
    extra_loss: ExtraLoss | None = None
    before_step: Sequence[Hook] = ()
    after_step: Sequence[Hook] = ()
    checkpoint: Checkpoint | None = None
    #: The parameters of the model that projections cover, by their identity.
    projected: Mapping[int, str] = field(default_factory=dict)
    #: After how many epochs the weights are kept, whether they are the best or not.
    save_at: int | None = None

    def run(self, model: nn.Module, task: Task) -> FitResult:
        """Train the model in place; it holds the best weights afterwards."""
        saved = None if self.checkpoint is None else self.checkpoint.load()
        if saved is not None and saved["result"] is not None:
            return _finished(model, saved["result"], logits_on_cpu=saved["logits_on_cpu"])
        with keep_mode(model), seeded(self.training.seed):
            if saved is None:
                self._check_ramps(task)
                course = Course()
                self._save(model, task, course)  # a file that cannot be written is found before the first step
            else:
                course = self._resume(model, task, saved)
            self._train(model, task, course)
            if course.best is None or course.best_state is None:
                raise ValueError(_why_none(course, task))
            if self.save_at is not None and course.saved is None:
                raise ValueError(
                    f"'save_at' is {self.save_at}, but 'patience' ended the training after {course.epochs_run}"
                )
            model.load_state_dict(course.best_state)
            logits, train, test = task.finish(model, course.best)
        result = FitResult(
            state_dict=course.best_state,
            logits=logits,
            best_epoch=course.best_epoch,
            epochs_run=course.epochs_run,
            metric=task.metric,
            train=train,
            val=course.best.val,
            test=test,
            history=course.history,
            weight_masks=course.best_masks,
            saved=course.saved,
        )
        if self.checkpoint is not None:
            content = {entry.name: getattr(result, entry.name) for entry in fields(result)}
            self.checkpoint.write({"result": content, "logits_on_cpu": logits.device.type == "cpu"})
        return result

    def _check_ramps(self, task: Task) -> None:
        """Refuse a training that ends before a projection can hold, where the number of steps is known."""
        per_epoch = getattr(task, "steps_per_epoch", None)
        ramp = max((projection.ramp_steps for projection in projections_of(self.optimizer)), default=0)
        if per_epoch is not None and ramp > self.training.epochs * per_epoch:
            raise ValueError(
                f"the ramp of a projection takes {ramp} steps, but {self.training.epochs} epochs have at most "
                f"{self.training.epochs * per_epoch}: no epoch would count; train for longer, or let it end earlier"
            )

    def _train(self, model: nn.Module, task: Task, course: Course) -> None:
        training, start = self.training, course.epochs_run
        name = training.progress if isinstance(training.progress, str) else None
        epochs = range(start, training.epochs)
        with tqdm(epochs, name, training.epochs, initial=start, unit="epoch", disable=not training.progress) as bar:
            for epoch in bar:
                model.train()
                if (tell := getattr(task, "set_epoch", None)) is not None:
                    tell(epoch)
                loss = _mean([self._step(model, task, batch, epoch) for batch in task.batches()], task, epoch)
                if self.scheduler is not None:
                    self.scheduler.step()
                course.epochs_run = epoch + 1
                if course.epochs_run == self.save_at:
                    course.saved = _snapshot(model)
                last = epoch + 1 == training.epochs
                if last or (epoch + 1) % training.eval_every == 0:
                    val = self._evaluate(model, task, course, loss)
                    best = math.nan if course.best is None else course.best.val
                    bar.set_postfix(loss=f"{loss:.3f}", val=f"{val:.3f}", best=f"{best:.3f}", refresh=False)
                    waited = 0 if course.best is None else epoch - course.best_epoch
                    if training.patience is not None and waited >= training.patience:
                        break
                if not last and self.checkpoint is not None and self.checkpoint.due(epoch + 1):
                    self._save(model, task, course)

    def _step(self, model: nn.Module, task: Task, batch: Any, epoch: int) -> Tensor | None:
        """Take one step on a batch and return its loss; a batch that gives no loss is passed over.

        The loss is not read here where that would mean to wait for a device.
        """
        self.optimizer.zero_grad()
        term = self.extra_loss
        loss = task.loss(model, batch, None if term is None else lambda logits: term(logits, batch, epoch))
        if loss is None:
            return None
        if loss.device.type == "cpu":
            _check_finite([float(loss.detach())], epoch)
        loss.backward()  # type: ignore[no-untyped-call]
        for hook in self.before_step:
            hook(model, epoch)
        self.optimizer.step()
        for hook in self.after_step:
            hook(model, epoch)
        return loss.detach()

    def _evaluate(self, model: nn.Module, task: Task, course: Course, loss: float) -> float:
        epoch = course.epochs_run - 1
        found = task.evaluate(model, epoch)
        course.history.append({"epoch": epoch, "loss": loss, "val": found.val, **found.figures})
        if self.training.log is not None:
            self.training.log(dict(course.history[-1]))
        sign = 1 if task.maximize else -1
        projections = projections_of(self.optimizer)
        own = {id(parameter) for parameter in model.parameters()}
        lost = [self.projected.get(id(p)) for one in projections for p in one.parameters if id(p) not in own]
        if any(lost):
            raise ValueError(
                f"{next(filter(None, lost))!r} of 'model' is another parameter now than the one that is trained and "
                "projected: load weights without assign=True, and exchange nothing while a model is trained"
            )
        # An epoch within a ramp has more weights than were asked for: it is never the best.
        counts = all(projection.holds for projection in projections)
        course.ever_counted |= counts
        if counts and sign * found.val > (-math.inf if course.best is None else sign * course.best.val):
            course.best, course.best_epoch = found, epoch
            course.best_state = _snapshot(model)
            course.best_masks = kept_weights(model, projections)
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
                "logits_on_cpu": best is not None and best.logits.device.type == "cpu",
                "best_state": None if is_best else course.best_state,
                "best_masks": course.best_masks,
                "ever_counted": course.ever_counted,
                "saved": course.saved,
                "model": model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
                "rng": rng_state(task.generators, _device(model)),
            }
        )

    def _resume(self, model: nn.Module, task: Task, saved: dict[str, Any]) -> Course:
        model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(saved["scheduler"])
        restore_rng_state(saved["rng"], task.generators, _device(model))
        course = Course(saved["epochs_run"], saved["history"], saved["best_epoch"])
        course.best_masks = _masks_like(saved["best_masks"], model)
        course.ever_counted = saved["ever_counted"]
        course.saved = _state_like(saved.get("saved"), model)
        if saved["best"] is not None:
            best, state = saved["best"], saved["best_state"]
            logits = best["logits"] if saved["logits_on_cpu"] else best["logits"].to(_device(model))
            course.best = Evaluation(best["val"], logits, best["figures"])
            now = model.state_dict()
            course.best_state = {k: _copy(v) if state is None else _like(state[k], v) for k, v in now.items()}
        return course


def _finished(model: nn.Module, result: dict[str, Any], *, logits_on_cpu: bool) -> FitResult:
    """Return the result of a training that was finished before, without a step."""
    state = _state_like(result["state_dict"], model)
    assert state is not None
    model.load_state_dict(state)
    logits = result["logits"] if logits_on_cpu else result["logits"].to(_device(model))
    masks = _masks_like(result["weight_masks"], model)
    found = {"state_dict": state, "logits": logits, "weight_masks": masks}
    return FitResult(**{**result, **found, "saved": _state_like(result.get("saved"), model)})


def _snapshot(model: nn.Module) -> dict[str, Any]:
    return {name: _copy(entry) for name, entry in model.state_dict().items()}


def _state_like(state: dict[str, Any] | None, model: nn.Module) -> dict[str, Any] | None:
    """Put a state dict where that of the model is."""
    own = model.state_dict()
    return None if state is None else {name: _like(entry, own[name]) for name, entry in state.items()}


def _copy(entry: Any) -> Any:
    """Copy an entry of a state dict, which may be something else than a tensor."""
    return entry.detach().clone() if isinstance(entry, Tensor) else copy.deepcopy(entry)


def _like(entry: Any, other: Any) -> Any:
    return entry.to(other.device) if isinstance(entry, Tensor) else entry


def _masks_like(masks: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Put masks of parameters where the parameters are."""
    return {name: mask.to(model.get_parameter(name).device) for name, mask in masks.items()}


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _mean(losses: Sequence[Tensor | None], task: Task, epoch: int) -> float:
    """Return the mean loss of an epoch, for which a device is waited for once."""
    known = [loss.double() for loss in losses if loss is not None]
    if not known:
        raise ValueError(f"there is nothing to train on: no batch of an epoch has a labelled {task.unit}")
    numbers = torch.stack(known).tolist()
    _check_finite(numbers, epoch)
    return float(sum(numbers) / len(numbers))


def _check_finite(losses: Sequence[float], epoch: int) -> None:
    for loss in losses:
        if not math.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss} in epoch {epoch}; a smaller 'lr' may help")


def _why_none(course: Course, task: Task) -> str:
    if not course.ever_counted:
        return (
            f"no evaluated epoch of {course.epochs_run} counts: a projection had not reached its sparsity; train for "
            "longer, or let its ramp end earlier"
        )
    return f"'metric' gave no number on the validation {task.unit}s"
