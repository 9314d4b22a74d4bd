"""How well a score ranks what should be found before the rest; equal scores are never told apart."""

import math
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from graphsparse.ops.blocks import blocks
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
    return _ranked(score, positive, needs_negative=True).auroc()


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
    return _ranked(score, positive, needs_negative=False).average_precision()


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
    return _ranked(score, positive, needs_negative=True).fpr_at_recall(recall)


class Ranked:
    """Scores of positives and of negatives in ascending order, from which several metrics are exact and cheap.

    Both are copied and sorted once, in place on CPU; nothing else as long as the negatives is held. So 10^8 scores in
    float32 take 400 MB beside the input. There is at least one positive, and no score is NaN.
    """

    def __init__(self, pos: Tensor, neg: Tensor) -> None:
        self.pos, self.neg = _ascending(pos), _ascending(neg)
        self._counts: tuple[Tensor, Tensor, Tensor] | None = None

    def auroc(self) -> float:
        """Return the area under the ROC curve; see the function of that name."""
        found, above, level = self._levels()
        gain = found.diff(prepend=found.new_zeros(1))
        below = self.neg.numel() - above - level
        # In whole numbers, which are exact: twice the area, so that a tie counts 1.
        double_area = int((gain * (2 * below + level)).sum())
        return double_area / (2 * self.pos.numel() * self.neg.numel())

    def average_precision(self) -> float:
        """Return the average precision; see the function of that name."""
        found, above, level = self._levels()
        gain = found.diff(prepend=found.new_zeros(1))
        return float((gain * (found / (found + above + level).double())).sum() / found[-1])

    def fpr_at_recall(self, recall: float) -> float:
        """Return the fraction of negatives above the threshold that finds so many positives."""
        found, above, level = self._levels()
        # The quotient, and not 'recall * positives': 57 / 60 is the double nearest to 0.95, as the literal is.
        enough = found.double() / found[-1] >= recall
        return int((above + level)[enough][0]) / self.neg.numel()

    def hits_at_k(self, k: int) -> float:
        """Return the fraction of positives above the ``k``-th highest negative; 1 with fewer than ``k`` negatives.

        Equal scores are no hit. Source: Hu et al., *Open Graph Benchmark*, NeurIPS 2020, section 5.
        """
        if self.neg.numel() < k:
            return 1.0
        return self._above(self.pos, self.neg[-k]) / self.pos.numel()

    def recall_at_ratio(self, ratio: Fraction) -> float:
        r"""Return the fraction of positives among the highest :math:`\lfloor \rho P \rfloor` scores, equal ones last.

        Source: the metric of the released code of Zheng et al., 2023, arXiv 2302.14189, whose ties fall to the links.
        """
        num = self.pos.numel()
        size = math.floor(ratio * num)
        if num + self.neg.numel() <= size:
            return 1.0
        if size == 0:
            return 0.0
        level = self._kth_highest(size)
        above = self._above(self.pos, level)
        left = size - above - self._above(self.neg, level)
        tied = int(torch.searchsorted(self.neg, level, right=True) - torch.searchsorted(self.neg, level))
        return (above + max(0, left - tied)) / num

    def _kth_highest(self, k: int) -> Tensor:
        """Return the ``k``-th highest score of positives and negatives together.

        Of the ``k`` highest, ``j`` are positives for some ``j``; the right one is found by bisection.
        """
        pos = self.pos
        low, high = max(0, k - self.neg.numel()), min(k, pos.numel())
        while low < high:
            middle = (low + high) // 2
            # One positive more among the highest: is it at least as high as the negative that it would push out?
            if pos[-1 - middle] >= self.neg[middle - k]:
                low = middle + 1
            else:
                high = middle
        lowest = [scores[-count] for scores, count in ((pos, low), (self.neg, k - low)) if count > 0]
        return torch.stack(lowest).min()

    def _levels(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return how many positives score at least as high, negatives higher, and negatives the same.

        That is for each distinct score of a positive, highest first.
        """
        if self._counts is None:
            last = torch.ones(self.pos.numel(), dtype=torch.bool, device=self.pos.device)
            last[1:] = self.pos[1:] != self.pos[:-1]  # the first of a run in ascending order
            place = last.nonzero().squeeze(1).flip(0)
            level = self.pos[place]
            above, same = torch.empty_like(place), torch.empty_like(place)
            for where in blocks(place.numel()):
                left = torch.searchsorted(self.neg, level[where])
                right = torch.searchsorted(self.neg, level[where], right=True)
                above[where] = self.neg.numel() - right
                same[where] = right - left
            self._counts = self.pos.numel() - place, above, same
        return self._counts

    @staticmethod
    def _above(scores: Tensor, level: Tensor) -> int:
        return scores.numel() - int(torch.searchsorted(scores, level, right=True))


def check_scores(scores: Tensor, name: str) -> None:
    """Refuse scores that are no real numbers, or NaN."""
    if not isinstance(scores, Tensor) or scores.is_complex() or scores.dtype == torch.bool:
        raise TypeError(
            f"'{name}' must be a real-valued tensor (got {getattr(scores, 'dtype', type(scores).__name__)})"
        )
    if scores.is_floating_point():
        flat = scores.reshape(-1)
        if any(bool(flat[where].isnan().any()) for where in blocks(flat.numel())):
            raise ValueError(f"'{name}' must not hold NaN")


def _ranked(score: Tensor, positive: Tensor, *, needs_negative: bool) -> Ranked:
    check_scores(score, "score")
    if not isinstance(positive, Tensor) or positive.dtype != torch.bool:
        raise TypeError(f"'positive' must be a bool tensor (got {getattr(positive, 'dtype', type(positive).__name__)})")
    if score.dim() != 1 or positive.shape != score.shape:
        shapes = [list(score.shape), list(positive.shape)]
        raise ValueError(f"'score' and 'positive' must both be [N] (got {shapes[0]} and {shapes[1]})")
    if not positive.any():
        raise ValueError("'positive' marks nothing")
    if needs_negative and positive.all():
        raise ValueError("'positive' marks everything: there is nothing to tell it from")
    return Ranked(score[positive], score[~positive])


def _ascending(scores: Tensor) -> Tensor:
    scores = scores.detach()
    if scores.dtype in (torch.bfloat16, torch.float16):
        scores = scores.float()
    if scores.device.type != "cpu":
        return scores.sort().values
    # NumPy's sort is vectorised and needs no index array; torch.sort returns one.
    return torch.from_numpy(np.sort(scores.numpy()))
