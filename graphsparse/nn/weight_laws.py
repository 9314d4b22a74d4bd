"""Laws of frozen weights and of initial scores, drawn so that every device gets the same bits."""

import math
from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from graphsparse.ops.check import check_real
from graphsparse.utils.counter_random import CounterRandom

#: Law of the frozen weights.
WeightLaw: TypeAlias = Literal["kaiming_uniform", "kaiming_normal", "signed_constant"]
#: Law of the initial scores.
ScoreLaw: TypeAlias = Literal["kaiming_uniform", "edge_popup", "kaiming_normal_fan_out"]

WEIGHT_LAWS = ("kaiming_uniform", "kaiming_normal", "signed_constant")
SCORE_LAWS = ("kaiming_uniform", "edge_popup", "kaiming_normal_fan_out")


def fan_in(shape: Sequence[int]) -> int:
    r"""Return the number of inputs of one output: the product of all sizes but the first.

    This is PyTorch's rule. A matrix ``[out, in]`` has ``in``, an attention vector ``[1, heads, C]`` has
    :math:`heads \cdot C`. A vector counts as one row, so it has its length.

    Args:
        shape: Sizes of the tensor.

    Raises:
        ValueError: If the tensor has no dimension or no entry.

    Example:
        >>> fan_in((256, 1433)), fan_in((1, 8, 32))
        (1433, 256)
    """
    shape = tuple(shape)
    if not shape or math.prod(shape) == 0:
        raise ValueError(f"'shape' must have at least one dimension and one entry (got {list(shape)})")
    return math.prod(shape[1:]) if len(shape) > 1 else shape[0]


def _fan_out(shape: Sequence[int]) -> int:
    return shape[0] * math.prod(shape[2:]) if len(shape) > 1 else 1


def draw_weight(
    shape: Sequence[int],
    law: WeightLaw = "kaiming_uniform",
    *,
    seed: int,
    name: str,
    mean_square: float = 1.0,
    device: torch.device | str | None = None,
) -> Tensor:
    r"""Draw the frozen weights of one tensor, a function of the seed and the name of the tensor alone.

    With :math:`f` the :func:`fan_in` and the gain of ReLU, the laws are

    ==================== ==================================================================================
    ``kaiming_uniform``  :math:`U(-b, b)` with :math:`b = \sqrt{6 / f}`
    ``kaiming_normal``   :math:`N(0, \sigma^2)` with :math:`\sigma = \sqrt{2 / f}`
    ``signed_constant``  :math:`\pm \sigma` with equal chance
    ==================== ==================================================================================

    Args:
        shape: Sizes of the tensor.
        law: One of the names above.
        seed: Seed of all tensors of a model.
        name: Name of this one.
        mean_square: Divide by its root, so that the product with a mask of this mean square has the variance that the
            whole would have had; 1 leaves the weights as they are.
        device: Where to draw; the numbers do not depend on it.

    Returns:
        float32 weights of the shape.

    Raises:
        TypeError: If ``seed``, ``name`` or ``mean_square`` has the wrong type.
        ValueError: If the law is unknown, the shape is empty or ``mean_square`` is not finite and above 0.

    Example:
        >>> draw_weight((2, 3), "signed_constant", seed=0, name="weight")
        tensor([[ 0.8165,  0.8165, -0.8165],
                [-0.8165,  0.8165,  0.8165]])

    Source: He et al., arXiv 1502.01852; Ramanujan et al., arXiv 1911.13299, for the signed constant and the scaling.
    """
    kept = check_mean_square(mean_square)
    stream = _stream("weight", seed, name)
    if law == "kaiming_uniform":
        return _uniform(stream, shape, math.sqrt(6 / (fan_in(shape) * kept)), device)
    scale = _single(math.sqrt(2 / (fan_in(shape) * kept)))
    if law == "kaiming_normal":
        return stream.normal(math.prod(shape), device=device).mul_(scale).view(tuple(shape))
    if law == "signed_constant":
        return stream.signs(math.prod(shape), device=device).mul_(scale).view(tuple(shape))
    raise ValueError(f"'law' must be one of {WEIGHT_LAWS} (got {law!r})")


def check_mean_square(mean_square: float) -> float:
    """Refuse what can be no mean square of a mask."""
    mean_square = check_real(mean_square, "mean_square")
    if not 0 < mean_square < math.inf:
        raise ValueError(f"'mean_square' must be finite and above 0 (got {mean_square!r})")
    return mean_square


def draw_scores(
    shape: Sequence[int],
    law: ScoreLaw = "kaiming_uniform",
    *,
    seed: int,
    name: str,
    device: torch.device | str | None = None,
) -> Tensor:
    r"""Draw the initial scores of one tensor, independent of its weights.

    ============================ ==========================================================================
    ``kaiming_uniform``          :math:`U(-b, b)` with :math:`b = \sqrt{6 / f}`, the law of the weights
    ``edge_popup``               the same with :math:`b = \sqrt{1 / f}`
    ``kaiming_normal_fan_out``   :math:`N(0, 2 / f')` with :math:`f'` the fan-out
    ============================ ==========================================================================

    Args:
        shape: Sizes of the tensor.
        law: One of the names above.
        seed: Seed of all tensors of a model.
        name: Name of this one.
        device: Where to draw; the numbers do not depend on it.

    Returns:
        float32 scores of the shape.

    Raises:
        TypeError: If ``seed`` or ``name`` has the wrong type.
        ValueError: If the law is unknown or the shape is empty.

    Example:
        >>> bool(draw_scores((4, 100), "edge_popup", seed=0, name="weight").abs().max() < 0.1)
        True
    """
    stream = _stream("score", seed, name)
    inputs = fan_in(shape)
    if law == "kaiming_uniform":
        return _uniform(stream, shape, math.sqrt(6 / inputs), device)
    if law == "edge_popup":
        return _uniform(stream, shape, math.sqrt(1 / inputs), device)
    if law == "kaiming_normal_fan_out":
        scale = _single(math.sqrt(2 / _fan_out(shape)))
        return stream.normal(math.prod(shape), device=device).mul_(scale).view(tuple(shape))
    raise ValueError(f"'law' must be one of {SCORE_LAWS} (got {law!r})")


def _stream(kind: str, seed: int, name: str) -> CounterRandom:
    if not isinstance(name, str):
        raise TypeError(f"'name' must be a string (got {type(name).__name__})")
    return CounterRandom(seed, f"{kind}:{name}")


def _uniform(stream: CounterRandom, shape: Sequence[int], bound: float, device: torch.device | str | None) -> Tensor:
    # 2u - 1 is exact, so that each number is rounded once.
    draw = stream.uniform(math.prod(shape), device=device)
    return draw.mul_(2).sub_(1).mul_(_single(bound)).view(tuple(shape))


def _single(value: float) -> float:
    """Round to float32 here, not where a device does it."""
    return float(np.float32(value))
