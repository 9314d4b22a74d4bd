"""How well classes are predicted: accuracy, calibration, and scores that tell unknown classes from known ones."""

import torch
from torch import Tensor

from graphsparse.metrics.labels import check_classes, is_labelled
from graphsparse.ops.blocks import row_blocks
from graphsparse.ops.check import check_count


def accuracy(logits: Tensor, y: Tensor, mask: Tensor | None = None) -> float:
    """Return the fraction of nodes whose largest logit is that of their class.

    Args:
        logits: ``[N, C]``, floating point; of equal logits the first counts. Probabilities will do.
        y: Classes ``[N]``; nodes with -1 or -100, which stand for no label, do not count.
        mask: Nodes to count, bool ``[N]``; all when ``None``.

    Returns:
        A fraction between 0 and 1.

    Raises:
        TypeError: If ``logits`` is not floating point, ``y`` not of integers, or ``mask`` not a bool tensor.
        ValueError: If the shapes do not fit, no labelled node is counted, a label is no class, or a logit is NaN or
            infinite; that of a class that is never given may be -inf.

    Example:
        >>> accuracy(torch.tensor([[0.1, 0.9], [0.8, 0.2]]), torch.tensor([1, 1]))
        0.5
    """
    logits, y = counted(logits, y, mask)
    return int(torch.count_nonzero(logits.argmax(dim=1) == y)) / y.numel()


