"""Random choices, all from one generator, without a loop over what is chosen for."""

import torch
from torch import Tensor


def new_generator(seed: int) -> torch.Generator:
    """Return a generator for a seed; its stream is another one than that of initial weights of the same seed.

    Example:
        >>> torch.equal(torch.rand(2, generator=new_generator(0)), torch.rand(2, generator=new_generator(0)))
        True
    """
    return torch.Generator().manual_seed((seed + 1) * 0x9E3779B97F4A7C15 % 2**63)


def uniform(*size: int, generator: torch.Generator) -> Tensor:
    """Return float64 numbers in ``[0, 1)``."""
    return torch.rand(*size, dtype=torch.float64, generator=generator)


def cumulative(weight: Tensor) -> Tensor:
    """Return the running sum of weights ``[n]``, divided by their sum, float64; empty where every weight is 0."""
    total = weight.to(torch.float64).cumsum(0)
    if total.numel() == 0 or total[-1] == 0:
        return total[:0]
    return total / total[-1]  # exactly 1 at the last positive weight, so that a weight of 0 is never drawn


def from_cumulative(total: Tensor, num: int, generator: torch.Generator) -> Tensor:
    """Draw positions ``[num]`` independently, in proportion to weights of which :func:`cumulative` made ``total``.

    Nothing is drawn where every weight is 0.

    Example:
        >>> from_cumulative(cumulative(torch.tensor([0.0, 2.0, 0.0])), 3, new_generator(0))
        tensor([1, 1, 1])
    """
    if total.numel() == 0:
        return torch.empty(0, dtype=torch.int64)
    return torch.searchsorted(total, uniform(num, generator=generator), right=True)


def distinct_below(limit: Tensor, num: int, generator: torch.Generator) -> Tensor:
    """Draw ``num`` distinct integers below each limit, every set of them with the same probability.

    Floyd's algorithm for all limits at once: step ``i`` draws up to ``limit - num + i``, and takes that number itself
    where the drawn one was taken before.

    Args:
        limit: Integers ``[n]``, at least ``num``.
        num: Number of draws for each.
        generator: Source of all randomness.

    Returns:
        Integers ``[n, num]``.

    Example:
        >>> distinct_below(torch.tensor([2, 2]), 2, new_generator(0)).sort(1).values
        tensor([[0, 1],
                [0, 1]])

    Source: Bentley and Floyd, *A sample of brilliance*, Communications of the ACM 30 (1987).
    """
    draw = uniform(limit.numel(), num, generator=generator)
    chosen = torch.empty(limit.numel(), num, dtype=torch.int64)
    for i in range(num):
        last = limit - num + i
        drawn = torch.minimum((draw[:, i] * (last + 1)).long(), last)
        taken = (chosen[:, :i] == drawn[:, None]).any(1)
        chosen[:, i] = torch.where(taken, last, drawn)
    return chosen


def start_of_order(total: int, num: int, generator: torch.Generator) -> Tensor:
    """Return the first ``num`` of ``0, 1, ..., total - 1`` in random order, at a cost that grows with ``num`` alone.

    Numbers are drawn one after the other, and those that were drawn before are passed over, until there are enough.

    Args:
        total: Number of numbers.
        num: How many to return, at most ``total``.
        generator: Source of all randomness.

    Returns:
        Distinct integers ``[num]``; every sequence has the same probability.

    Example:
        >>> start_of_order(10**15, 3, new_generator(0)).unique().numel()
        3
    """
    if 4 * num >= total:
        return torch.randperm(total, generator=generator)[:num]
    chosen = torch.empty(0, dtype=torch.int64)
    while chosen.numel() < num:
        more = num - chosen.numel()
        drawn = torch.cat([chosen, torch.randint(total, (more,), generator=generator)])
        value, place = drawn.sort(stable=True)
        first = torch.ones_like(value, dtype=torch.bool)
        first[1:] = value[1:] != value[:-1]
        chosen = drawn[place[first].sort().values]
    return chosen
