"""What is asked of nodes or graphs: what labels must look like, the loss on them and the figure of merit."""

import math
from collections.abc import Callable
from typing import Any, Literal, TypeAlias, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from graphsparse.metrics import accuracy, auroc
from graphsparse.metrics.labels import NO_CLASS
from graphsparse.training.check import check_callable

#: ``"multiclass"``: one of several classes; ``"binary"``: any number of yes-or-no questions; ``"regression"``: numbers.
Target: TypeAlias = Literal["multiclass", "binary", "regression"]
#: A figure of merit from the logits of a part, ``[n, T]`` (classes: ``[n, C]``), and its labels.
Metric: TypeAlias = Callable[[Tensor, Tensor], float]

#: What stands for no class behind `read_labels`, and is left out by the losses of PyTorch.
IGNORED = NO_CLASS[1]
TARGETS: tuple[Target, ...] = get_args(Target)
_OF_OGB: dict[str, Target] = {
    "binary classification": "binary",
    "multiclass classification": "multiclass",
    "regression": "regression",
}
#: Metrics of OGB's evaluators, and whether more is better.
_OGB_METRICS = {"rocauc": True, "ap": True, "acc": True, "rmse": False}


def check_target(target: str | None, dataset: Any = None) -> Target:
    """Return what is asked: the argument, or what the data set says of itself as those of OGB do."""
    if target is None:
        of_dataset = getattr(dataset, "task_type", None)
        if of_dataset not in _OF_OGB:
            raise ValueError(f"'target' must be one of {TARGETS}; the data set does not say it (got {of_dataset!r})")
        return _OF_OGB[of_dataset]
    if target not in TARGETS:
        raise ValueError(f"'target' must be one of {TARGETS} (got {target!r})")
    return target


def read_labels(y: Any, num: int, target: Target, name: str = "y") -> Tensor:
    """Return labels in the one form that everything else works with.

    Args:
        y: Labels of so many nodes or graphs: ``[n]``, ``[n, T]`` or ``[n * T]``; NaN where one is not known, of classes
            also -1 or -100.
        num: How many they are.
        target: What is asked.
        name: For messages.

    Returns:
        ``[n]``, int64 from 0 or -100, for classes; else ``[n, T]`` in the type they came in.
    """
    if not isinstance(y, Tensor) or num == 0 or y.numel() == 0 or y.numel() % num:
        shape = list(y.shape) if isinstance(y, Tensor) else type(y).__name__
        raise ValueError(f"'{name}' must hold labels, the same number for each of {num} (got {shape})")
    rows: Tensor = y.reshape(num, -1)
    known = rows[~rows.isnan()]
    if target == "regression":
        if known.isinf().any():
            raise ValueError(f"'{name}' holds an infinite label")
        return rows
    if target == "binary":
        if not ((known == 0) | (known == 1)).all():
            raise ValueError(
                f"binary labels must be 0, 1 or NaN (got {float(known.min())} to {float(known.max())}; NaN stands for "
                "no label); is 'target' right?"
            )
        return rows
    if rows.size(1) != 1 or (known != known.long()).any() or rows.dtype == torch.bool:
        raise ValueError(
            "labels of several classes must be one integer from 0 for each of them, or NaN, -1 or -100 for none "
            f"(got {list(rows.shape)} of {rows.dtype}); is 'target' right?"
        )
    classes = rows.squeeze(1).nan_to_num(nan=IGNORED).long()
    classes[classes == NO_CLASS[0]] = IGNORED
    if (wrong := classes[(classes < 0) & (classes != IGNORED)]).numel():
        raise ValueError(
            "labels of several classes must be one integer from 0 for each of them, or NaN, -1 or -100 for none "
            f"(got {int(wrong.min())}); is 'target' right?"
        )
    return classes


def target_loss(logits: Tensor, y: Tensor, target: Target, weight: Tensor | None = None) -> Tensor | None:
    """Return the mean loss over all known labels; if there are none, ``None``, or 0 on a device.

    Cross-entropy, binary cross-entropy with logits, or squared error.

    Args:
        logits: ``[n, T]``, for classes ``[n, C]``.
        y: What :func:`read_labels` returned.
        target: What is asked.
        weight: Weights ``[n]``: the sum with them is returned then, of several questions that of their mean.

    Example:
        >>> y = torch.tensor([[1.0, math.nan], [0.0, math.nan]])
        >>> float(target_loss(torch.zeros(2, 2), y, "binary"))  # log 2
        0.693...
    """
    if target == "multiclass":
        if weight is None:
            return F.cross_entropy(logits, y)
        return (F.cross_entropy(logits, y, reduction="none") * weight).sum()
    y = y.to(logits.dtype)
    known = ~y.isnan()
    waits = y.device.type != "cpu"
    if not waits and not known.any():
        return None
    loss = F.binary_cross_entropy_with_logits if target == "binary" else F.mse_loss
    if weight is None and not waits:
        found: Tensor = loss(logits[known], y[known])
        return found
    every = torch.where(known, loss(logits, y.nan_to_num(), reduction="none"), 0)
    if weight is None:  # without a look at how many are known, for which a device would be waited for
        return every.sum() / known.sum().clamp(min=1)
    return (every.sum(1) / known.sum(1).clamp(min=1) * weight).sum()


