"""Distances and angles of ingredients, from inner products of two of them at a time."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from graphsparse.soups.states.states import State, States


@dataclass(frozen=True, eq=False)
class Geometry:
    """Where ingredients lie, as vectors of their parameters.

    Args:
        distances: Of each from the mean, float64 ``[N]``.
        angles: Of each to the mean, in degrees, ``[N]``.
        pair_distances: Of each from each other, ``[N, N]``.
        pair_angles: Of each to each other, in degrees, ``[N, N]``.
    """

    distances: Tensor
    angles: Tensor
    pair_distances: Tensor
    pair_angles: Tensor


@torch.no_grad()
def geometry(states: States, names: Sequence[str]) -> Geometry:
    r"""Measure distances and angles of state dicts.

    With the differences :math:`\delta_i = \theta_i - \theta_0` from the first and their inner products
    :math:`G_{ij} = \langle \delta_i, \delta_j \rangle`,

    .. math:: \lVert \theta_i - \bar\theta \rVert^2 = G_{ii} - \frac{2}{N} \sum_j G_{ij} + \frac{1}{N^2}\sum_{jk} G_{jk}

    Everything is added up in float64. Differences, and not the vectors themselves, because those of ingredients are
    nearly equal: their products would cancel to nothing but rounding. At most three states are in memory,
    :math:`N (N + 1) / 2` are read.

    Args:
        states: State dicts.
        names: Names of the tensors that count.

    Example:
        >>> states = [{"w": torch.tensor([1.0, 0.0])}, {"w": torch.tensor([0.0, 1.0])}]
        >>> found = geometry(states, ["w"])
        >>> [round(float(angle), 3) for angle in (found.angles[0], found.pair_angles[0, 1])]
        [45.0, 90.0]
    """
    count = len(states)
    origin = states[0]
    gram = torch.zeros(count, count, dtype=torch.float64)
    along = torch.zeros(count, dtype=torch.float64)  # products of the differences with the first state
    for i in range(1, count):
        first = states[i]
        along[i] = _product(first, origin, origin, names, centred=False)
        for j in range(i, count):
            second = first if j == i else states[j]
            gram[i, j] = gram[j, i] = _product(first, second, origin, names)
            del second  # before the next one is read
        del first
    squared = sum((float(origin[name].double().square().sum()) for name in names), 0.0)
    norms = (squared + 2 * along + gram.diagonal()).clamp(min=0).sqrt()
    mean_norm = (squared + 2 * along.mean() + gram.mean()).clamp(min=0).sqrt()
    distances = (gram.diagonal() - 2 * gram.mean(dim=1) + gram.mean()).clamp(min=0).sqrt()
    pairs = (gram.diagonal().view(-1, 1) + gram.diagonal() - 2 * gram).clamp(min=0).sqrt()
    return Geometry(
        distances, angle(norms, mean_norm, distances), pairs, angle(norms.view(-1, 1), norms.view(1, -1), pairs)
    )


def _product(first: State, second: State, origin: State, names: Sequence[str], centred: bool = True) -> float:
    """Return the inner product of two differences from the first state, or of one of them with that state."""
    total = 0.0
    for name in names:
        start = origin[name].double().reshape(-1)
        left = first[name].double().reshape(-1) - start
        right = second[name].double().reshape(-1)
        total += float(left @ (right - start if centred else right))
    return total


def angle(first: Tensor, second: Tensor, opposite: Tensor) -> Tensor:
    r"""Return the angle between two sides of a triangle in degrees, accurately for the smallest ones too.

    The arc cosine of a normalised inner product has an error of about :math:`10^{-6}` degrees near 0.

    Args:
        first: Length of one side.
        second: Length of the other.
        opposite: Length of the third.

    Returns:
        Angles; not a number where one of the sides has no length.

    Example:
        >>> round(float(angle(*torch.tensor([[3.0], [4.0], [5.0]]))), 3)
        90.0

    Source: Kahan, *Miscalculating Area and Angles of a Needle-like Triangle*, 2014.
    """
    long, short = torch.maximum(first, second), torch.minimum(first, second)
    rest = torch.where(short >= opposite, opposite - (long - short), short - (long - opposite)).clamp(min=0)
    above = ((long - short) + opposite) * rest
    below = ((long + (short + opposite)) * ((long - opposite) + short)).clamp(min=0)
    found = 2 * torch.atan2(above.sqrt(), below.sqrt()) * (180 / torch.pi)
    return torch.where(short > 0, found, torch.nan)
