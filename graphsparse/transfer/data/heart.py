"""Non-links that are hard to tell from a link: they keep one of its ends, and heuristics rank them high."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphsparse.ops.blocks import blocks_by_size
from graphsparse.ops.pairs import is_among, key_pairs, pair_keys, sort_keys
from graphsparse.transfer.data.reach import Ints, Reach, in_blocks
from graphsparse.utils.counter_random import CounterRandom

#: Nodes that are looked at together for those that no heuristic reaches.
_BLOCK = 1 << 22
#: Walks are pushed until less than this per degree is left at each node, or less than the second number over the mean
#: degree squared, so that they get two steps far in dense graphs too.
_TOL, _TWO_STEPS = 1e-5, 0.1


def heart_negatives(
    links: Tensor, train: Tensor, known: Tensor, kind: Tensor, num_neg: int, *, seed: int = 0
) -> Tensor:
    r"""Return hard non-links of each link (u, v): half of them keep u, half keep v.

    For an end that is kept all nodes are ranked by resource allocation and, apart from that, by personalised PageRank
    (to within 1e-5 times a node's degree) along the training links; a node's rank is the better of the two, then the
    other one. Taken are the highest that are no link and of the same kind as the end whose place they take. Scores that
    differ by less than a millionth, and nodes that neither reaches, are in an order that is drawn. Each end is served
    once, however many links it has.

    Args:
        links: Links that are held out ``[2, P]``.
        train: Links that are known, ``[2, T]``, the only ones that the heuristics see.
        known: Sorted keys of all links without their directions, none of which is taken.
        kind: A small number for each node ``[N]``.
        num_neg: Non-links for each link; the first end has one more where it is odd.
        seed: Of the order of equal ones.

    Returns:
        Pairs ``[2, P * num_neg]``; entries ``i * num_neg`` on are link ``i``'s, with the end that is kept in its place.

    Raises:
        ValueError: If an end has too few non-links.

    Example:
        >>> ring = torch.stack([torch.arange(9), (torch.arange(9) + 1) % 9])
        >>> known = pair_keys(ring, 9).sort().values
        >>> heart_negatives(ring[:, :1], ring[:, 1:], known, torch.zeros(9, dtype=torch.int64), 2)
        tensor([[0, 3],
                [7, 1]])

    Source: Li et al., *Evaluating graph neural networks for link prediction: current pitfalls and new benchmarking*,
    NeurIPS 2023, arXiv 2306.10453 (HeaRT). There test negatives may use validation links; here none does.
    """
    num_nodes, num_kinds = kind.numel(), int(kind.max()) + 1
    kept, lost = links.flatten(), links.flip(0).flatten()
    asked, which = torch.unique(kept * num_kinds + kind[lost], return_inverse=True)
    size = (num_neg + 1) // 2
    hard = _Hard(Reach(torch.cat([train, train.flip(0)], 1), num_nodes), known, kind, seed)
    found = hard.partners(asked // num_kinds, asked % num_kinds, size)
    (u, v), (of_u, of_v) = links, which.view(2, -1)
    first, second = found[of_u], found[of_v, : num_neg - size]
    pairs = torch.empty(2, links.size(1), num_neg, dtype=torch.int64)
    pairs[0, :, :size], pairs[1, :, :size] = u[:, None], first
    pairs[0, :, size:], pairs[1, :, size:] = second, v[:, None]
    return pairs.flatten(1)


class _Hard:
    """Ranks the nodes that an end is not linked with."""

    def __init__(self, reach: Reach, known: Tensor, kind: Tensor, seed: int) -> None:
        self.reach, self.known, self.kind = reach, known, kind
        self.num_nodes = reach.num_nodes
        self.seed = seed
        self.tie = CounterRandom(seed, "order of equal non-links").words(self.num_nodes)

    def partners(self, nodes: Tensor, kinds: Tensor, size: int) -> Tensor:
        """Return the hardest partners ``[n, size]`` of some nodes, each of a kind."""
        found = torch.full((nodes.numel(), size), -1, dtype=torch.int64)
        allocation = 1 / np.maximum(self.reach.degree, 1)
        tol = min(_TOL, _TWO_STEPS / max(float(self.reach.degree.mean()), 1.0) ** 2)

        def score(part: Ints) -> Any:
            # Real and imaginary parts: both scores of a pair in one sparse sum.
            return self.reach.common(part, allocation) + 1j * self.reach.walk(part, tol=tol)

        for where, rows in in_blocks(nodes.numpy(), score):
            row = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
            column = rows.indices.astype(np.int64)
            keep = self.free(nodes[where][row], torch.from_numpy(column), kinds[where][row]).numpy()
            row, column, value = row[keep], column[keep], rows.data[keep]
            ranks = np.stack([self._rank(row, column, score, size) for score in (value.real, value.imag)])
            near = np.flatnonzero(ranks.min(0) < size)  # no other can be among the first
            row, column, ranks = row[near], column[near], ranks[:, near]
            order = np.lexsort((self.tie.numpy()[column], ranks.max(0), ranks.min(0), row))
            place = _place_in_row(row[order])
            few = place < size
            found[where][row[order][few], place[few]] = torch.from_numpy(column[order][few])
        lack = (found < 0).sum(1)
        short = lack.nonzero().view(-1)
        if short.numel():
            found[short] = self._fill(found[short], nodes[short], kinds[short], lack[short])
        return found

    def free(self, nodes: Tensor, others: Tensor, kinds: Tensor) -> Tensor:
        """Say of pairs whether they are no link, no self-loop, and of the kind that is asked for."""
        fits = (self.kind[others] == kinds) & (nodes != others)
        fits[fits.clone()] = ~is_among(pair_keys((nodes[fits], others[fits]), self.num_nodes), self.known)
        return fits

    def _rank(self, row: NDArray[Any], column: NDArray[Any], score: NDArray[Any], size: int) -> Ints:
        """Return the rank of each entry in its row, highest first; ``size`` for all from there on and those with 0."""
        rank = np.full(len(row), size, dtype=np.int64)
        there = np.flatnonzero(score > 0)
        # Sums in another order differ by less than a millionth, so that equal scores are in a drawn order.
        drawn = score[there] * (1 + 1e-6 * self.tie.numpy()[column[there]] / (1 << 32))
        # Of positive floats the bits are in the order of the values: one number for row and score sorts fast.
        keys = row[there] << 32 | (0x7FFFFFFF - drawn.astype(np.float32).view(np.int32).astype(np.int64))
        order = np.argsort(keys)
        place = _place_in_row(row[there][order])
        first = place < size
        rank[there[order[first]]] = place[first]
        return rank

    def _fill(self, found: Tensor, nodes: Tensor, kinds: Tensor, lack: Tensor) -> Tensor:
        """Add drawn nodes to rows that lack some.

        All nodes of a kind stand in one random circle, and each row begins somewhere. It goes past as many as it lacks
        and as may be in the way, its links and what it has already: that is enough if there are enough.
        """
        circle = torch.from_numpy(np.lexsort((self.tie.numpy(), self.kind.numpy())))
        count = torch.bincount(self.kind)
        begin = count.cumsum(0) - count
        degree = torch.zeros(self.num_nodes, dtype=torch.int64)
        for ends in key_pairs(self.known, self.num_nodes):
            degree += torch.bincount(ends, minlength=self.num_nodes)
        looked = torch.minimum(degree[nodes] + found.size(1) + 1, count[kinds])
        start = CounterRandom(self.seed, "where to begin").words(nodes.numel()) % count[kinds].clamp(min=1)
        for where in blocks_by_size(looked, _BLOCK):
            width = looked[where]
            row = torch.arange(width.numel()).repeat_interleave(width)
            step = torch.arange(row.numel()) - (width.cumsum(0) - width)[row]
            kind = kinds[where][row]
            other = circle[begin[kind] + (start[where][row] + step) % count[kind]]
            fits = self.free(nodes[where][row], other, kind)
            mine = found[where]
            has = sort_keys((torch.arange(mine.size(0))[:, None] * self.num_nodes + mine)[mine >= 0])
            fits &= ~is_among(row * self.num_nodes + other, has)
            row, other = row[fits], other[fits]
            place = torch.from_numpy(_place_in_row(row.numpy()))
            enough = place < lack[where][row]
            mine[row[enough], (mine.size(1) - lack[where])[row[enough]] + place[enough]] = other[enough]
        if bool((found < 0).any()):
            node = int((found < 0).any(1).nonzero()[0])
            raise ValueError(
                f"node {int(nodes[node])} has only {int((found[node] >= 0).sum())} of {found.size(1)} partners that "
                "are no link and of the kind of a held-out link's other end: take fewer with 'num_neg', or "
                "negatives='uniform'"
            )
        return found


def _place_in_row(row: NDArray[Any]) -> Ints:
    """Return the place of each entry in its row, from the rows of entries in ascending order."""
    new = np.ones(len(row), dtype=bool)
    new[1:] = row[1:] != row[:-1]
    first = np.flatnonzero(new)
    return np.arange(len(row)) - np.repeat(first, np.diff(np.append(first, len(row))))
