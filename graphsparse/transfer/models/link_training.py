"""The settings of a training on links, and how it runs in the training loop."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Adam

from graphsparse.ops.check import check_count, check_number
from graphsparse.training import FitResult, Task, Training, fit
from graphsparse.training.check import check_callable
from graphsparse.training.identity import name_of
from graphsparse.transfer.models.validation import LinkMetric, link_average_precision
from graphsparse.typing import Log


@dataclass(frozen=True)
class LinkTraining:
    """How long and how fast a model learns links, and how its best epoch is found.

    Args:
        epochs: Number of epochs.
        lr: Learning rate of Adam.
        weight_decay: L2 coefficient of Adam.
        clip: Largest length of the gradient of all parameters together; no limit when ``None``.
        eval_every: Evaluate on the validation pairs every so many epochs, and after the last one.
        patience: Stop after so many epochs without a better validation metric; never when ``None``.
        links_per_epoch: Learn in each epoch from at most so many links, drawn anew, where there are more; from all when
            ``None``.
        metric: Figure of merit on the validation pairs, higher is better, ``(links, non_links) -> float``.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If one is out of range.

    Example:
        >>> LinkTraining(epochs=60, lr=5e-3).clip
        2.0
    """

    epochs: int = 200
    lr: float = 1e-3
    weight_decay: float = 0.0
    clip: float | None = 2.0
    eval_every: int = 5
    patience: int | None = None
    links_per_epoch: int | None = None
    metric: LinkMetric = link_average_precision

    def __post_init__(self) -> None:
        Training(epochs=self.epochs, eval_every=self.eval_every, patience=self.patience)
        check_callable(self.metric, "metric")
        check_number(self.lr, "lr", least=0, strictly=True)
        check_number(self.weight_decay, "weight_decay", least=0)
        if self.links_per_epoch is not None:
            check_count(self.links_per_epoch, "links_per_epoch")
        if self.clip is not None:
            check_number(self.clip, "clip", least=0, strictly=True)

    def run(
        self,
        model: nn.Module,
        task: Task,
        *,
        seed: int,
        parameters: Iterable[nn.Parameter] | None = None,
        checkpoint: str | Path | None = None,
        identity: Mapping[str, Any] | None = None,
        progress: bool = False,
        log: Log | None = None,
    ) -> FitResult:
        """Train a model in place; it holds the weights of the best epoch afterwards, and is in evaluation mode.

        Args:
            model: The model.
            task: What it learns.
            seed: Seed of dropout and of all else that draws from the global generators.
            parameters: What is trained of the model; all that needs a gradient when ``None``.
            checkpoint: File from which a killed training goes on; none is written when ``None``.
            identity: What tells this training from others, besides its settings and the model.
            progress: Whether to show a progress bar.
            log: Receives the entries of the history one by one.

        Returns:
            The result at the best epoch; its ``logits`` are the scores of the validation pairs.
        """
        trained = [p for p in (model.parameters() if parameters is None else parameters) if p.requires_grad]
        optimizer = Adam(trained, lr=self.lr, weight_decay=self.weight_decay)
        task.described = {  # type: ignore[attr-defined]
            "metric": name_of(self.metric),
            "clip": self.clip,
            "links_per_epoch": self.links_per_epoch,
            "lr": self.lr,
            **(identity or {}),
        }
        training = Training(
            epochs=self.epochs,
            patience=self.patience,
            eval_every=self.eval_every,
            seed=seed,
            checkpoint=checkpoint,
            progress=progress,
            log=log,
        )
        handle = optimizer.register_step_pre_hook(_Clip(trained, self.clip))
        try:
            result = fit(model, task, training, optimizer=optimizer)
        finally:
            handle.remove()
            model.zero_grad(set_to_none=True)
        model.eval()
        return result


class _Clip:
    """Shortens the gradient before a step of the optimiser."""

    def __init__(self, parameters: list[nn.Parameter], length: float | None) -> None:
        self.parameters, self.length = parameters, length

    def __call__(self, *_: object) -> None:
        if self.length is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.length)


def check_training(training: object, name: str = "training") -> None:
    """Refuse what is no :class:`LinkTraining`.

    Raises:
        TypeError: If it is none.
    """
    if not isinstance(training, LinkTraining):
        raise TypeError(f"'{name}' must be a LinkTraining (got {type(training).__name__})")


def split_identity(pair: Any, split: Any) -> dict[str, Any]:
    """Return what tells trainings on different targets and splits apart.

    Example:
        >>> from types import SimpleNamespace
        >>> split_identity(SimpleNamespace(fingerprint="a"), SimpleNamespace(hash="b"))
        {'pair': 'a', 'split': 'b'}
    """
    return {"pair": pair.fingerprint, "split": split.hash}
