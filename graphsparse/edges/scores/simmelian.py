"""Simmelian scores: how far the strongest neighbours of both ends are the same nodes."""

from collections.abc import Iterator

import torch
from torch import Tensor

from graphsparse.edges.local_rank import local_ranks
from graphsparse.edges.score import edge_score_rule
from graphsparse.edges.scores.neighborhood import triangles_per_edge
from graphsparse.edges.undirected import UndirectedEdges
from graphsparse.ops.blocks import blocks
from graphsparse.ops.check import check_count
from graphsparse.ops.pairs import key_pairs, sort_keys
from graphsparse.ops.rows import Rows
from graphsparse.ops.sort import index_dtype, stable_order


@edge_score_rule("simmelian")
def simmelian(edges: UndirectedEdges, seed: int | None) -> Tensor:
    r"""Largest Jaccard coefficient of the strongest neighbours of both ends, over how many of these are looked at.

    Each node ranks its neighbours by the triangles of their edge. With :math:`N_u(r)` the neighbours of :math:`u` of
    rank :math:`r` or better, without the other end, the score is
    :math:`\max_r |N_u(r) \cap N_v(r)| / |N_u(r) \cup N_v(r)|`.

    Source: Nick et al., *Simmelian backbones*, ASONAM 2013, the non-parametric variant.
    """
    ranks = _Ranks(edges)
    score = torch.zeros(edges.num_edges, dtype=torch.float64, device=edges.key.device)
    for edge, ends, item, rank in ranks.corners():
        # The maximum is at a rank where the intersection grows: only corners of triangles matter.
        key = sort_keys(item.long() << 32 | rank)
        item, rank = key >> 32, key & 0xFFFFFFFF
        count = torch.bincount(item, minlength=edge.numel())
        common = torch.arange(1, item.numel() + 1, device=item.device)  # right at the last of equal ranks
        common -= (count.cumsum(0) - count).index_select(0, item)
        either = ranks.num_within(ends[0], edge, item, rank) + ranks.num_within(ends[1], edge, item, rank) - common
        best = score.new_zeros(edge.numel()).scatter_reduce_(0, item, common / either.double(), "amax")
        score[edge] = best
    return score


@edge_score_rule("simmelian_overlap")
def simmelian_overlap(edges: UndirectedEdges, seed: int | None, *, max_rank: int = 10) -> Tensor:
    """Number of nodes that are among the ``max_rank`` strongest neighbours of both ends.

    Ranks begin with 1; in NetworKit, where they begin with 0, the same number is ``max_rank - 1``.

    Source: Nick et al., *Simmelian backbones*, ASONAM 2013, the parametric variant.
    """
    check_count(max_rank, "max_rank")
    score = torch.zeros_like(edges.key)
    for edge, _, item, _ in _Ranks(edges).corners(max_rank):
        score[edge] = torch.bincount(item, minlength=edge.numel())
    return score


class _Ranks:
    """The rank of each edge by its triangles, 1 for the most, among the edges of each of its ends; equal ones share it.

    The entries of all nodes stand one node after the other: at each first the edges whose higher end it is, then those
    whose lower end it is, so that its neighbours ascend.
    """

    def __init__(self, edges: UndirectedEdges) -> None:
        self.edges = edges
        triangles = triangles_per_edge(edges, edges.degree())
        self.rank = local_ranks(edges, triangles)[0]
        self.closed = triangles > 0
        self.lower, self.higher, self.order = edges.by_higher_end()
        self.pointer = self.lower + self.higher
        # How many edges come before a node, or have a rank there or a better one, by first entry of the node and rank.
        size = 2 * edges.num_edges
        self.within = torch.zeros(size, dtype=index_dtype(size), device=edges.key.device)
        one = self.within.new_ones(1)
        for where, *ends in edges.blocks():
            for end, rank in zip(ends, self.rank[:, where], strict=True):
                place = self.pointer.index_select(0, end) + rank - 1
                self.within.index_add_(0, place, one.expand(place.numel()))
        torch.cumsum(self.within, 0, out=self.within)

    def num_within(self, end: Tensor, edge: Tensor, item: Tensor, rank: Tensor) -> Tensor:
        """Return how many edges at one end of an edge, but that edge, have some rank or a better one.

        Args:
            end: An end of each edge.
            edge: The edges.
            item: Which of the edges each question is about.
            rank: The rank that it is about.
        """
        first = self.pointer.index_select(0, end)
        last = self.pointer[1:].index_select(0, end)
        at_low, at_high = self.rank[:, edge]
        own = torch.where(self.edges.key.index_select(0, edge) // self.edges.num_nodes == end, at_low, at_high)
        first = first.index_select(0, item)
        place = torch.minimum(first + rank, last.index_select(0, item)) - 1
        number = self.within.index_select(0, place) - first
        return number.sub_((own.index_select(0, item) <= rank).long())

    def corners(self, max_rank: int | None = None) -> Iterator[tuple[Tensor, tuple[Tensor, Tensor], Tensor, Tensor]]:
        """Yield ``(edges, their ends, item, rank)`` for each node that makes a triangle with an edge.

        The item is the place of the edge among the edges that come with it. The rank is the worse one of the two other
        edges of the triangle, each at its end of the edge; triangles with a worse one than ``max_rank`` are left out.
        """
        rows, entry_rank = self._entries(max_rank)
        edge = self.closed.nonzero().squeeze(1)
        u, v = key_pairs(self.edges.key.index_select(0, edge), self.edges.num_nodes)
        size = rows.pointer.diff()
        swap = size.index_select(0, u) > size.index_select(0, v)
        dtype = index_dtype(self.edges.num_nodes)
        near, far = torch.where(swap, v, u).to(dtype), torch.where(swap, u, v).to(dtype)
        del u, v, swap
        order = stable_order(far, self.edges.num_nodes)
        edge, near, far = (part.index_select(0, order) for part in (edge, near, far))
        start = rows.pointer.index_select(0, near)
        for items, item, here, there in rows.common(start.to(index_dtype(rows.key.numel())), near, far):
            rank = torch.maximum(entry_rank.index_select(0, here), entry_rank.index_select(0, there))
            yield edge[items], (near[items], far[items]), item, rank

    def _entries(self, max_rank: int | None) -> tuple[Rows, Tensor]:
        """Return the neighbours of each node by edges in triangles, of some rank or better, and the rank of each."""
        edges, num_nodes = self.edges, self.edges.num_nodes
        key = edges.key.new_empty(2 * edges.num_edges)
        rank = self.rank.new_empty(2 * edges.num_edges)
        for where in blocks(edges.num_edges):
            place = torch.arange(where.start, where.stop, device=key.device)
            for side, edge in enumerate((place, self.order[where])):
                low, high = key_pairs(edges.key.index_select(0, edge), num_nodes)
                if side == 0:
                    at, entry = place + self.higher[1:].index_select(0, low), low * num_nodes + high
                else:
                    at, entry = place + self.lower.index_select(0, high), high * num_nodes + low
                key[at] = entry
                rank[at] = self.rank[side].index_select(0, edge) * self.closed.index_select(
                    0, edge
                )  # 0: in no triangle
        kept = rank > 0 if max_rank is None else (rank > 0) & (rank <= max_rank)
        return Rows(key[kept], num_nodes), rank[kept]