def read_metric(target: Target, metric: Any = None, maximize: bool | None = None) -> tuple[str, Metric, bool]:
    """Return name and function of the figure of merit, and whether more is better.

    Args:
        target: What is asked.
        metric: A function, or an evaluator of OGB. When ``None``: accuracy, the mean AUROC over the questions that have
            both answers, or the root mean square error, each over known labels only.
        maximize: Whether more is better with a function; yes when ``None``.
    """
    if metric is not None and not hasattr(metric, "eval_metric"):
        check_callable(metric, "metric")
        return getattr(metric, "__name__", "metric").replace("<lambda>", "metric"), metric, maximize is not False
    if maximize is not None:
        raise ValueError(f"'maximize' is for a function as 'metric' only (got {maximize!r}); else it is known")
    if metric is not None:
        return _evaluator_metric(metric)
    if target == "multiclass":
        return "accuracy", accuracy, True
    return ("rocauc", mean_auroc, True) if target == "binary" else ("rmse", rmse, False)


def _evaluator_metric(evaluator: Any) -> tuple[str, Metric, bool]:
    check_callable(getattr(evaluator, "eval", None), "metric.eval")
    name = evaluator.eval_metric
    if name not in _OGB_METRICS:
        raise ValueError(f"'metric' must be an evaluator with one of {list(_OGB_METRICS)} (got {name!r})")

    def judge(logits: Tensor, y: Tensor) -> float:
        pred = logits.argmax(1, keepdim=True) if name == "acc" else logits
        return float(evaluator.eval({"y_true": y.view(len(y), -1), "y_pred": pred})[name])

    return str(name), judge, _OGB_METRICS[name]


def mean_auroc(logits: Tensor, y: Tensor) -> float:
    """Return the AUROC averaged over the questions that have both answers; NaN if there are none.

    Args:
        logits: ``[n, T]``.
        y: 0, 1 or NaN, ``[n, T]``.

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
        logits: ``[n, T]``.
        y: ``[n, T]``.

    Example:
        >>> rmse(torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0], [4.0]]))
        1.414...
    """
    known = ~y.isnan()
    square = torch.where(known, logits.double() - y.double(), 0).square().sum(0)
    return float((square / known.sum(0)).sqrt().nanmean())


def distillation_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0) -> Tensor:
    r"""Return the Kullback-Leibler divergence of the student's predictions from the teacher's, averaged over nodes.

    .. math::
        \frac{T^2}{N} \sum_v \sum_c p_{vc} \, (\log p_{vc} - \log q_{vc}), \qquad
        p = \mathrm{softmax}(Z_T / T), \quad q = \mathrm{softmax}(Z_S / T)

    The factor :math:`T^2` keeps the size of the gradient the same at every temperature. No gradient reaches the
    teacher.

    Args:
        student_logits: :math:`Z_S`, ``[N, C]``.
        teacher_logits: :math:`Z_T`, ``[N, C]``.
        temperature: :math:`T`, positive; larger values compare the small probabilities more.

    Returns:
        A scalar in nats; 0 if both predict the same.

    Raises:
        ValueError: If the shapes differ, no node is given, or the temperature is not positive.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[1.0, 2.0]])
        >>> float(distillation_loss(logits, logits))
        0.0

    Source: Hinton et al., *Distilling the Knowledge in a Neural Network*, arXiv 1503.02531, Section 2; used by Seo et
    al., arXiv 2402.01261, Section 4, at temperature 1.
    """
    if student_logits.shape != teacher_logits.shape or student_logits.dim() != 2 or student_logits.size(0) == 0:
        raise ValueError(
            "'student_logits' and 'teacher_logits' must both be [N, C] with at least one node "
            f"(got {list(student_logits.shape)} and {list(teacher_logits.shape)})"
        )
    if not temperature > 0:
        raise ValueError(f"'temperature' must be positive (got {temperature!r})")
    student = F.log_softmax(student_logits / temperature, dim=1)
    teacher = F.log_softmax(teacher_logits.detach() / temperature, dim=1)
    return temperature**2 * F.kl_div(student, teacher, reduction="batchmean", log_target=True)
