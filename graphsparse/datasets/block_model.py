"""Edges of a random graph with classes, hubs and nodes between the classes, drawn without a loop over edges."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

#: How often edges that came out twice are drawn again before the graph is called too dense.
_ROUNDS = 200


def power_law(num: int, exponent: float, cutoff: float, rng: np.random.Generator) -> Floats:
    """Return ``num`` numbers with mean 1 whose density falls as a power: its quantiles, in random order.

    Args:
        num: How many.
        exponent: The density falls as ``value ** -exponent``; above 2, or there is no mean.
        cutoff: About the largest number allowed; at least 1 is.
        rng: Source of the order.

    Example:
        >>> weight = power_law(1000, 2.5, 50.0, np.random.default_rng(0))
        >>> f"mean {weight.mean():.2f}, largest {weight.max():.0f}"
        'mean 1.00, largest 50'
    """
    quantile = ((np.arange(num) + 0.5) / num) ** (-1.0 / (exponent - 1.0))
    weight = np.minimum(quantile / quantile.mean(), max(cutoff, 1.0))
    return rng.permutation(weight / weight.mean())


def draw_edges(
    label: Ints, popularity: Floats, loyalty: Floats, num_edges: int, num_same: int, rng: np.random.Generator
) -> Tensor:
    r"""Draw exactly ``num_edges`` distinct undirected edges, exactly ``num_same`` of them within a class.

    Every node starts one edge (as many as there are edges for), the others start at nodes drawn uniformly. The
    ``num_same`` starts for which a uniform number falls furthest below the loyalty :math:`\lambda` of their node look
    for their end in their own class, the others outside:

    .. math::
        P(v \mid u) \propto \theta_v \lambda_v\, [y_u = y_v] \quad\text{or}\quad
        P(v \mid u) \propto \theta_v (1 - \lambda_v)\, [y_u \neq y_v],

    with the popularity :math:`\theta`. Loops and pairs that are there already are drawn again.

    Args:
        label: Class of each node, ``[N]``, from 0 on without gaps.
        popularity: :math:`\theta`, ``[N]``, positive.
        loyalty: :math:`\lambda`, ``[N]``, in ``[0, 1]``.
        num_edges: Number of undirected edges.
        num_same: Number of those within a class.
        rng: Source of all draws.

    Returns:
        ``edge_index`` ``[2, 2 * num_edges]`` int64, both directions of each edge, sorted by row, then column.

    Raises:
        ValueError: If the edges find no place.

    Example:
        >>> label = np.arange(100) % 4
        >>> edge_index = draw_edges(label, np.ones(100), np.full(100, 0.7), 150, 120, np.random.default_rng(0))
        >>> edge_index.shape
        torch.Size([2, 300])

    Source: Karrer and Newman, "Stochastic blockmodels and community structure in networks", Physical Review E 83,
    016107 (2011), Section III; ends and starts weighted apart as in Zhu, Yan and Moore, "Oriented and
    degree-generated block models", Journal of Complex Networks 2 (2014), Section 2. Exact totals are ours.
    """
    num = len(label)
    if num_edges >= num:
        source = np.concatenate([np.arange(num), rng.integers(num, size=num_edges - num)])
    else:
        source = rng.permutation(num)[:num_edges]
    same = np.zeros(num_edges, dtype=np.bool_)
    same[np.argsort(rng.random(num_edges) - loyalty[source], kind="stable")[:num_same]] = True

    # With the nodes in the order of their classes, each class is an interval of both lines.
    order = np.argsort(label, kind="stable")
    bound = np.concatenate([[0], np.bincount(label).cumsum()])
    home = np.concatenate([[0.0], (popularity * loyalty)[order].cumsum()])
    away = np.concatenate([[0.0], (popularity * (1.0 - loyalty))[order].cumsum()])

    done: Ints = np.empty(0, dtype=np.int64)  # one key per edge, sorted
    for _ in range(_ROUNDS):
        target = np.empty_like(source)
        first, last = bound[label[source]], bound[label[source] + 1]
        draw = rng.random(len(source))
        low, high = home[first[same]], home[last[same]]
        target[same] = _find(home, low + draw[same] * (high - low))
        # Here the interval of the own class is cut out of the line.
        low, high = away[first[~same]], away[last[~same]]
        place = draw[~same] * (away[-1] - (high - low))
        target[~same] = _find(away, place + np.where(place >= low, high - low, 0.0))
        target = order[target]

        key = np.minimum(source, target) * num + np.maximum(source, target)
        # The second test catches a draw that rounding moved over the border of a class.
        good = (source != target) & ((label[source] == label[target]) == same)
        good[good] = _is_first(key[good])
        good[good] = ~_is_member(key[good], done)
        done = np.concatenate([done, key[good]])
        done.sort()
        source, same = source[~good], same[~good]
        if len(source) == 0:
            both = np.concatenate([done, done % num * num + done // num])
            both.sort()
            return torch.from_numpy(np.stack([both // num, both % num]))
    raise ValueError(f"'num_edges' is {num_edges}, but {len(source)} of them found no place between {num} nodes")


def _find(line: Floats, place: Floats) -> Ints:
    """Return the index of the interval of the line on which each place lies."""
    return np.minimum(np.searchsorted(line, place, side="right") - 1, len(line) - 2)


def _is_first(key: Ints) -> Bools:
    """Say of each element whether it is the first of its value."""
    order = np.argsort(key, kind="stable")
    first = np.ones(len(key), dtype=np.bool_)
    first[order[1:]] = key[order[1:]] != key[order[:-1]]
    return first


def _is_member(key: Ints, sorted_keys: Ints) -> Bools:
    """Say of each element whether it is among the sorted ones."""
    if len(sorted_keys) == 0:
        return np.zeros(len(key), dtype=np.bool_)
    place = np.minimum(np.searchsorted(sorted_keys, key), len(sorted_keys) - 1)
    found: Bools = sorted_keys[place] == key
    return found
