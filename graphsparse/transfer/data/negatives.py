"""Pairs of nodes without a link: those stored with a split, and those matched in degree."""

import numpy as np
import torch
from torch import Tensor

from graphsparse.ops.blocks import blocks
from graphsparse.ops.check import check_edge_index
from graphsparse.ops.pairs import Pairs, is_among, key_blocks, key_pairs, pair_keys, sort_keys, unique_keys
from graphsparse.ops.sort import stable_order
from graphsparse.transfer.data.sides import across
from graphsparse.utils.counter_random import CounterRandom, check_seed

#: Permutations after which links whose partner was refused are given up.
_PERMUTATIONS = 20


def degree_matched_negatives(
    positives: Tensor,
    num_nodes: int,
    exclude: Tensor | None = None,
    seed: int = 0,
    *,
    side: Tensor | None = None,
) -> Tensor:
    r"""Return pairs that are no links, in which each node occurs about as often as in the links.

    One end of every link stays, which of them is tossed for, and the other is permuted among the links:
    :math:`\{u_i, v_{\pi(i)}\}`. Self-loops, links and pairs that came before are refused, and what is refused is
    permuted again among itself, up to 20 times. So each node occurs as often as in the links, less its refused pairs,
    which are few in a large sparse graph. Negatives drawn uniformly have another law: a node of low degree is in more
    of them than in links, and a propagation of labels would push all its candidates down.

    Args:
        positives: Links ``[2, P]`` in any direction, repetitions allowed.
        num_nodes: Number of nodes.
        exclude: More pairs that must not come, ``[2, X]``: held-out links, other links of the graph.
        seed: Of the permutations, an integer from 0 to :math:`2^{63} - 1`.
        side: Side 0 or 1 of each node ``[N]`` where all links are between two sides, users and items, say: then so are
            the pairs, as the end on side 0 stays.

    Returns:
        Pairs ``[2, M]``, int64, ``M <= P``, the smaller end first, sorted, each once.

    Raises:
        TypeError: If a tensor of pairs is not an integer tensor, or the seed no integer.
        ValueError: If a shape, an index or the seed is out of range, or a link is not between the sides.

    Example:
        >>> star_and_ring = torch.tensor([[0, 0, 0, 4, 5, 6], [1, 2, 3, 5, 6, 4]])
        >>> negatives = degree_matched_negatives(star_and_ring, 7, seed=1)
        >>> bool((negatives[0] < negatives[1]).all()), negatives.size(1) <= 6
        (True, True)

    Source: random stubs of the configuration model; see Newman, *Networks*, 2010, section 13.2.
    """
    refused = {"positives": positives} if exclude is None else {"positives": positives, "exclude": exclude}
    for name, pairs in refused.items():
        check_edge_index(pairs, num_nodes, name)
    generator = torch.Generator().manual_seed(check_seed(seed))
    known = unique_keys(torch.cat([pair_keys(pairs.cpu(), num_nodes) for pairs in refused.values()]))
    first, second = positives.cpu().long()
    if side is None:
        coin = torch.rand(first.numel(), generator=generator) < 0.5
    else:
        if side.shape != (num_nodes,) or not bool(across(positives.cpu().long(), side.cpu()).all()):
            raise ValueError(
                f"'side' must tell the sides of {num_nodes} nodes, with both ends of a link on different ones"
            )
        coin = side.cpu()[first] == 1
    first, second = torch.where(coin, second, first), torch.where(coin, first, second)
    taken = first.new_empty(0)
    for _ in range(_PERMUTATIONS):
        if first.numel() == 0:
            break
        second = second[torch.randperm(second.numel(), generator=generator)]
        keys = pair_keys((first, second), num_nodes)
        fresh = (first != second) & ~is_among(keys, known) & ~is_among(keys, taken)
        place = fresh.nonzero().squeeze(1)
        # Of pairs that come twice in one permutation one is kept: the first in a stable order.
        ascending, order = keys[place].sort(stable=True)
        once = torch.ones_like(ascending, dtype=torch.bool)
        once[1:] = ascending[1:] != ascending[:-1]
        fresh[place[order[~once]]] = False
        taken = sort_keys(torch.cat([taken, ascending[once]]))
        first, second = first[~fresh], second[~fresh]
    return key_pairs(taken, num_nodes).to(positives.device)