def counted(logits: Tensor, y: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return logits and classes of the labelled nodes of a mask."""
    for name, given in (("logits", logits), ("y", y), *([] if mask is None else [("mask", mask)])):
        if not isinstance(given, Tensor):
            raise TypeError(f"'{name}' must be a tensor (got {type(given).__name__})")
    wrong = logits.dim() != 2 or logits.size(1) == 0 or y.shape != logits.shape[:1]
    if wrong or (mask is not None and mask.shape != y.shape):
        shapes = [list(t.shape) for t in (logits, y, mask) if t is not None]
        raise ValueError(f"'logits', 'y' and 'mask' must be [N, C] with C > 0, [N] and [N] (got {shapes})")
    if mask is not None and mask.dtype != torch.bool:  # numbers would pick nodes instead of marking them
        raise TypeError(f"'mask' must be a bool tensor (got {mask.dtype})")
    if mask is not None:
        logits, y = logits[mask], y[mask]
    if y.numel() == 0:
        raise ValueError("'mask' marks no node")
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise TypeError(f"'y' must hold classes as integers (got {y.dtype})")
    check_classes(y, "the labels in 'y'", logits.size(1))
    known = is_labelled(y)
    return _checked(logits[known]), y[known]


def expected_calibration_error(logits: Tensor, y: Tensor, mask: Tensor | None = None, *, num_bins: int = 15) -> float:
    r"""Return the expected calibration error (ECE): the mean gap between confidence and accuracy over bins.

    .. math::
        \mathrm{ECE} = \sum_{b=1}^{B} \frac{n_b}{n} \left| \mathrm{acc}_b - \mathrm{conf}_b \right|

    The confidence of a node is its largest probability. There are exactly :math:`B` bins of equal width, and bin
    :math:`b` holds the :math:`n_b` nodes with a confidence in :math:`((b - 1)/B, b/B]`: the lower edge is outside, the
    upper one inside, and 1 lies in the last bin. Empty bins add nothing. Everything is computed in float64.

    Args:
        logits: ``[N, C]``, of which a softmax makes probabilities; of equal ones the first counts. Logarithms of
            probabilities are logits, too.
        y: Classes ``[N]``; nodes with -1 or -100, which stand for no label, do not count.
        mask: Nodes to count, bool ``[N]``; all when ``None``.
        num_bins: Number of bins ``B``, at least 1. Numbers with different ``B`` cannot be compared.

    Returns:
        A number between 0 and 1.

    Raises:
        TypeError: If ``logits`` is not floating point, ``y`` not of integers, ``mask`` not a bool tensor, or
            ``num_bins`` no integer.
        ValueError: If the shapes do not fit, no labelled node is counted, a label is no class, ``num_bins`` is below 1,
            a logit is NaN or infinite, or the rows are probabilities.

    Example:
        >>> probs = torch.tensor([[0.75, 0.25], [0.75, 0.25], [0.5, 0.5]], dtype=torch.float64)
        >>> round(expected_calibration_error(probs.log(), torch.tensor([0, 1, 0]), num_bins=2), 4)
        0.3333

    Source: Guo et al., *On calibration of modern neural networks*, ICML 2017, Section 2.
    """
    num_bins = check_count(num_bins, "num_bins")
    logits, y = counted(logits, y, mask)
    _refuse_probabilities(logits)
    largest = logits.max(dim=1)
    confidence = torch.empty(y.numel(), dtype=torch.float64, device=logits.device)
    for rows in row_blocks(y.numel(), logits.size(1)):
        shifted = logits[rows].double() - largest.values[rows].double().unsqueeze(1)
        confidence[rows] = shifted.exp_().sum(1).reciprocal_()
    edges = torch.arange(1, num_bins, dtype=torch.float64, device=logits.device) / num_bins
    where = torch.bucketize(confidence, edges)  # number of inner edges below the confidence
    # n_b * (acc_b - conf_b) is a sum over the bin, so that no empty bin is divided by.
    gap = torch.zeros(num_bins, dtype=torch.float64, device=logits.device)
    gap.index_add_(0, where, (largest.indices == y).double() - confidence)
    return float(gap.abs().sum() / y.numel())


def max_softmax_score(logits: Tensor) -> Tensor:
    r"""Return one minus the largest softmax probability: higher = more out of distribution.

    .. math::
        s_i = 1 - \max_c p_{ic} = \frac{r_i}{1 + r_i}, \qquad r_i = \sum_{c \neq c^*} e^{z_{ic} - z_{ic^*}}

    It ranks as the negative of the largest probability does. Computed from what the other classes hold, it still tells
    confident predictions apart whose probability rounds to 1.

    Args:
        logits: ``[N, C]``, at least one class, floating point; half precision is computed in float32.

    Returns:
        Scores ``[N]`` between 0 and :math:`1 - 1/C`.

    Raises:
        TypeError: If ``logits`` is not a floating point tensor.
        ValueError: If its shape does not fit, a logit is NaN or infinite, or the rows are probabilities.

    Example:
        >>> max_softmax_score(torch.tensor([[0.0, 0.0], [30.0, 0.0], [40.0, 0.0]]))
        tensor([5.0000e-01, 9.3576e-14, 4.2484e-18])

    Source: Hendrycks and Gimpel, *A baseline for detecting misclassified and out-of-distribution examples in neural
    networks*, ICLR 2017.
    """
    logits = _wide(logits)
    largest = logits.max(dim=1, keepdim=True)
    # Leaving out one of the largest, not all of them: equal ones are other classes.
    others = (logits - largest.values).exp_().scatter_(1, largest.indices, 0).sum(1)
    return others / (1 + others)


def energy_score(logits: Tensor) -> Tensor:
    r"""Return the free energy of the logits: higher = more out of distribution.

    .. math::
        s_i = -\log \sum_c e^{z_{ic}}

    Unlike probabilities it changes when all logits of a node grow by the same number. The largest logit is taken out of
    the sum first, so that nothing overflows.

    Args:
        logits: ``[N, C]``, at least one class, floating point; half precision is computed in float32.

    Returns:
        Scores ``[N]`` between :math:`-\max_c z_{ic} - \log C` and :math:`-\max_c z_{ic}`.

    Raises:
        TypeError: If ``logits`` is not a floating point tensor.
        ValueError: If its shape does not fit, a logit is NaN or infinite, or the rows are probabilities.

    Example:
        >>> energy_score(torch.tensor([[0.0, 0.0], [100.0, 0.0]]))
        tensor([  -0.6931, -100.0000])

    Source: Liu et al., *Energy-based out-of-distribution detection*, NeurIPS 2020.
    """
    logits = _wide(logits)
    largest = logits.amax(1)
    return -largest - (logits - largest.unsqueeze(1)).exp_().sum(1).log_()


def _wide(logits: Tensor) -> Tensor:
    """Return checked logits, at least in float32."""
    logits = _checked(logits)
    _refuse_probabilities(logits)
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def _checked(logits: Tensor) -> Tensor:
    """Return logits without their gradient, or refuse what are none."""
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        kind = getattr(logits, "dtype", type(logits).__name__)
        raise TypeError(f"'logits' must be a floating point tensor (got {kind})")
    if logits.dim() != 2 or logits.size(1) == 0:
        raise ValueError(f"'logits' must be [N, C] with at least one class (got {list(logits.shape)})")
    if not logits.amax(1).isfinite().all():  # -inf beside a number is a class that is never given
        raise ValueError("'logits' holds NaN or infinity")
    return logits.detach()


def _refuse_probabilities(logits: Tensor) -> None:
    """Refuse rows of which each is a distribution over several classes: a softmax of these says something else.

    One or two rows may have a sum of 1 by chance.
    """
    if logits.size(0) < 3 or logits.size(1) == 1 or bool((logits < 0).any()):
        return
    if bool(((logits.double().sum(1) - 1).abs() < 1e-3).all()):
        raise ValueError("'logits' holds probabilities, rows with a sum of 1; give their logarithms")
