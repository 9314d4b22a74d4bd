"""Laws of frozen weights and of initial scores, drawn so that every device gets the same bits."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from graphsparse.utils.counter_random import CounterRandom

#: Law of the frozen weights.
WeightLaw: TypeAlias = Literal["kaiming_uniform", "kaiming_normal", "signed_constant"]
#: Law of the initial scores.
ScoreLaw: TypeAlias = Literal["kaiming_uniform", "edge_popup"]

WEIGHT_LAWS = ("kaiming_uniform", "kaiming_normal", "signed_constant")
SCORE_LAWS = ("kaiming_uniform", "edge_popup")
#: What is drawn, and its squared scale times the number of inputs.
_LAWS = {
    "kaiming_uniform": ("uniform", 6),
    "kaiming_normal": ("normal", 2),
    "signed_constant": ("signs", 2),
    "edge_popup": ("uniform", 1),
}


@dataclass(frozen=True)
class SupermaskLaw:
    r"""By which laws the frozen weights and the initial scores of a :class:`~graphsparse.nn.Supermask` are drawn.

    With :math:`f` the number of inputs of an output, and the gain of ReLU, the laws are

    ==================== ==================================================================================
    ``kaiming_uniform``  :math:`U(-b, b)` with :math:`b = \sqrt{6 / f}`
    ``kaiming_normal``   :math:`N(0, \sigma^2)` with :math:`\sigma = \sqrt{2 / f}`; weights only
    ``signed_constant``  :math:`\pm \sigma` with equal chance; weights only
    ``edge_popup``       :math:`U(-b, b)` with :math:`b = \sqrt{1 / f}`; scores only
    ==================== ==================================================================================

    Args:
        weights: Law of the weights.
        scores: Law of the scores, which are independent of the weights.
        scaled: Scale the weights so that the masked ones have the variance of the whole: by
            :math:`1 / \sqrt{1 - \mathrm{sparsity}}`, and with several coats by :math:`1 / \sqrt{\mathrm{E}[m^2]}`
            with the number :math:`m` of coats on a weight. ``"first"`` takes the sparsity of the first coat for any
            number of them, as published; with more coats the signal then grows, which attention does not bear.

    Raises:
        TypeError: If ``scaled`` is neither a bool nor ``"first"``.
        ValueError: If a law is unknown.

    Example:
        >>> SupermaskLaw("signed_constant", scaled=True)
        SupermaskLaw(weights='signed_constant', scores='kaiming_uniform', scaled=True)

    Source: He et al., arXiv 1502.01852; Ramanujan et al., arXiv 1911.13299, for the signed constant and the scaling.
    """

    weights: WeightLaw = "kaiming_uniform"
    scores: ScoreLaw = "kaiming_uniform"
    scaled: bool | Literal["first"] = False

    def __post_init__(self) -> None:
        """Check the laws."""
        for name, value, known in (("weights", self.weights, WEIGHT_LAWS), ("scores", self.scores, SCORE_LAWS)):
            if value not in known:
                raise ValueError(f"law of {name!r} must be one of {known} (got {value!r})")
        if not isinstance(self.scaled, bool) and self.scaled != "first":
            raise TypeError(f"'scaled' must be a bool or 'first' (got {self.scaled!r})")


def draw_weight(
    shape: Sequence[int],
    law: WeightLaw = "kaiming_uniform",
    *,
    seed: int,
    name: str,
    mean_square: float = 1.0,
    device: torch.device | str | None = None,
) -> Tensor:
    """Draw the frozen float32 weights of one tensor, a function of the seed and the name of the tensor alone.

    They are divided by the root of ``mean_square``, so that the product with a mask of this mean square has the
    variance that the whole would have had.

    Example:
        >>> draw_weight((2, 3), "signed_constant", seed=0, name="weight")
        tensor([[ 0.8165,  0.8165, -0.8165],
                [-0.8165,  0.8165,  0.8165]])
    """
    return _draw("weight", shape, law, seed, name, mean_square, device)


def draw_scores(
    shape: Sequence[int],
    law: ScoreLaw = "kaiming_uniform",
    *,
    seed: int,
    name: str,
    device: torch.device | str | None = None,
) -> Tensor:
    """Draw the initial float32 scores of one tensor, independent of its weights."""
    return _draw("score", shape, law, seed, name, 1.0, device)


def _draw(
    kind: str,
    shape: Sequence[int],
    law: str,
    seed: int,
    name: str,
    mean_square: float,
    device: torch.device | str | None,
) -> Tensor:
    stream, number = CounterRandom(seed, f"{kind}:{name}"), math.prod(shape)
    what, square = _LAWS[law]
    # Rounded to float32 here, not where a device does it.
    scale = float(np.float32(math.sqrt(square / (fan_in(shape) * mean_square))))
    if what == "normal":
        drawn = stream.normal(number, device=device)
    elif what == "signs":
        drawn = stream.signs(number, device=device)
    else:
        drawn = stream.uniform(number, device=device).mul_(2).sub_(1)  # exact, so that each number is rounded once
    return drawn.mul_(scale).view(tuple(shape))


def fan_in(shape: Sequence[int]) -> int:
    """Return the number of inputs of one output, as torch counts them; a vector counts as one row."""
    return math.prod(shape[1:]) if len(shape) > 1 else shape[0]
