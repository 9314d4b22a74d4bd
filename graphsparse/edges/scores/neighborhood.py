"""Scores that follow from the common neighbours of both ends of an edge."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from graphsparse.edges.score import edge_score_rule
from graphsparse.edges.undirected import UndirectedEdges
from graphsparse.ops.pairs import key_pairs, pair_keys
from graphsparse.ops.rows import Rows
from graphsparse.ops.sort import index_dtype, stable_order


@edge_score_rule("jaccard")
def jaccard(edges: UndirectedEdges, seed: int | None) -> Tensor:
    """Share of the neighbours of either end that are neighbours of both.

    Source: Satuluri, Parthasarathy and Ruan, *Local graph sparsification for scalable clustering*, SIGMOD 2011.
    """
    return _from_common(edges, lambda t, d_u, d_v: t / (d_u + d_v - t)).float()


@edge_score_rule("scan")
def scan(edges: UndirectedEdges, seed: int | None) -> Tensor:
    r"""Cosine of the closed neighbourhoods, :math:`(t + 1) / \sqrt{(d_u + 1)(d_v + 1)}` with :math:`t` triangles.

    Source: Xu et al., *SCAN: a structural clustering algorithm for networks*, KDD 2007.
    """
    return _from_common(edges, lambda t, d_u, d_v: (t + 1) / ((d_u + 1) * (d_v + 1)).sqrt())


@edge_score_rule("triangles")
def triangles(edges: UndirectedEdges, seed: int | None) -> Tensor:
    """Number of triangles that the edge is in."""
    return triangles_per_edge(edges, edges.degree())


@edge_score_rule("triangle_lift")
def triangle_lift(edges: UndirectedEdges, seed: int | None) -> Tensor:
    r"""Triangles over those expected by chance, :math:`t (N - 2) / ((d_u - 1)(d_v - 1))`; 1 at a node of degree 1."""
    num = edges.num_nodes

    def lift(t: Tensor, d_u: Tensor, d_v: Tensor) -> Tensor:
        expected = (d_u - 1) * (d_v - 1)
        return torch.where(expected == 0, 1.0, t * (num - 2) / expected.clamp(min=1))

    return _from_common(edges, lift)


def _from_common(edges: UndirectedEdges, formula: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
    """Return a score, float64 ``[M]``, from the triangles of an edge and the degrees of both ends."""
    degree = edges.degree()
    score = triangles_per_edge(edges, degree).double()
    degree = degree.double()
    for where, u, v in edges.blocks():
        score[where] = formula(score[where], degree[u], degree[v])
    return score


def triangles_per_edge(edges: UndirectedEdges, degree: Tensor) -> Tensor:
    r"""Count the common neighbours of the end points of every undirected edge, int64 ``[M]``.

    Source: Chiba and Nishizeki, *Arboricity and subgraph listing algorithms*, SIAM J. Comput. 14 (1985), Section 2.
    """
    common = torch.zeros(edges.num_edges, dtype=torch.int64, device=edges.key.device)
    one = common.new_ones(1)
    for triangles in triangle_blocks(edges, degree):
        for edge in triangles:
            common.index_add_(0, edge, one.expand(edge.numel()))
    return common


def triangle_blocks(edges: UndirectedEdges, degree: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    r"""Yield the three edges of every triangle, each triangle once, in blocks.

    Edges are oriented from lower to higher degree, which leaves every node at most :math:`\sqrt{2M}` successors; each
    triangle is then found once, as a pair of successors that are joined.
    """
    num_nodes = edges.num_nodes
    rank = torch.empty_like(degree)
    rank[stable_order(degree, edges.num_edges + 1).long()] = torch.arange(num_nodes, device=degree.device)
    key = edges.fill(lambda u, v: pair_keys((rank.index_select(0, u), rank.index_select(0, v)), num_nodes))
    edge_of = stable_order(key, num_nodes**2)
    rows = Rows(key.index_select(0, edge_of), num_nodes)
    del key
    # Each edge walks along the later successors of its tail, and looks for them among those of its head.
    order = UndirectedEdges(rows.key, num_nodes).by_higher_end()[2]
    tail, head = (end.to(index_dtype(num_nodes)) for end in key_pairs(rows.key.index_select(0, order), num_nodes))
    for items, item, second, third in rows.common(order + 1, tail, head):
        first = order[items].index_select(0, item)
        yield edge_of.index_select(0, first), edge_of.index_select(0, second), edge_of.index_select(0, third)
