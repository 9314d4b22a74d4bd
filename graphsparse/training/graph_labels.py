"""Labels of graphs: what they must look like, the loss on them and the figure of merit."""

import math
from collections.abc import Callable
from typing import Any, Literal, TypeAlias, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from graphsparse.metrics import accuracy, auroc
from graphsparse.training.check import check_callable

#: ``"binary"``: any number of yes-or-no questions; ``"multiclass"``: one of several; ``"regression"``: numbers.
GraphTarget: TypeAlias = Literal["binary", "multiclass", "regression"]
#: A figure of merit from logits ``[G, T]`` (classes: ``[G, C]``) and labels ``[G, T]`` (classes: ``[G]``).
GraphMetric: TypeAlias = Callable[[Tensor, Tensor], float]

TARGETS: tuple[GraphTarget, ...] = get_args(GraphTarget)
_OF_OGB: dict[str, GraphTarget] = {
    "binary classification": "binary",
    "multiclass classification": "multiclass",
    "regression": "regression",
}
#: Metrics of OGB's evaluators, and whether more is better.
_OGB_METRICS = {"rocauc": True, "ap": True, "acc": True, "rmse": False}


def graph_target(target: GraphTarget | None, dataset: Any) -> GraphTarget:
    """Return what is asked of a data set: the argument, or what the data set says of itself as those of OGB do.

    Raises:
        ValueError: If the argument is unknown, or neither says it.
    """
    if target is None:
        of_dataset = getattr(dataset, "task_type", None)
        if of_dataset not in _OF_OGB:
            raise ValueError(f"'target' must be one of {TARGETS}; the data set does not say it (got {of_dataset!r})")
        return _OF_OGB[of_dataset]
    if target not in TARGETS:
        raise ValueError(f"'target' must be one of {TARGETS} (got {target!r})")
    return target


def graph_labels(y: Any, num_graphs: int, target: GraphTarget) -> Tensor:
    """Return labels in the one form that everything else works with.

    Args:
        y: Labels of so many graphs: ``[G]``, ``[G, T]`` or ``[G * T]``; NaN where one is not known.
        num_graphs: Number of graphs :math:`G`.
        target: What is asked.

    Returns:
        ``[G]``, int64 from 0, for classes; else ``[G, T]`` in the type they came in.

    Raises:
        ValueError: If the labels are missing, of a wrong shape, or none of that kind.
    """
    if not isinstance(y, Tensor) or num_graphs == 0 or y.numel() == 0 or y.numel() % num_graphs:
        shape = list(y.shape) if isinstance(y, Tensor) else type(y).__name__
        raise ValueError(f"'dataset' must hold labels 'y', the same number for each graph (got {shape})")
    rows: Tensor = y.reshape(num_graphs, -1)
    known = rows[~rows.isnan()]
    if target == "regression":
        if known.isinf().any():
            raise ValueError("'dataset' holds an infinite label")
        return rows
    if target == "binary":
        if not ((known == 0) | (known == 1)).all():
            raise ValueError(
                f"binary labels must be 0, 1 or NaN (got {float(known.min())} to {float(known.max())}); "
                "is 'target' right?"
            )
        return rows
    if rows.size(1) != 1 or known.numel() < num_graphs or (rows != rows.long()).any() or (rows < 0).any():
        raise ValueError(
            "labels of several classes must be one integer from 0 for each graph "
            f"(got {list(rows.shape)} of {rows.dtype}); is 'target' right?"
        )
    return rows.squeeze(1).long()


def graph_loss(logits: Tensor, y: Tensor, target: GraphTarget) -> Tensor | None:
    """Return the mean loss over all known labels, ``None`` if there are none.

    Binary cross-entropy with logits, cross-entropy, or squared error.

    Args:
        logits: ``[G, T]``, for classes ``[G, C]``.
        y: What :func:`graph_labels` returned.
        target: What is asked.

    Example:
        >>> y = torch.tensor([[1.0, math.nan], [0.0, math.nan]])
        >>> float(graph_loss(torch.zeros(2, 2), y, "binary"))  # log 2
        0.693...
    """
    if target == "multiclass":
        return F.cross_entropy(logits, y)
    y = y.to(logits.dtype)
    known = ~y.isnan()
    if not known.any():
        return None
    loss = F.binary_cross_entropy_with_logits if target == "binary" else F.mse_loss
    found: Tensor = loss(logits[known], y[known])
    return found


def graph_metric(
    target: GraphTarget, evaluator: Any = None, metric: GraphMetric | None = None, maximize: bool | None = None
) -> tuple[GraphMetric, bool]:
    """Return the figure of merit and whether more is better.

    Args:
        target: What is asked.
        evaluator: An evaluator of OGB, which knows both.
        metric: A function instead.
        maximize: Whether more is better with ``metric``; yes when ``None``.

    Returns:
        Without ``evaluator`` and ``metric``, the mean AUROC over the questions that have both answers, the accuracy, or
        the root mean square error (less is better), each over known labels only.

    Raises:
        TypeError: If one of them cannot be called.
        ValueError: If both are given, or the evaluator's metric is none for labels.
    """
    if evaluator is not None and metric is not None:
        raise ValueError("give 'evaluator' or 'metric', not both")
    if metric is None and maximize is not None:
        raise ValueError(f"'maximize' is for 'metric' only (got {maximize!r}); else it is known")
    if metric is not None:
        check_callable(metric, "metric")
        return metric, maximize is not False
    if evaluator is not None:
        return _evaluator_metric(evaluator)
    if target == "multiclass":
        return accuracy, True
    return (mean_auroc, True) if target == "binary" else (rmse, False)


def _evaluator_metric(evaluator: Any) -> tuple[GraphMetric, bool]:
    check_callable(getattr(evaluator, "eval", None), "evaluator.eval")
    name = getattr(evaluator, "eval_metric", None)
    if name not in _OGB_METRICS:
        raise ValueError(f"'evaluator' must have one of the metrics {list(_OGB_METRICS)} (got {name!r})")

    def metric(logits: Tensor, y: Tensor) -> float:
        pred = logits.argmax(1, keepdim=True) if name == "acc" else logits
        return float(evaluator.eval({"y_true": y.view(len(y), -1), "y_pred": pred})[name])

    return metric, _OGB_METRICS[str(name)]


def mean_auroc(logits: Tensor, y: Tensor) -> float:
    """Return the AUROC averaged over the questions that have both answers; NaN if there are none.

    Args:
        logits: ``[G, T]``.
        y: 0, 1 or NaN, ``[G, T]``.

    Example:
        >>> mean_auroc(torch.tensor([[0.3], [0.9], [0.1]]), torch.tensor([[0], [1], [1]]))
        0.5
    """
    known = ~y.isnan()
    scores = []
    for task in range(y.size(1)):
        rows = known[:, task]
        positive = y[rows, task] == 1
        if positive.any() and not positive.all():
            scores.append(auroc(logits[rows, task], positive))
    return sum(scores) / len(scores) if scores else math.nan


def rmse(logits: Tensor, y: Tensor) -> float:
    """Return the root mean square error, averaged over the columns; labels that are NaN do not count.

    Args:
        logits: ``[G, T]``.
        y: ``[G, T]``.

    Example:
        >>> round(rmse(torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0], [4.0]])), 4)
        1.4142
    """
    known = ~y.isnan()
    square = torch.where(known, logits.double() - y.double(), 0).square().sum(0)
    return float((square / known.sum(0)).sqrt().nanmean())
