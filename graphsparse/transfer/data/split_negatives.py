"""Non-links of a split: different pairs drawn uniformly from those that are no link of the whole target."""

import numpy as np
import torch
from torch import Tensor

from graphsparse.ops.blocks import BLOCK
from graphsparse.ops.pairs import is_among
from graphsparse.ops.sort import stable_order
from graphsparse.transfer.data.link_code import LinkCode
from graphsparse.transfer.data.pair_space import PairSpace
from graphsparse.utils.counter_random import CounterRandom


def draw_non_links(space: PairSpace, num: int, code: LinkCode, links: Tensor, *, seed: int) -> Tensor:
    """Draw different pairs uniformly and without replacement, none of them a link in either direction.

    Where most pairs of the space are free, numbers are drawn and those of links or drawn before dropped; where few are,
    all free ones are listed, which are then no more than a few times the links or what is asked for.

    Args:
        space: Pairs that may be drawn.
        num: How many.
        code: How links are numbered.
        links: Sorted numbers of all links, without their directions.
        seed: Equal seeds give equal pairs on every device and in every release.

    Returns:
        int64 ``[2, num]``, in the order in which they were drawn, each pair of nodes in one direction at most.

    Raises:
        ValueError: If there are not so many non-links.
    """
    if num == 0:
        return torch.empty(2, 0, dtype=torch.int64)
    inside = _count_inside(space, code, links)
    free = space.size - inside
    if free < num:
        raise ValueError(
            f"{num} different non-links are needed, but the target has only {free} pairs of the kind of the held-out "
            "links that are no link: take fewer with 'num_neg', or hold out fewer links"
        )
    draw = _choose if 2 * num >= free or 8 * free < space.size else _reject
    return draw(space, num, code, links, seed)


def turn_non_links(pairs: Tensor, links: Tensor, marked: Tensor, *, seed: int) -> Tensor:
    """Give pairs of nodes a direction, so that it does not tell them from directed links.

    Args:
        pairs: The pairs ``[2, Q]``.
        links: The links ``[2, P]``.
        marked: Nodes of one of two kinds, bool ``[N]``.
        seed: Equal seeds give equal directions.

    Returns:
        int64 ``[2, Q]``. Pairs of one kind of nodes are turned at random, either way as likely; pairs of both begin
        with a marked node as often as the links do that have both.

    Example:
        >>> marked = torch.tensor([False, True])
        >>> turn_non_links(torch.tensor([[0, 1], [1, 0]]), torch.tensor([[1], [0]]), marked, seed=0)
        tensor([[1, 1],
                [0, 0]])
    """
    share, count = marked_first(links, marked)
    first, second = marked[pairs]
    back = torch.where(first, 1 - share, share) if count else torch.tensor(0.5)
    back = torch.where(first != second, back, 0.5)
    return torch.where(CounterRandom(seed, "turn non-links").uniform(pairs.size(1)) < back, pairs.flip(0), pairs)


def marked_first(pairs: Tensor, marked: Tensor) -> tuple[float, int]:
    """Return how often pairs with one marked end begin with it, and how many such pairs there are.

    Example:
        >>> marked_first(torch.tensor([[0, 1, 1], [1, 0, 1]]), torch.tensor([False, True]))
        (0.5, 2)
    """
    first, second = marked[pairs]
    both = int((first != second).count_nonzero())
    return int((first & ~second).count_nonzero()) / max(both, 1), both


def _count_inside(space: PairSpace, code: LinkCode, links: Tensor) -> int:
    """Count the pairs of the space that are links."""
    count = 0
    for start in range(0, links.numel(), BLOCK):
        count += int(space.holds(code.decode(links[start : start + BLOCK])).count_nonzero())
    return count


def _choose(space: PairSpace, num: int, code: LinkCode, links: Tensor, seed: int) -> Tensor:
    """List all free pairs and choose some in random order."""
    free = []
    for start in range(0, space.size, BLOCK):
        index = torch.arange(start, min(start + BLOCK, space.size))
        free.append(index[~is_among(code.encode(space.decode(index), unordered=True), links)])
    index = torch.cat(free)
    order = stable_order(CounterRandom(seed, "choose non-links").words(index.numel()), 1 << 32)
    return space.decode(index[order[:num].long()])


def _reject(space: PairSpace, num: int, code: LinkCode, links: Tensor, seed: int) -> Tensor:
    """Draw until there are enough; at least every sixteenth draw is kept."""
    index = torch.empty(0, dtype=torch.int64)
    turn = 0
    while index.numel() < num:
        count = int(1.2 * (num - index.numel())) + 64
        words = CounterRandom(seed, f"draw non-links {turn}").words(2 * count)
        # 63 bits over fewer than 2**53 pairs: the remainder prefers some by less than one in a thousand.
        drawn = ((words[:count] >> 1) << 32 | words[count:]) % space.size
        kept = [index]
        for start in range(0, count, BLOCK):
            block = drawn[start : start + BLOCK]
            kept.append(block[~is_among(code.encode(space.decode(block), unordered=True), links)])
        index = _first_of_each(torch.cat(kept))
        turn += 1
    return space.decode(index[:num])


def _first_of_each(index: Tensor) -> Tensor:
    """Drop what was there before, and keep the order."""
    _, first = np.unique(index.numpy(), return_index=True)
    first.sort()
    return index[torch.from_numpy(first)]
