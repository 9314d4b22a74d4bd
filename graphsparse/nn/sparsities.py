r"""How much is removed: from each coat of a multicoated mask, and at each step of a ramp."""

import math
from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from graphsparse.ops.check import check_count, check_sparsity

#: How the thresholds of the coats follow each other.
CoatSpacing: TypeAlias = Literal["uniform", "linear", "adaptive_linear"]
#: Shape of a ramp.
Ramp: TypeAlias = Literal["linear", "cubic"]

COAT_SPACINGS = ("uniform", "linear", "adaptive_linear")
RAMPS = ("linear", "cubic", None)
#: Fraction of the steps after which a ramp has reached the final sparsity.
RAMP_END = 0.5
#: Of normalised scores: a coat whose threshold lies at or above it holds next to nothing.
ALPHA = 0.9996


def coat_sparsities(
    sparsity: float,
    coats: int,
    spacing: CoatSpacing = "uniform",
    *,
    scores: Tensor | None = None,
) -> tuple[float, ...]:
    r"""Return the sparsity of every coat, from the widest to the smallest.

    Coat :math:`n` of :math:`N` keeps a weight if the absolute value of its score is among the :math:`1 - k_n` largest;
    :math:`k_1` is ``sparsity``. With :math:`s` the absolute scores over their maximum and :math:`\sigma_s` their
    standard deviation,

    ==================== =================================================================================
    ``uniform``          :math:`k_n = k_1 + (1 - k_1) (n - 1) / N`
    ``linear``           :math:`k_n` = fraction of :math:`s` below :math:`t_n = t_1 + 3 \sigma_s (n - 1) / N`,
                         :math:`t_1` being the :math:`k_1`-quantile of :math:`s`
    ``adaptive_linear``  as linear, without the coats that have :math:`t_n \ge 0.9996`
    ==================== =================================================================================

    Args:
        sparsity: Sparsity of the first coat, in ``[0, 1)``.
        coats: Number of coats :math:`N`, at least 1.
        spacing: One of the names above.
        scores: Scores to measure, of any shape; for ``linear`` and ``adaptive_linear``. The latter is meant for scores
            of a finished search with one coat.

    Returns:
        Between 1 and ``coats`` sparsities in ``[0, 1]`` that do not fall. The first is ``sparsity`` itself; a linear
        one is 1 where no score reaches the threshold: that coat is empty in the end, yet not during a ramp.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range, or ``scores`` is missing, empty, not finite or zero throughout.

    Example:
        >>> coat_sparsities(0.5, 2)
        (0.5, 0.75)
        >>> coat_sparsities(0.25, 2, "linear", scores=torch.arange(1.0, 9.0))
        (0.25, 0.75)

    Source: Yan et al., *Multicoated and Folded Graph Neural Networks with Strong Lottery Tickets*, arXiv 2312.03236.
    """
    first = check_sparsity(sparsity)
    num = check_count(coats, "coats")
    if spacing not in COAT_SPACINGS:
        raise ValueError(f"'spacing' must be one of {COAT_SPACINGS} (got {spacing!r})")
    if spacing == "uniform":
        return tuple(first + (1 - first) * coat / num for coat in range(num))
    size = _normalised(scores, spacing)
    # The threshold of a sparsity is the smallest score it keeps, hence the one after those it removes.
    start = float(size[math.floor(first * size.numel())])
    spread = float(size.std(correction=0))
    thresholds = [start + 3 * spread * coat / num for coat in range(num)]
    valid = [t for coat, t in enumerate(thresholds) if spacing == "linear" or coat == 0 or t < ALPHA]
    below = torch.searchsorted(size, torch.tensor(valid, dtype=size.dtype)).tolist()
    return (first, *(max(first, count / size.numel()) for count in below[1:]))


def mean_square(sparsities: Sequence[float]) -> float:
    r"""Return the mean square of the number of coats on a weight, :math:`\sum_{n=1}^{N} (2 n - 1)(1 - k_n)`.

    Coats are nested: the share :math:`1 - k_n` of the weights is covered by at least :math:`n` of them.

    Example:
        >>> mean_square([0.75]), mean_square([0.5, 0.75])  # a quarter once; a quarter once, a quarter twice
        (0.25, 1.25)
    """
    return float(sum((2 * n + 1) * (1 - sparsity) for n, sparsity in enumerate(sparsities)))


def _normalised(scores: Tensor | None, spacing: str) -> Tensor:
    """Sorted absolute scores over their maximum, in float64."""
    if scores is None:
        raise ValueError(f"'scores' is needed for the spacing {spacing!r}")
    if not isinstance(scores, Tensor) or not scores.is_floating_point():
        raise TypeError(f"'scores' must be a floating point tensor (got {getattr(scores, 'dtype', type(scores))})")
    size = scores.detach().reshape(-1).to("cpu", torch.float64).abs()
    if size.numel() == 0:
        raise ValueError("'scores' must not be empty")
    top = float(size.max())
    if not math.isfinite(top) or top == 0:
        raise ValueError(f"'scores' must be finite and not all 0 (their largest absolute value is {top})")
    return size.div_(top).sort().values


def ramp_factor(step: int, total_steps: int | None, ramp: Ramp | None = "linear") -> float:
    r"""Return the fraction of the final sparsity that holds after some steps of a training.

    With :math:`t` steps done of :math:`T` and :math:`u = \min(1, 2 t / T)`, it is :math:`u` on the linear ramp and
    :math:`1 - (1 - u)^3` on the cubic one. Source: linear: Huang et al., arXiv 2211.15335; cubic: Zhu and Gupta, arXiv
    1710.01878.

    Example:
        >>> [ramp_factor(step, 8) for step in range(6)]
        [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    """
    if ramp is None or total_steps is None:
        return 1.0
    done = min(1.0, step / (RAMP_END * total_steps))
    return done if ramp == "linear" else 1 - (1 - done) ** 3
