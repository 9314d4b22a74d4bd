"""What is learned: all that differs between nodes, graphs and links."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor, nn

#: A further term of the loss, from the logits of a batch, the batch and the epoch.
ExtraLoss: TypeAlias = Callable[[Tensor, Any, int], Tensor]


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


@dataclass(frozen=True, eq=False)
class FitResult:
    """What a training left behind.

    Args:
        state_dict: Weights and buffers at the best epoch.
        logits: Logits in evaluation mode at the best epoch: ``[N, C]`` of the evaluated graph for nodes; one row per
            graph of the data set, in its order, for graphs, NaN for a graph in no part of the split.
        best_epoch: Epoch with the best validation metric, from 0; the first one if several are equal.
        epochs_run: Number of epochs that were run.
        metric: Name of the metric.
        train: Metric on the training part at the best epoch; NaN where there is none.
        val: Metric on the validation part at the best epoch.
        test: Metric on the test part at the best epoch; ``None`` where there is none.
        history: ``epoch``, ``loss`` (mean over its steps), ``val`` and, for nodes, ``train`` of every evaluated epoch.
        weight_masks: Of every parameter that a projection of the optimiser covers, by name, which weights were kept at
            the best epoch; ``True`` = kept. A kept weight may be 0.
        saved: Weights and buffers after the epochs of ``save_at``; ``None`` without it.
    """

    state_dict: dict[str, Tensor]
    logits: Tensor
    best_epoch: int
    epochs_run: int
    metric: str
    train: float
    val: float
    test: float | None
    history: list[dict[str, float]]
    weight_masks: dict[str, Tensor] = field(default_factory=dict)
    saved: dict[str, Tensor] | None = None


class Task(Protocol):
    """What a model is trained and judged on; :func:`~graphsparse.training.fit` takes any object with these members.

    :class:`~graphsparse.training.NodeTask` and :class:`~graphsparse.training.GraphTask` are tasks.
    """

    #: ``"node"``, ``"graph"`` or ``"link"``, for messages.
    unit: str
    #: Name of the figure of merit.
    metric: str
    #: Whether a larger figure is better.
    maximize: bool

    @property
    def generators(self) -> Sequence[torch.Generator]:
        """Generators that the batches draw from besides the global ones; their state is part of a checkpoint."""
        ...

    def check(self, model: nn.Module) -> None:
        """Find out before the first step whether the model fits; no test label is read."""
        ...

    def batches(self) -> Iterable[Any]:
        """Return the batches of an epoch."""
        ...

    def loss(self, model: nn.Module, batch: Any, extra: Callable[[Tensor], Tensor] | None) -> Tensor | None:
        """Return the loss of a batch, a scalar with a gradient, or ``None`` to pass it over.

        ``extra`` gives a further term from the logits, if there is one; add it with :func:`add_extra`.
        """
        ...

    def evaluate(self, model: nn.Module, epoch: int) -> Evaluation:
        """Judge the model on the validation part; its mode stays, and no test label is read."""
        ...

    def finish(self, model: nn.Module, best: Evaluation) -> tuple[Tensor, float, float | None]:
        """Return logits, training and test metric of a model that holds the best weights; read test labels here."""
        ...

    def identity(self) -> dict[str, Any]:
        """Return what tells one task from another in a checkpoint: tensors and plain values by name."""
        ...

    def without_test(self) -> "Task":
        """Return the same task without its test part, for trainings among which the validation part chooses."""
        ...


def add_extra(loss: Tensor, extra: Callable[[Tensor], Tensor] | None, logits: Tensor) -> Tensor:
    """Return the loss plus the further term, if there is one.

    Raises:
        ValueError: If the further term is no scalar tensor.

    Example:
        >>> add_extra(torch.tensor(1.0), torch.sum, torch.ones(2, 3))
        tensor(7.)
    """
    if extra is None:
        return loss
    term = extra(logits)
    if not isinstance(term, Tensor) or term.dim() != 0:
        raise ValueError(f"'extra_loss' must return a scalar tensor (got {term!r})")
    return loss + term
