"""Scores of links and of non-links, each sorted once, and what can be read off them."""

import math
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

#: Scores looked up in the other sorted list at a time.
_BLOCK = 1 << 20
#: Ways to rank a link and a non-link with the same score.
TIES = ("pessimistic", "random")


class RankedLinks:
    """Scores of links and of non-links in ascending order, from which several metrics are exact and cheap.

    Both are copied and sorted once, in place on CPU; nothing else as long as the non-links is held. So 10^8 scores in
    float32 take 400 MB beside the input.

    Args:
        pos: Scores of links ``[P]``, higher = more likely a link; infinities are allowed.
        neg: Scores of non-links ``[N]``, of the same type.

    Raises:
        TypeError: If a score is not real-valued, or both have different types.
        ValueError: If they are not vectors, there is no link, or a score is NaN.

    Example:
        >>> ranked = RankedLinks(torch.tensor([0.9, 0.4]), torch.tensor([0.4, 0.1, 0.2]))
        >>> ranked.auroc(), ranked.recall_at_ratio(1.0), ranked.hits_at_k(1)
        (0.9166666666666666, 0.5, 0.5)
    """

    def __init__(self, pos: Tensor, neg: Tensor) -> None:
        check_scores(pos, neg)
        for name, scores in (("pos", pos), ("neg", neg)):
            if scores.dim() != 1:
                raise ValueError(f"'{name}' must be a vector (got shape {list(scores.shape)})")
        if pos.numel() == 0:
            raise ValueError("'pos' holds no score")
        self.pos, self.neg = _ascending(pos), _ascending(neg)
        self._counts: tuple[Tensor, Tensor, Tensor] | None = None

    def auroc(self) -> float:
        """Return the area under the ROC curve (:func:`~graphsparse.metrics.ranking.auroc`); NaN without non-links."""
        if self.neg.numel() == 0:
            return math.nan
        found, above, level = self._levels()
        gain = found.diff(prepend=found.new_zeros(1))
        below = self.neg.numel() - above - level
        # In whole numbers, which are exact: twice the area, so that a tie counts 1.
        double_area = int((gain * (2 * below + level)).sum())
        return double_area / (2 * self.pos.numel() * self.neg.numel())

    def average_precision(self) -> float:
        """Return the average precision, the sum of steps (:func:`~graphsparse.metrics.ranking.average_precision`)."""
        found, above, level = self._levels()
        gain = found.diff(prepend=found.new_zeros(1))
        return float((gain * (found / (found + above + level).double())).sum() / found[-1])

    def hits_at_k(self, k: int) -> float:
        """Return the fraction of links above the ``k``-th highest non-link; 1 with fewer than ``k`` non-links."""
        if self.neg.numel() < k:
            return 1.0
        return self._above(self.pos, self.neg[-k]) / self.pos.numel()

    def recall_at_ratio(
        self, ratio: float, *, ties: str = "pessimistic", seed: int = 0, require_positive_logit: bool = False
    ) -> float:
        """Return the recall at a multiple of the number of links; see the function of that name."""
        num = self.pos.numel()
        if ratio == 0:
            return self._above(self.pos, self.pos.new_zeros(())) / num
        # In fractions, since 0.29 * 100 is less than 29 in floating point.
        size = int(ratio) if ratio > 5 else math.floor(Fraction(ratio).limit_denominator(10**6) * num)
        pos = self.pos
        if require_positive_logit:
            pos = pos[num - self._above(pos, pos.new_zeros(())) :]
        if pos.numel() + self.neg.numel() <= size:
            return pos.numel() / num
        if size == 0:
            return 0.0
        level = self._kth_highest(pos, size)
        over = self._above(pos, level), self._above(self.neg, level)
        tied = self._at(pos, level), self._at(self.neg, level)
        left = size - sum(over)
        taken = max(0, left - tied[1]) if ties == "pessimistic" else _draw(tied[0], tied[1], left, seed)
        return (over[0] + taken) / num

    def _kth_highest(self, pos: Tensor, k: int) -> Tensor:
        """Return the ``k``-th highest score of links and non-links together.

        Of the ``k`` highest, ``j`` are links for some ``j``; the right one is found by bisection.
        """
        low, high = max(0, k - self.neg.numel()), min(k, pos.numel())
        while low < high:
            middle = (low + high) // 2
            # One link more among the highest: is it at least as high as the non-link that it would push out?
            if pos[-1 - middle] >= self.neg[middle - k]:
                low = middle + 1
            else:
                high = middle
        lowest = [scores[-count] for scores, count in ((pos, low), (self.neg, k - low)) if count > 0]
        return torch.stack(lowest).min()

    def _levels(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return, for each distinct score of a link, highest first, how many score so high.

        These are the links that score at least as high, the non-links that score higher, and those that score the same.
        """
        if self._counts is None:
            last = torch.ones(self.pos.numel(), dtype=torch.bool, device=self.pos.device)
            last[1:] = self.pos[1:] != self.pos[:-1]  # the first of a run in ascending order
            place = last.nonzero().squeeze(1).flip(0)
            level = self.pos[place]
            above, same = torch.empty_like(place), torch.empty_like(place)
            for start in range(0, place.numel(), _BLOCK):
                block = level[start : start + _BLOCK]
                left = torch.searchsorted(self.neg, block)
                right = torch.searchsorted(self.neg, block, right=True)
                above[start : start + _BLOCK] = self.neg.numel() - right
                same[start : start + _BLOCK] = right - left
            self._counts = self.pos.numel() - place, above, same
        return self._counts

    @staticmethod
    def _above(scores: Tensor, level: Tensor) -> int:
        return scores.numel() - int(torch.searchsorted(scores, level, right=True))

    @staticmethod
    def _at(scores: Tensor, level: Tensor) -> int:
        return int(torch.searchsorted(scores, level, right=True)) - int(torch.searchsorted(scores, level))


def check_scores(pos: Tensor, neg: Tensor) -> None:
    """Refuse scores that are no real numbers, are NaN, or have different types."""
    for name, scores in (("pos", pos), ("neg", neg)):
        if not isinstance(scores, Tensor) or scores.is_complex() or scores.dtype == torch.bool:
            kind = getattr(scores, "dtype", type(scores).__name__)
            raise TypeError(f"'{name}' must be a real-valued tensor (got {kind})")
        if scores.is_floating_point():
            flat = scores.reshape(-1)
            if any(bool(flat[start : start + _BLOCK].isnan().any()) for start in range(0, flat.numel(), _BLOCK)):
                raise ValueError(f"'{name}' must not hold NaN")
    if pos.dtype != neg.dtype:
        raise TypeError(f"'pos' and 'neg' must have the same type (got {pos.dtype} and {neg.dtype})")


def check_ties(ties: str) -> str:
    """Return a way to rank equal scores, or refuse what is none."""
    if ties not in TIES:
        raise ValueError(f"'ties' must be one of {TIES} (got {ties!r})")
    return ties


def _ascending(scores: Tensor) -> Tensor:
    scores = scores.detach()
    if scores.device.type != "cpu" or scores.dtype in (torch.bfloat16, torch.float16):
        return scores.float().sort().values if scores.dtype != torch.float64 else scores.sort().values
    # NumPy's sort is vectorised and needs no index array; torch.sort returns one.
    return torch.from_numpy(np.sort(scores.numpy()))


def _draw(good: int, bad: int, num: int, seed: int) -> int:
    """Return how many of ``num`` things drawn without replacement are good."""
    if good == 0 or num == 0:
        return 0
    if max(good, bad) >= 10**9:  # NumPy's limit
        raise ValueError(f"'ties' must be 'pessimistic' for 10^9 equal scores or more (got {good} and {bad})")
    return int(np.random.default_rng(seed).hypergeometric(good, bad, num))
