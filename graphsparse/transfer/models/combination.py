"""Scores of several rules on one scale, and their sum with weights that are not negative."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphsparse.ops.blocks import CACHED, blocks

Floats = NDArray[np.float64]
#: Parts of the scores of links, and of all scores, that a scale is fitted to.
_BINS = 20
#: Pairs that are fitted to at most, which is many for some weights and as many scales.
_MOST = 1 << 18
#: Half the penalty on the square of a weight, as a number of pairs.
_PENALTY = 1.0
#: A rule that moves the sum by less than this is left out: it would be scored for nothing.
_LEAST = 0.01


@dataclass(frozen=True, eq=False)
class Combination:
    r"""Adds up what the scores of several rules say of a pair, each on the scale of log-odds of a link.

    .. math::
        s_q = b + \sum_c w_c \, g_c(s_{cq}), \qquad w_c \ge 0

    Each :math:`g_c` is monotone: the log-odds of links among pairs that score alike, made monotone by isotonic
    regression, linear between bins, constant beyond the outer ones. So what any rule scores higher never scores lower
    in the sum. Weights are those of a logistic regression.

    Args:
        knots: Scores ``[C, K]`` between which :math:`g_c` is linear, ascending in each row, float64.
        odds: :math:`g_c` there, ``[C, K]``, not descending in any row.
        weight: :math:`w_c`, ``[C]``.
        bias: :math:`b`, a tensor of one number.

    Example:
        >>> positive = torch.arange(60) < 20
        >>> scores = torch.stack([positive + torch.arange(60) / 60, torch.arange(60) % 7.0])
        >>> found = Combination.fit(scores, positive)
        >>> [float(weight) > 0 for weight in found.weight]
        [True, False]
        >>> bool(found(scores)[positive].min() > found(scores)[~positive].max())
        True

    Source: calibration as in Zadrozny and Elkan, *Transforming classifier scores into accurate multiclass probability
    estimates*, KDD 2002; the sum is stacking (Wolpert, Neural Networks 5, 1992) with weights as in Breiman, *Stacked
    regressions*, Machine Learning 24, 1996.
    """

    knots: Tensor
    odds: Tensor
    weight: Tensor
    bias: Tensor

    @classmethod
    def fit(cls, scores: Tensor, positive: Tensor) -> "Combination":
        """Fit scales and weights to pairs of which it is known whether they are links.

        Args:
            scores: Scores ``[C, Q]`` of each rule.
            positive: Whether each pair is a link, bool ``[Q]``, with some of either kind.
        """
        step = -(-positive.numel() // _MOST)
        values = scores[:, ::step].double().numpy()
        label = positive[::step].double().numpy()
        scales = [_scale(row, label) for row in values]
        width = max(len(x) for x, _ in scales)
        knots, odds = (
            np.stack([np.pad(scale[i], (0, width - len(scale[i])), "edge") for scale in scales]) for i in (0, 1)
        )
        on_scale = np.stack([np.interp(row, *scale) for row, scale in zip(values, scales, strict=True)])
        weight, bias = _logistic(on_scale, label)
        weight[weight * np.ptp(odds, axis=1) < _LEAST] = 0.0
        return cls(*(torch.as_tensor(value) for value in (knots, odds, weight, bias)))

    def __call__(self, scores: Tensor) -> Tensor:
        """Return the sum, float32 ``[Q]``, for scores ``[C, Q]``, of which those of weight 0 are not read."""
        found = torch.empty(scores.size(1))
        for where in blocks(found.numel(), CACHED):
            total = self.bias.expand(found[where].shape).clone()
            for c in self.weight.nonzero().view(-1).tolist():
                value = np.interp(scores[c, where].double().numpy(), self.knots[c].numpy(), self.odds[c].numpy())
                total += self.weight[c] * torch.from_numpy(value)
            found[where] = total.float()
        return found

    def only(self, rules: Tensor) -> "Combination":
        """Return the same for some of the rules ``[c]``, in their order; all others must have weight 0."""
        return Combination(self.knots[rules], self.odds[rules], self.weight[rules], self.bias)


def cross_fitted(scores: Tensor, positive: Tensor, seed: int, folds: int = 5) -> Tensor:
    """Return for each pair the sum of a combination that was fitted without it: links and others are dealt to folds.

    Example:
        >>> positive = torch.arange(60) < 20
        >>> cross_fitted(torch.rand(3, 60), positive, seed=0).shape
        torch.Size([60])
    """
    generator = torch.Generator().manual_seed(seed)
    fold = torch.empty_like(positive, dtype=torch.int64)
    for kind in (positive, ~positive):
        fold[kind] = torch.randperm(int(kind.sum()), generator=generator) % folds
    found = torch.empty(positive.numel())
    for number in range(folds):
        inside = fold == number
        found[inside] = Combination.fit(scores[:, ~inside], positive[~inside])(scores[:, inside])
    return found


def _scale(score: Floats, label: Floats) -> tuple[Floats, Floats]:
    """Return scores, ascending, and the log-odds of a link there."""
    from scipy.optimize import isotonic_regression  # slow to import

    levels = np.linspace(0, 1, _BINS + 1)
    edges = np.unique(np.concatenate([np.quantile(score, levels), np.quantile(score[label > 0], levels)]))
    place = np.searchsorted(edges, score, side="right") - 1
    count, links, total = (np.bincount(place, values, len(edges)) for values in (None, label, score))
    some = count > 0
    count, links, x = count[some], links[some], total[some] / count[some]
    # As if there were two more pairs in each bin, with the share of links that there is in all.
    rate = isotonic_regression((links + 2 * label.mean()) / (count + 2), weights=count).x
    return x, np.log(rate / (1 - rate))


def _logistic(x: Floats, label: Floats) -> tuple[Floats, Floats]:
    """Return weights ``[C]`` that are not negative, and the bias, of a logistic regression on ``x``, ``[C, Q]``."""
    from scipy.optimize import minimize

    def loss(w: Floats) -> tuple[float, Floats]:
        z = w[:-1] @ x + w[-1]
        rest = 1 / (1 + np.exp(-z)) - label
        value = float((np.logaddexp(0, z) - label * z).sum() + _PENALTY / 2 * (w[:-1] ** 2).sum())
        return value, np.append(x @ rest + _PENALTY * w[:-1], rest.sum())

    bounds = [*[(0, None)] * len(x), (None, None)]
    found = minimize(loss, np.zeros(len(x) + 1), jac=True, method="L-BFGS-B", bounds=bounds).x
    return found[:-1], found[-1]
