"""Rank degree: a walk from random seeds to the neighbours of highest degree."""

import numpy as np
import torch
from torch import Tensor

from graphsparse.edges.local_rank import local_ranks
from graphsparse.edges.score import edge_score_rule
from graphsparse.edges.undirected import UndirectedEdges
from graphsparse.ops.check import check_count
from graphsparse.ops.pairs import sort_keys
from graphsparse.utils.counter_random import GAMMA, mix64

#: Bits of a hash that decides between edges of equal score.
_TIE_BITS = 31
#: The same between neighbours of equal degree: with the degree they fit into one sort of :func:`local_ranks`.
_RANK_BITS = 22
_NEVER = 2**31 - 1
#: Nodes among which the next seeds are looked for at a time.
_WINDOW = 256


@edge_score_rule("rank_degree")
def rank_degree(edges: UndirectedEdges, seed: int | None, *, rho: float = 0.1, seeds: int = 10) -> Tensor:
    r"""Minus the round in which a walk along high degrees takes the edge; what it never takes is worth least.

    It starts at ``seeds`` random nodes. In each round every node of degree :math:`d` that it stands on takes its edges
    to the :math:`\max(1, \lfloor \rho d \rfloor)` neighbours of highest degree in the whole graph, and those where it
    has not been are next. Where none are left it goes on from as many new nodes. Equal ones are ordered by a hash.

    Source: Voudigari, Salamanos, Papageorgiou and Yannakoudakis, *Rank degree: an efficient algorithm for graph
    sampling*, ASONAM 2016, Section III.
    """
    if not 0 < rho <= 1:
        raise ValueError(f"'rho' must be above 0 and at most 1 (got {rho})")
    seeds = check_count(seeds, "seeds")
    seed = int(torch.randint(2**62, ())) if seed is None else seed
    degree = edges.degree()
    taken = _top(edges, degree, seed, rho)
    first = _walk(_arcs(edges, taken), degree, seed, seeds)
    score = torch.empty(edges.num_edges, dtype=torch.int64, device=degree.device)
    for where, u, v in edges.blocks():
        turns = torch.stack([first[u], first[v]]).masked_fill_(~taken[:, where], _NEVER).amin(0)
        score[where] = (-turns << _TIE_BITS) + _hash(edges.key[where], seed, _TIE_BITS)
    return score


def _top(edges: UndirectedEdges, degree: Tensor, seed: int, rho: float) -> Tensor:
    """Say of each edge whether its lower end would take it, and whether its higher end would, bool ``[2, M]``."""
    value = torch.empty(2, edges.num_edges, dtype=torch.int64, device=degree.device)
    for where, u, v in edges.blocks():
        tie = _hash(edges.key[where], seed, _RANK_BITS)
        value[0, where], value[1, where] = (degree[v] << _RANK_BITS) + tie, (degree[u] << _RANK_BITS) + tie
    rank, _ = local_ranks(edges, value)
    most = (degree * rho).long().clamp_(min=1)
    taken = torch.empty_like(rank, dtype=torch.bool)
    for where, u, v in edges.blocks():
        taken[0, where], taken[1, where] = rank[0, where] <= most[u], rank[1, where] <= most[v]
    return taken


def _arcs(edges: UndirectedEdges, taken: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return where each node may go, as ``(pointer, target)`` in memory of the CPU."""
    n = edges.num_nodes
    keys = []
    for where, u, v in edges.blocks():
        keys += [(u * n + v)[taken[0, where]], (v * n + u)[taken[1, where]]]
    key = sort_keys(torch.cat([edges.key[:0], *keys])).cpu().numpy()
    return np.searchsorted(key, np.arange(n + 1) * n), key % max(n, 1)


def _walk(arcs: tuple[np.ndarray, np.ndarray], degree: Tensor, seed: int, seeds: int) -> Tensor:
    """Return the round in which the walk stands on each node, int64 ``[N]``; thousands of small steps, on CPU."""
    pointer, target = arcs
    first = np.full(degree.numel(), _NEVER)
    start = np.argsort(_hash(torch.arange(degree.numel()), seed, 62).numpy())
    start = start[degree.cpu().numpy()[start] > 0]
    turn = at = 0
    front = start[:0]
    while True:
        if len(front) == 0:
            # What is passed over has been walked on: all searches together pass each node once.
            while len(front) < seeds and at < len(start):
                window = start[at : at + _WINDOW]
                new = np.flatnonzero(first[window] == _NEVER)[: seeds - len(front)]
                front = np.concatenate([front, window[new]])
                at += int(new[-1]) + 1 if len(front) == seeds else _WINDOW
            if len(front) == 0:
                return torch.from_numpy(first).to(degree.device)
        first[front] = turn
        turn += 1
        low, count = pointer[front], pointer[front + 1] - pointer[front]
        place = np.arange(count.sum()) + np.repeat(low + count - count.cumsum(), count)
        front = np.unique(target[place])
        front = front[first[front] == _NEVER]


def _hash(value: Tensor, seed: int, bits: int) -> Tensor:
    return mix64(mix64(value) + ((seed + 1) * GAMMA + 2**63) % 2**64 - 2**63) & (1 << bits) - 1
