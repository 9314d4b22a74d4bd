"""Forest fires: an edge is worth as much as the fires that ran along it."""

import math

import numpy as np
import torch
from torch import Tensor

from graphsparse.edges.score import edge_score_rule
from graphsparse.edges.undirected import UndirectedEdges
from graphsparse.ops.blocks import blocks, blocks_by_size
from graphsparse.ops.pairs import is_among, sort_keys
from graphsparse.ops.sort import argsort
from graphsparse.utils.counter_random import GAMMA, mix64

#: Fires that burn at the same time, one for each bit of a word; and those that stay small, in numbers.
_FIRES, _SMALL_FIRES = 64, 1 << 18
#: Nodes below which a fire is small.
_SMALL = 256
#: Burns at a time that small fires are meant to come to.
_BURNS = 1 << 18
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
def forest_fire(edges: UndirectedEdges, seed: int | None, *, burn: float = 0.6, ratio: float | None = None) -> Tensor:
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
    width, small = _FIRES, False
    while total < least:
        fire, entry = forest.burn(first, width, seed, small)
        so_far = torch.bincount(fire, minlength=width).cumsum(0) + total
        enough = min(int((so_far < least).sum()) + 1, width)  # fires, the last of which makes it enough
        entry = entry.index_select(0, _where(fire < enough))
        along.index_add_(0, entry, torch.ones_like(entry))
        total, first = int(so_far[enough - 1]), first + width
        size = max(total, 1) / first
        small = size < _SMALL
        most = min(_SMALL_FIRES, int(_BURNS / size)) if small else _FIRES
        width = max(min(most, int((least - total) / size) + 1), 1)  # hardly more than are needed
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

    def burn(self, first: int, width: int, seed: int, small: bool) -> tuple[Tensor, Tensor]:
        """Burn some fires; return the fire of each burn, int32, and the entry along which it came, int32."""
        device = self.pointer.device
        state = _Small(self.n, device) if small else _Large(width, self.n, device)
        fire = torch.arange(width, device=device)
        node = self.inhabited[_pick(_hash(fire + first, seed), self.inhabited.numel())]
        fires, entries = [node.int()[:0]], [node.int()[:0]]
        level = 0
        while node.numel():
            level += 1
            word = _hash((fire + first) * self.n + node, seed + level)
            want = self.limits.numel() - torch.searchsorted(self.limits, word >> 1 & 2**63 - 1, right=True)
            new = self._spread(state, *_select(want > 0, fire, node, word, want))
            front = sort_keys(torch.cat([node[:0], *(code for code, _ in new)]))
            entries += [entry for _, entry in new]
            fire = front // self.n
            node = front - fire * self.n
            fires += [(code // self.n).int() for code, _ in new]
        return torch.cat(fires), torch.cat(entries)

    def _spread(
        self, state: "_Large | _Small", fire: Tensor, node: Tensor, word: Tensor, want: Tensor
    ) -> list[tuple[Tensor, Tensor]]:
        """Let all nodes of a front burn at the same time; return what catches fire, and along which entry, in parts."""
        if isinstance(state, _Large) and node.numel() > self.n // 8 and node.device.type == "cpu":
            near = self._unreached(state.reached).index_select(0, node)
            fire, node, word, want = _select(near >> fire & 1 == 1, fire, node, word, want)
        new = []
        tries = 0
        while node.numel():
            word = mix64(word + GAMMA)
            tries += 1
            if tries <= _TRIES and node.numel() > _FEW:
                entry = self.pointer.index_select(0, node) + _pick(word, self.degree.index_select(0, node))
                who = _where(state.is_free(fire, self.neighbour.index_select(0, entry)))
                entry = entry.index_select(0, who)
            else:
                rows = blocks_by_size(self.degree[node])
                parts = [self._look(state, fire[part], node[part], word[part], want[part]) for part in rows]
                who = torch.cat([owner + part.start for part, (owner, _) in zip(rows, parts, strict=True)])
                entry = torch.cat([entry for _, entry in parts])
                want = torch.minimum(want, torch.bincount(who, minlength=node.numel()))
            target, claimed = self.neighbour.index_select(0, entry).long(), fire.index_select(0, who)
            won = state.claim(claimed, target, entry.int())
            who, entry = who.index_select(0, won), entry.index_select(0, won)
            code = claimed.index_select(0, won) * self.n + target.index_select(0, won)
            new.append((code, entry.int()))
            want = want.index_add(0, who, torch.full_like(who, -1))
            fire, node, word, want = _select(want > 0, fire, node, word, want)
        return new

    def _look(
        self, state: "_Large | _Small", fire: Tensor, node: Tensor, word: Tensor, want: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Choose for some nodes as many entries as they want, to neighbours that may burn; with the place of each."""
        degree = self.degree[node]
        owner = torch.arange(degree.numel(), device=degree.device).repeat_interleave(degree)
        entry = (self.pointer[node] + degree - degree.cumsum(0)).index_select(0, owner)
        entry += torch.arange(entry.numel(), device=entry.device)
        free = state.is_free(fire.index_select(0, owner), self.neighbour.index_select(0, entry))
        owner, entry = _select(free, owner, entry)
        order = argsort(owner << 40 | mix64(word.index_select(0, owner) + entry) & (1 << 40) - 1)
        owner, entry = owner.index_select(0, order), entry.index_select(0, order)
        count = torch.bincount(owner, minlength=degree.numel())
        place = torch.arange(owner.numel(), device=owner.device) - (count.cumsum(0) - count).index_select(0, owner)
        chosen = _where(place < want.index_select(0, owner))
        return owner.index_select(0, chosen), entry.index_select(0, chosen)

    def _unreached(self, reached: Tensor) -> Tensor:
        """Return for each node in which fires, a bit each, a neighbour may still burn; on CPU."""
        words, pointer, inhabited = ~reached, self.pointer.numpy(), self.inhabited.numpy()
        out = np.zeros(self.n, dtype=np.int64)
        for rows in self.rows:
            node = inhabited[rows]
            start, stop = pointer[node[0]], pointer[node[-1] + 1]
            around = words.index_select(0, self.neighbour[start:stop])
            out[node] = np.bitwise_or.reduceat(around.numpy(), pointer[node] - start)
        return torch.from_numpy(out)

    def per_edge(self, entry: Tensor) -> Tensor:
        """Add up a number for each entry over both directions of each edge."""
        _, _, order = self.edges.by_higher_end()
        out = torch.empty(self.edges.num_edges, dtype=torch.int64, device=entry.device)
        upper = torch.arange(self.n, device=entry.device)
        upper = upper.repeat_interleave(self.degree, output_size=entry.numel()) < self.neighbour
        out.copy_(entry[upper])
        out[order.long()] += entry[~upper]
        return out


class _Large:
    """Where up to 64 fires have come, as a bit of each node."""

    def __init__(self, width: int, n: int, device: torch.device) -> None:
        self.n = n
        self.came = torch.full((width * n,), _UNBURNT, dtype=torch.int32, device=device)
        self.reached = torch.zeros(n, dtype=torch.int64, device=device)

    def is_free(self, fire: Tensor, node: Tensor) -> Tensor:
        """Say whether fires have not come to nodes."""
        return self.reached.index_select(0, node) >> fire & 1 == 0

    def claim(self, fire: Tensor, node: Tensor, entry: Tensor) -> Tensor:
        """Let fires come to free nodes; return the places of those that do: of several entries the first."""
        code = fire * self.n + node
        self.came.scatter_reduce_(0, code, entry, "amin")
        won = _where(self.came.index_select(0, code) == entry)
        fire, node = fire.index_select(0, won), node.index_select(0, won)
        self.reached.index_add_(0, node, torch.ones_like(fire) << fire)  # each bit once: a sum is a union
        return won


class _Small:
    """Where any number of fires have come, as a sorted list."""

    def __init__(self, n: int, device: torch.device) -> None:
        self.n = n
        self.code = torch.empty(0, dtype=torch.int64, device=device)

    def is_free(self, fire: Tensor, node: Tensor) -> Tensor:
        """Say whether fires have not come to nodes."""
        return ~is_among(fire * self.n + node, self.code)

    def claim(self, fire: Tensor, node: Tensor, entry: Tensor) -> Tensor:
        """Let fires come to free nodes; return the places of those that do: of several entries the first."""
        code = fire * self.n + node
        order = torch.sort(code, stable=True).indices  # entries ascend within a fire
        ordered = code.index_select(0, order)
        new = torch.ones_like(order, dtype=torch.bool)
        new[1:] = ordered[1:] != ordered[:-1]
        won = order.index_select(0, _where(new)).sort().values
        self.code = sort_keys(torch.cat([self.code, code.index_select(0, won)]))
        return won


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
