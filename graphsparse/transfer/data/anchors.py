"""Pairs without a link for label propagation over pairs, matched to the links in degree."""

import torch
from torch import Tensor

from graphsparse.ops.blocks import blocks
from graphsparse.ops.check import check_edge_index
from graphsparse.ops.pairs import is_among, pair_keys
from graphsparse.utils.counter_random import check_seed

#: Permutations after which links whose partner was refused are given up.
_ROUNDS = 20


def degree_matched_negatives(
    positives: Tensor, num_nodes: int, exclude: Tensor | None = None, seed: int = 0, *, swap_ends: bool = True
) -> Tensor:
    r"""Return pairs that are no links, in which each node occurs about as often as in the links.

    One end of every link stays, the other is permuted among the links: :math:`\{u_i, v_{\pi(i)}\}`. Self-loops, links
    and pairs that came before are refused, and what is refused is permuted again among itself, up to 20 times. So each
    node occurs as often as in the links, less its refused pairs, which are few in a large sparse graph. Negatives drawn
    uniformly have another law: a node of low degree is in more of them than in links, and a propagation of labels would
    push all its candidates down.

    Args:
        positives: Links ``[2, P]`` in any direction, repetitions allowed.
        num_nodes: Number of nodes.
        exclude: More pairs that must not come, ``[2, X]``: held-out links, other links of the graph.
        seed: Of the permutations, an integer from 0 to :math:`2^{63} - 1`.
        swap_ends: Toss a coin for the end that stays. ``False`` lets the first ends stay, which keeps each end on its
            side of a bipartite graph.

    Returns:
        Pairs ``[2, M]``, int64, ``M <= P``, the smaller end first, sorted, each once.

    Raises:
        TypeError: If a tensor of pairs is not an integer tensor, or the seed no integer.
        ValueError: If a shape, an index or the seed is out of range.

    Example:
        >>> star_and_ring = torch.tensor([[0, 0, 0, 4, 5, 6], [1, 2, 3, 5, 6, 4]])
        >>> negatives = degree_matched_negatives(star_and_ring, 7, seed=1)
        >>> bool((negatives[0] < negatives[1]).all()), negatives.size(1) <= 6
        (True, True)

    Source: random stubs of the configuration model; see Newman, *Networks*, 2010, section 13.2.
    """
    check_edge_index(positives, num_nodes, "positives")
    if exclude is not None:
        check_edge_index(exclude, num_nodes, "exclude")
    generator = torch.Generator().manual_seed(check_seed(seed))
    known = torch.unique(torch.cat([_keys(pairs, num_nodes) for pairs in (positives, exclude) if pairs is not None]))
    first, second = positives.cpu().long()
    if swap_ends:
        coin = torch.rand(first.numel(), generator=generator) < 0.5
        first, second = torch.where(coin, second, first), torch.where(coin, first, second)
    taken = first.new_empty(0)
    for _ in range(_ROUNDS):
        if first.numel() == 0:
            break
        second = second[torch.randperm(second.numel(), generator=generator)]
        key = _keys(torch.stack([first, second]), num_nodes)
        fresh = (first != second) & ~is_among(key, known) & ~is_among(key, taken)
        place = fresh.nonzero().squeeze(1)
        # Of pairs that come twice in one permutation one is kept: the first in a stable order.
        ascending, order = key[place].sort(stable=True)
        once = torch.ones_like(ascending, dtype=torch.bool)
        once[1:] = ascending[1:] != ascending[:-1]
        fresh[place[order[~once]]] = False
        taken = torch.cat([taken, ascending[once]]).sort().values
        first, second = first[~fresh], second[~fresh]
    return torch.stack([taken // max(num_nodes, 1), taken % max(num_nodes, 1)]).to(positives.device)


def _keys(pairs: Tensor, num_nodes: int) -> Tensor:
    """Return one number per undirected pair."""
    key = torch.empty(pairs.size(1), dtype=torch.int64)
    for where in blocks(key.numel()):
        key[where] = pair_keys(pairs[:, where].cpu(), num_nodes)
    return key
