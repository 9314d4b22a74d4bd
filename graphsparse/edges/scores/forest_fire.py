"""Forest fires: an edge is worth as much as the fires that ran along it."""

import math

import numpy as np
import torch
from torch import Tensor

from graphsparse.edges.score import edge_score_rule
from graphsparse.edges.local_rank import _argsort as argsort
from graphsparse.edges.undirected import UndirectedEdges
from graphsparse.ops.blocks import blocks, blocks_by_size
from graphsparse.ops.pairs import sort_keys
from graphsparse.utils.counter_random import GAMMA, mix64

#: Fires that burn at the same time, one for each bit of a word.
_FIRES = 64
#: Neighbours that are tried at random before all of them are looked at.
_TRIES = 6
#: Nodes that look at all their neighbours at once: to try would cost more steps than it saves.
_FEW = 2000
#: No fire came here.
_UNBURNT = 2**31 - 1
#: Edges above which they burn once on average unless said otherwise, and not five times.
_MANY = 10_000_000
#: Bits below the count, a hash that decides between equal ones.
_TIE_BITS = 32
_WORD = 0xFFFFFFFF


@edge_score_rule("forest_fire")
def forest_fire(
    edges: UndirectedEdges, seed: int | None, *, burn: float = 0.6, ratio: float | None = None
) -> Tensor:
    r"""How often an edge burns in fires that start at random nodes, until ``ratio`` times the number of edges burnt.

    A burning node sets fire to :math:`X` random neighbours that the fire has not come to, as many as there are, with
    :math:`P(X \geq j) = \mathtt{burn}^j`; then these burn. A fire that started is counted whole. ``ratio`` is 5, or 1
    above ten million edges.

    Source: Leskovec, Kleinberg and Faloutsos, *Graphs over time*, KDD 2005, Section 4.2; as a score of edges: Hamann
    et al., *Structure-preserving sparsification methods for social networks*, Soc. Netw. Anal. Min. 6 (2016).
    """
    if not 0 < burn < 1:
        raise ValueError(f"'burn' must be between 0 and 1 (got {burn})")
    ratio = (5.0 if edges.num_edges <= _MANY else 1.0) if ratio is None else ratio
    if not 0 < ratio < math.inf:
        raise ValueError(f"'ratio' must be a positive number (got {ratio})")
    seed = int(torch.randint(2**62, ())) if seed is None else seed
    count = burnt(edges, seed, burn, math.ceil(ratio * edges.num_edges))
    for where in blocks(count.numel()):
        tie = mix64(edges.key[where] + _signed((seed + 1) * GAMMA)) & (1 << _TIE_BITS) - 1
        count[where] = count[where] << _TIE_BITS | tie
    return count