class PairSpace:
    r"""All unordered pairs of nodes of which at least one end is marked, numbered without gaps.

    Drawing a number draws a pair. With :math:`T` the marked nodes and :math:`S` the others, these are the pairs within
    :math:`T`, in a triangle, and :math:`T \times S`. Nothing is stored but the nodes.

    Example:
        >>> space = PairSpace(torch.tensor([True, False, True]))
        >>> space.decode(torch.arange(space.size))
        tensor([[0, 0, 1],
                [2, 1, 2]])
    """

    def __init__(self, marked: Tensor) -> None:
        self.marked = marked
        self._inner, self._outer = marked.nonzero().view(-1), (~marked).nonzero().view(-1)
        inner, outer = self._inner.numel(), self._outer.numel()
        self._first = inner * (inner - 1) // 2
        self.size = self._first + inner * outer

    def decode(self, index: Tensor) -> Tensor:
        """Return the pairs ``[2, n]`` of numbers in ``[0, size)``, the smaller end first."""
        within = index < self._first
        pairs = torch.empty(2, index.numel(), dtype=torch.int64)
        high = _triangle_row(index[within])
        pairs[0, within] = self._inner[index[within] - high * (high - 1) // 2]
        pairs[1, within] = self._inner[high]
        row, column = key_pairs(index[~within] - self._first, self._outer.numel())
        pairs[0, ~within], pairs[1, ~within] = self._inner[row], self._outer[column]
        return torch.stack([pairs.amin(0), pairs.amax(0)])

    def holds(self, pairs: Pairs) -> Tensor:
        """Say of pairs whether they are of this space; self-loops are not looked for."""
        return self.marked[pairs[0]] | self.marked[pairs[1]]


class PairsBetween:
    r"""All pairs of a node on side 0 and one on side 1 of which at least one is marked, numbered without gaps.

    With :math:`S_i` side :math:`i` and :math:`M` the marked nodes, these are
    :math:`(S_0 \cap M) \times S_1 \cup (S_0 \setminus M) \times (S_1 \cap M)`.

    Example:
        >>> space = PairsBetween(torch.tensor([True, False, True]), torch.tensor([0, 0, 1]))
        >>> space.decode(torch.arange(space.size))
        tensor([[0, 1],
                [2, 2]])
    """

    def __init__(self, marked: Tensor, side: Tensor) -> None:
        self.marked, self.side = marked, side
        near, far = side == 0, side == 1
        sets = ((near & marked, far), (near & ~marked, far & marked))
        self._parts = [(one.nonzero().view(-1), other.nonzero().view(-1)) for one, other in sets]
        self.size = sum(one.numel() * other.numel() for one, other in self._parts)

    def decode(self, index: Tensor) -> Tensor:
        """Return the pairs ``[2, n]`` of numbers in ``[0, size)``, the smaller end first."""
        pairs, start = torch.empty(2, index.numel(), dtype=torch.int64), 0
        for one, other in self._parts:
            stop = start + one.numel() * other.numel()
            inside = (index >= start) & (index < stop)
            row, column = key_pairs(index[inside] - start, other.numel())
            pairs[0, inside], pairs[1, inside] = one[row], other[column]
            start = stop
        return torch.stack([pairs.amin(0), pairs.amax(0)])

    def holds(self, pairs: Pairs) -> Tensor:
        """Say of pairs whether they are of this space."""
        return across(torch.stack([*pairs]), self.side) & (self.marked[pairs[0]] | self.marked[pairs[1]])


def _triangle_row(index: Tensor) -> Tensor:
    """Return the largest h with h (h - 1) / 2 <= index."""
    row = ((1 + (1 + 8 * index.double()).sqrt()) / 2).floor().long()
    # The root of a float is one off at most: numbers of pairs are below 2**53.
    row -= (row * (row - 1) // 2 > index).long()
    row += ((row + 1) * row // 2 <= index).long()
    return row


def draw_non_links(space: PairSpace | PairsBetween, num: int, links: Tensor, *, seed: int) -> Tensor:
    """Draw different pairs of a space, none of them a link, uniformly: int64 ``[2, num]`` in the order of the draws.

    Where most pairs of the space are free, numbers are drawn and those of links or drawn before dropped; where few are,
    all free ones are listed, which are then no more than a few times the links or what is asked for.

    Args:
        space: Pairs that may be drawn, of as many nodes as ``links``' keys are made with.
        num: How many.
        links: Sorted keys of all links without their directions.
        seed: Equal seeds give equal pairs on every device and in every release.
    """
    if num == 0:
        return torch.empty(2, 0, dtype=torch.int64)
    num_nodes = space.marked.numel()
    free = space.size - sum(int(space.holds((u, v)).count_nonzero()) for _, u, v in key_blocks(links, num_nodes))
    if free < num:
        raise ValueError(
            f"{num} different non-links are needed, but the target has only {free} pairs of the kind of the held-out "
            "links that are no link: take fewer with 'num_neg', or hold out fewer links"
            + ("; or draw them from all pairs of nodes with between='any'" if isinstance(space, PairsBetween) else "")
        )

    def no_links(index: Tensor) -> Tensor:
        return index[~is_among(pair_keys(space.decode(index), num_nodes), links)]

    if 2 * num >= free or 8 * free < space.size:
        index = torch.cat([no_links(torch.arange(where.start, where.stop)) for where in blocks(space.size)])
        order = stable_order(CounterRandom(seed, "choose non-links").words(index.numel()), 1 << 32)
        return space.decode(index[order[:num].long()])
    index, turn = torch.empty(0, dtype=torch.int64), 0
    while index.numel() < num:  # at least every sixteenth draw is kept
        count = int(1.2 * (num - index.numel())) + 64
        words = CounterRandom(seed, f"draw non-links {turn}").words(2 * count)
        # 63 bits over fewer than 2**53 pairs: the remainder prefers some by less than one in a thousand.
        drawn = ((words[:count] >> 1) << 32 | words[count:]) % space.size
        index = _first_of_each(torch.cat([index, *(no_links(drawn[where]) for where in blocks(count))]))
        turn += 1
    return space.decode(index[:num])


def _first_of_each(index: Tensor) -> Tensor:
    """Drop what was there before, and keep the order."""
    _, first = np.unique(index.numpy(), return_index=True)
    first.sort()
    return index[torch.from_numpy(first)]


def turn_non_links(pairs: Tensor, links: Tensor, marked: Tensor, *, seed: int) -> Tensor:
    """Give pairs of nodes ``[2, Q]`` a direction, so that it does not tell them from directed links ``[2, P]``.

    Pairs of one kind of nodes, ``marked`` bool ``[N]`` or not, are turned at random, either way as likely; pairs of
    both kinds begin with a marked node as often as the links do that have both.

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
