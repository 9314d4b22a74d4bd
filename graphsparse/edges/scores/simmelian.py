"""Simmelian scores: how far the strongest neighbours of both ends are the same nodes."""

from collections.abc import Iterator

import torch
from torch import Tensor

from graphsparse.edges.local_rank import local_ranks
from graphsparse.edges.score import edge_score_rule
from graphsparse.edges.scores.neighborhood import triangles_per_edge
from graphsparse.edges.undirected import UndirectedEdges
from graphsparse.ops.blocks import blocks_by_size
from graphsparse.ops.pairs import find_sorted, pair_keys, sort_keys


@edge_score_rule("simmelian")
def simmelian(edges: UndirectedEdges, seed: int | None) -> Tensor:
    r"""Largest Jaccard coefficient of the strongest neighbours of both ends, over how many of these are looked at.

    Each node ranks its neighbours by the triangles of their edge. With :math:`N_u(r)` the neighbours of :math:`u` of
    rank :math:`r` or better, without the other end, the score is
    :math:`\max_r |N_u(r) \cap N_v(r)| / |N_u(r) \cup N_v(r)|`.

    Source: Nick et al., *Simmelian backbones*, ASONAM 2013, the non-parametric variant.
    """
    ties = _Ties(edges)
    score = torch.zeros(edges.num_edges, dtype=torch.float64, device=edges.key.device)
    for first, edge, rank in ties.corners():
        # The maximum is at a rank where the intersection grows: only corners of triangles matter.
        order = torch.argsort((edge << 32) | rank)
        edge, rank = edge[order], rank[order]
        place = torch.arange(edge.numel(), device=edge.device)
        starts = torch.ones_like(edge, dtype=torch.bool)
        starts[1:] = edge[1:] != edge[:-1]
        common = place - torch.where(starts, place, 0).cummax(0).values + 1  # right at the last of equal ranks
        number = edge + first
        u, v = ties.ends(number)
        either = ties.num_within(u, rank, ties.rank[0, number]) + ties.num_within(v, rank, ties.rank[1, number])
        score.scatter_reduce_(0, number, common / (either - common).double(), "amax")
    return score


@edge_score_rule("simmelian_overlap")
def simmelian_overlap(edges: UndirectedEdges, seed: int | None, *, max_rank: int = 10) -> Tensor:
    """Number of nodes that are among the ``max_rank`` strongest neighbours of both ends.

    Ranks begin with 1; in NetworKit, where they begin with 0, the same number is ``max_rank - 1``.

    Source: Nick et al., *Simmelian backbones*, ASONAM 2013, the parametric variant.
    """
    ties = _Ties(edges)
    score = torch.zeros(edges.num_edges, dtype=torch.int64, device=edges.key.device)
    for first, edge, rank in ties.corners():
        score += torch.bincount(edge[rank <= max_rank] + first, minlength=edges.num_edges)
    return score


class _Ties:
    """The edges at each node, each with its rank by triangles, 1 for the most, among the edges of both of its ends."""

    def __init__(self, edges: UndirectedEdges) -> None:
        self.edges, self.degree = edges, edges.degree()
        self.rank = local_ranks(edges, triangles_per_edge(edges, self.degree))[0]
        lower, higher, order = edges.by_higher_end()
        self.pointer = lower + higher
        # At each node first the edges whose higher end it is, then those whose lower end it is.
        self.incident = torch.empty(2 * edges.num_edges, dtype=order.dtype, device=order.device)
        self.within = torch.empty(2 * edges.num_edges, dtype=torch.int64, device=order.device)
        for where, u, v in edges.blocks():
            edge = torch.arange(where.start, where.stop, device=order.device)
            self.incident[edge + higher[u + 1]] = edge.to(order.dtype)
            self.within[where] = (u << 32) | self.rank[0, where]
            self.within[edges.num_edges :][where] = (v << 32) | self.rank[1, where]
            self.incident[edge + lower[self.ends(order[where].long())[1]]] = order[where]
        sort_keys(self.within)

    def ends(self, edge: Tensor) -> tuple[Tensor, Tensor]:
        """Return the lower and the higher end of some edges."""
        key = self.edges.key[edge]
        u = key // self.edges.num_nodes
        return u, key - u * self.edges.num_nodes

    def num_within(self, node: Tensor, rank: Tensor, own: Tensor) -> Tensor:
        """Return how many edges of a node have some rank or a better one, without one of rank ``own``."""
        last = torch.searchsorted(self.within, (node << 32) | rank, right=True)
        return last - self.pointer[node] - (own <= rank).long()

    def corners(self) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Yield ``(first edge of a block, edge in it, rank)`` for each node that makes a triangle with an edge.

        The rank is the worse one of the two other edges of the triangle, each at its end of the edge.
        """
        edges, degree = self.edges, self.degree
        smaller = edges.fill(lambda u, v: torch.minimum(degree[u], degree[v]))
        for where in blocks_by_size(smaller):
            u, v = self.ends(torch.arange(where.start, where.stop, device=smaller.device))
            swap = degree[u] > degree[v]
            near, far = torch.where(swap, v, u), torch.where(swap, u, v)
            count = smaller[where]
            edge = torch.arange(count.numel(), device=count.device).repeat_interleave(count)
            offset = torch.arange(edge.numel(), device=count.device) - (count.cumsum(0) - count).repeat_interleave(
                count
            )
            side = self.incident[self.pointer[near][edge] + offset].long()
            low, high = self.ends(side)
            corner = low + high - near[edge]
            other = far[edge]
            third = find_sorted(pair_keys((other, corner), edges.num_nodes), edges.key)
            closed = (third >= 0).nonzero().squeeze(1)  # the edge itself would need a self-loop
            edge, side, third, corner = edge[closed], side[closed], third[closed], corner[closed]
            at_near = self.rank[(near[edge] > corner).long(), side]
            at_far = self.rank[(far[edge] > corner).long(), third]
            yield where.start, edge, torch.maximum(at_near, at_far).long()