def burnt(edges: UndirectedEdges, seed: int, burn: float, least: int) -> Tensor:
    """Return how often each edge burns, int64 ``[M]``, in as many whole fires as it takes for so many burns."""
    forest = _Forest(edges, burn)
    along = torch.zeros(2 * edges.num_edges, dtype=torch.int32, device=edges.key.device)
    total = first = 0
    width = _FIRES
    while total < least:
        forest.burn(first, width, seed)
        so_far = forest.size.cumsum(0) + total
        enough = min(int((so_far < least).sum()) + 1, width)  # fires, the last of which makes it enough
        entry = forest.came[: enough * forest.n]
        entry = entry.index_select(0, _where(entry != _UNBURNT))
        along.index_add_(0, entry, torch.ones_like(entry))
        total, first = int(so_far[enough - 1]), first + width
        width = min(_FIRES, 1 + (least - total) * first // max(total, 1))  # no more than may be needed
    return forest.per_edge(along)


class _Forest:
    """A graph in compressed rows, that can burn."""

    def __init__(self, edges: UndirectedEdges, burn: float) -> None:
        self.edges, self.n = edges, edges.num_nodes
        self.pointer, neighbour = edges.csr()
        self.neighbour = neighbour.int()
        self.degree = self.pointer.diff()
        self.inhabited = self.degree.nonzero().squeeze(1)
        self.rows = blocks_by_size(self.degree[self.inhabited])
        # A word below limit j stands for more than j neighbours: no logarithm, which devices round differently.
        limits = [int(burn**j * 2**63) for j in range(1, 256) if burn**j * 2**63 >= 1]
        self.limits = torch.tensor(limits[::-1], device=self.pointer.device)

    def burn(self, first: int, width: int, seed: int) -> None:
        """Burn some fires: ``came`` is then the entry along which each came to each node, ``[width * N]``."""
        device = self.pointer.device
        self.came = torch.full((width * self.n,), _UNBURNT, dtype=torch.int32, device=device)
        self.reached = torch.zeros(self.n, dtype=torch.int64, device=device)  # a bit for each fire
        self.size = torch.zeros(width, dtype=torch.int64, device=device)  # nodes that each fire came to
        fire = torch.arange(width, device=device)
        node = self.inhabited[_pick(_hash(fire + first, seed), self.inhabited.numel())]
        level = 0
        while node.numel():
            level += 1
            word = _hash((fire + first) * self.n + node, seed + level)
            want = self.limits.numel() - torch.searchsorted(self.limits, word >> 1 & 2**63 - 1, right=True)
            new = self._spread(*_select(want > 0, fire, node, word, want))
            front = sort_keys(torch.cat([node[:0], *new]))
            fire = front // self.n
            node = front - fire * self.n
            self.size += torch.bincount(fire, minlength=width)

    def _spread(self, fire: Tensor, node: Tensor, word: Tensor, want: Tensor) -> list[Tensor]:
        """Let all nodes of a front burn at the same time, and return what catches fire, in parts."""
        if node.numel() > self.n // 8 and node.device.type == "cpu":
            open_ = self._unreached().index_select(0, node) >> fire & 1
            fire, node, word, want = _select(open_ == 1, fire, node, word, want)
        new = []
        tries = 0
        while node.numel():
            word = mix64(word + GAMMA)
            if tries < _TRIES and node.numel() > _FEW:
                entry = self.pointer.index_select(0, node) + _pick(word, self.degree.index_select(0, node))
                target = self.neighbour.index_select(0, entry)
                who = _where(self.reached.index_select(0, target) >> fire & 1 == 0)
                entry = entry.index_select(0, who)
            else:
                parts = [self._look(rows, fire, node, word, want) for rows in blocks_by_size(self.degree[node])]
                who, entry = (torch.cat(part) for part in zip(*parts, strict=True))
                left = torch.bincount(who, minlength=node.numel()) 
                want = torch.minimum(want, left)
            tries += 1
            target = self.neighbour.index_select(0, entry).long()
            claimed = fire.index_select(0, who)
            code, entry = claimed * self.n + target, entry.int()
            self.came.scatter_reduce_(0, code, entry, "amin")  # of two nodes after the same one, the first has it
            won = _where(self.came.index_select(0, code) == entry)
            target, claimed = target.index_select(0, won), claimed.index_select(0, won)
            self.reached.index_add_(0, target, torch.ones_like(claimed) << claimed)
            new.append(code.index_select(0, won))
            want = want.index_add(0, who.index_select(0, won), torch.full_like(won, -1))
            fire, node, word, want = _select(want > 0, fire, node, word, want)
        return new

    def _look(self, rows: slice, fire: Tensor, node: Tensor, word: Tensor, want: Tensor) -> tuple[Tensor, Tensor]:
        """Return as many random entries as some nodes want to neighbours that may burn, and the places of the nodes."""
        fire, node, word, want = fire[rows], node[rows], word[rows], want[rows]
        degree = self.degree[node]
        owner = torch.arange(degree.numel(), device=degree.device).repeat_interleave(degree)
        entry = (self.pointer[node] + degree - degree.cumsum(0)).index_select(0, owner)
        entry += torch.arange(entry.numel(), device=entry.device)
        reached = self.reached.index_select(0, self.neighbour.index_select(0, entry))
        owner, entry = _select(reached >> fire.index_select(0, owner) & 1 == 0, owner, entry)
        order = argsort(owner << 40 | mix64(word.index_select(0, owner) + entry) & (1 << 40) - 1)
        owner, entry = owner.index_select(0, order), entry.index_select(0, order)
        count = torch.bincount(owner, minlength=degree.numel())
        place = torch.arange(owner.numel(), device=owner.device) - (count.cumsum(0) - count).index_select(0, owner)
        owner, entry = _select(place < want.index_select(0, owner), owner, entry)
        return owner + rows.start, entry

    def _unreached(self) -> Tensor:
        """Return for each node in which fires, a bit each, a neighbour may still burn; on CPU."""
        words, pointer, inhabited = ~self.reached, self.pointer.numpy(), self.inhabited.numpy()
        out = np.zeros(self.n, dtype=np.int64)
        for rows in self.rows:
            node = inhabited[rows]
            start, stop = pointer[node[0]], pointer[node[-1] + 1]
            around = words.index_select(0, self.neighbour[start:stop])
            out[node] = np.bitwise_or.reduceat(around.numpy(), pointer[node] - start)
        return torch.from_numpy(out)

    def per_edge(self, entry: Tensor) -> Tensor:
        """Add up a number for each entry over both directions of each edge."""
        lower, _, order = self.edges.by_higher_end()
        out = torch.empty(self.edges.num_edges, dtype=torch.int64, device=entry.device)
        upper = torch.arange(self.n, device=entry.device)
        upper = upper.repeat_interleave(self.degree, output_size=entry.numel()) < self.neighbour
        out.copy_(entry[upper])
        out[order.long()] += entry[~upper]
        return out


def _hash(value: Tensor, seed: int) -> Tensor:
    return mix64(mix64(value) + _signed((seed + 1) * GAMMA))


def _signed(value: int) -> int:
    return (value + 2**63) % 2**64 - 2**63


def _pick(word: Tensor, num: Tensor | int) -> Tensor:
    """Return a number below ``num`` from the lower half of each word."""
    return (word & _WORD).mul_(num) >> 32


def _select(mask: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
    kept = _where(mask)
    return tuple(value.index_select(0, kept) for value in values)


def _where(mask: Tensor) -> Tensor:
    """Return the places where a mask is set; NumPy finds them several times as fast as torch."""
    return torch.from_numpy(np.flatnonzero(mask.numpy())) if mask.device.type == "cpu" else mask.nonzero().squeeze(1)
