"""How well a score ranks what should be found before the rest; equal scores are never told apart."""

import torch
from torch import Tensor

from graphsparse.ops.check import check_real


def auroc(score: Tensor, positive: Tensor) -> float:
    r"""Return the area under the ROC curve: the probability that a positive scores higher than a negative.

    .. math::
        \mathrm{AUROC} = P(s_+ > s_-) + \tfrac12 P(s_+ = s_-)

    Equal scores count half, which is the trapezoid under the curve and the rank sum with mean ranks. Pairs are counted
    in integers, so that only the last division rounds.

    Args:
        score: Scores ``[N]``, higher = more likely positive; infinities are allowed.
        positive: What should be found, bool ``[N]``. For the detection of out-of-distribution nodes these are the
            nodes that are out of distribution.

    Returns:
        A number between 0 and 1; 0.5 for a constant score.

    Raises:
        TypeError: If ``score`` is not a real-valued tensor or ``positive`` not a bool tensor.
        ValueError: If the shapes do not fit, a score is NaN, or there is no positive or no negative.

    Example:
        >>> auroc(torch.tensor([0.1, 0.4, 0.4, 0.8]), torch.tensor([False, False, True, True]))
        0.875

    Source: Fawcett, *An introduction to ROC analysis*, Pattern Recognition Letters 27, 2006.
    """
    found, wrong = _counts(score, positive, needs_negative=True)
    before = found - found.diff(prepend=found.new_zeros(1))
    double_area = int((wrong.diff(prepend=wrong.new_zeros(1)) * (found + before)).sum())
    return double_area / (2 * int(found[-1]) * int(wrong[-1]))


def average_precision(score: Tensor, positive: Tensor) -> float:
    r"""Return the average precision: the area under the precision-recall curve, as a sum of steps (AUPR).

    .. math::
        \mathrm{AP} = \sum_k (R_k - R_{k-1}) P_k

    with recall :math:`R_k` and precision :math:`P_k` of everything that scores at least as high as the :math:`k`-th
    highest distinct score. The curve is not interpolated, which would be too optimistic.

    Args:
        score: Scores ``[N]``, higher = more likely positive; infinities are allowed.
        positive: What should be found, bool ``[N]``.

    Returns:
        A number above 0 and at most 1; the fraction of positives for a constant score.

    Raises:
        TypeError: If ``score`` is not a real-valued tensor or ``positive`` not a bool tensor.
        ValueError: If the shapes do not fit, a score is NaN, or there is no positive.

    Example:
        >>> round(average_precision(torch.tensor([0.9, 0.8, 0.3, 0.1]), torch.tensor([True, False, True, False])), 4)
        0.8333

    Source: Davis and Goadrich, *The relationship between precision-recall and ROC curves*, ICML 2006.
    """
    found, wrong = _counts(score, positive, needs_negative=False)
    gain = found.diff(prepend=found.new_zeros(1))
    return float((gain * (found / (found + wrong).double())).sum() / found[-1])


def fpr_at_recall(score: Tensor, positive: Tensor, recall: float = 0.95) -> float:
    r"""Return the fraction of negatives that are flagged where enough positives are found (FPR95).

    .. math::
        \min_t \{ \mathrm{FPR}(t) : \mathrm{TPR}(t) \geq \mathrm{recall} \}

    over thresholds :math:`t` that flag everything scoring at least :math:`t`. Equal scores are flagged together, and
    nothing is interpolated. Some authors take the nodes of the known classes for the positive ones; here, as in
    :func:`auroc`, positive is what ``positive`` marks.

    Args:
        score: Scores ``[N]``, higher = more likely positive; infinities are allowed.
        positive: What should be found, bool ``[N]``.
        recall: Fraction of the positives to find, in ``(0, 1]``.

    Returns:
        A number between 0 and 1, lower = better; 1 for a constant score.

    Raises:
        TypeError: If ``score`` is not a real-valued tensor, ``positive`` not a bool tensor, or ``recall`` no number.
        ValueError: If the shapes do not fit, a score is NaN, there is no positive or no negative, or ``recall`` is out
            of range.

    Example:
        >>> score, positive = torch.tensor([0.9, 0.8, 0.3, 0.1]), torch.tensor([True, False, True, False])
        >>> fpr_at_recall(score, positive), fpr_at_recall(score, positive, recall=0.5)
        (0.5, 0.0)

    Source: Liang, Li and Srikant, *Enhancing the reliability of out-of-distribution image detection in neural
    networks*, ICLR 2018, Section 4.3.
    """
    recall = check_real(recall, "recall", "a number in (0, 1]")
    if not 0 < recall <= 1:  # also refuses NaN
        raise ValueError(f"'recall' must be in (0, 1] (got {recall!r})")
    found, wrong = _counts(score, positive, needs_negative=True)
    # The quotient, and not 'recall * positives': 57 / 60 is the double nearest to 0.95, as the literal is.
    enough = found.double() / found[-1] >= recall
    return int(wrong[enough][0]) / int(wrong[-1])


def _counts(score: Tensor, positive: Tensor, *, needs_negative: bool) -> tuple[Tensor, Tensor]:
    """Return how many positives and negatives score at least as high as each distinct score, highest first."""
    if not isinstance(score, Tensor) or score.is_complex():
        raise TypeError(f"'score' must be a real-valued tensor (got {getattr(score, 'dtype', type(score).__name__)})")
    if not isinstance(positive, Tensor) or positive.dtype != torch.bool:
        raise TypeError(f"'positive' must be a bool tensor (got {getattr(positive, 'dtype', type(positive).__name__)})")
    if score.dim() != 1 or positive.shape != score.shape:
        shapes = [list(score.shape), list(positive.shape)]
        raise ValueError(f"'score' and 'positive' must both be [N] (got {shapes[0]} and {shapes[1]})")
    if score.is_floating_point() and score.isnan().any():
        raise ValueError("'score' must not hold NaN")
    num_positive = int(positive.count_nonzero())
    if num_positive == 0:
        raise ValueError("'positive' marks nothing")
    if needs_negative and num_positive == positive.numel():
        raise ValueError("'positive' marks everything: there is nothing to tell it from")
    score, order = score.detach().sort(descending=True)
    last = torch.ones_like(positive)  # of a run of equal scores
    last[:-1] = score[1:] != score[:-1]
    place = last.nonzero().squeeze(1)
    found = positive[order].cumsum(0)[place]
    return found, place + 1 - found
