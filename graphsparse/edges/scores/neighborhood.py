"""Scores that follow from the common neighbours of both ends of an edge."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from graphsparse.edges.score import edge_score_rule
from graphsparse.edges.undirected import UndirectedEdges
from graphsparse.ops.blocks import BLOCK
from graphsparse.ops.pairs import key_pairs, pair_keys


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
    for triangles in triangle_blocks(edges, degree):
        one = torch.ones_like(triangles[0])
        for edge in triangles:
            common.index_add_(0, edge, one)
    return common


def triangle_blocks(edges: UndirectedEdges, degree: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    r"""Yield the three edges of every triangle, each triangle once, in blocks.

    Edges are oriented from lower to higher degree, which leaves every node at most :math:`\sqrt{2M}` successors; each
    triangle is then found once, as a pair of successors that are joined. Wedges are examined in bounded blocks.
    """
    num_nodes, num_edges = edges.num_nodes, edges.num_edges
    rank = torch.empty_like(degree)
    rank[torch.argsort(degree, stable=True)] = torch.arange(num_nodes, device=degree.device)
    oriented = torch.empty_like(edges.key)
    for where, u, v in edges.blocks():
        oriented[where] = pair_keys((rank[u], rank[v]), num_nodes)
    oriented, edge_of = oriented.sort()
    tail, head = key_pairs(oriented, num_nodes)
    pointer = torch.zeros(num_nodes + 1, dtype=torch.int64, device=degree.device)
    torch.cumsum(torch.bincount(tail, minlength=num_nodes), 0, out=pointer[1:])
    # The wedges of entry i join its head with every later successor of its tail.
    later = pointer[tail + 1] - 1 - torch.arange(num_edges, device=tail.device)
    last = later.cumsum(0)
    start = 0
    while start < num_edges:
        before = int(last[start - 1]) if start else 0
        stop = max(int(torch.searchsorted(last, before + BLOCK, right=True)), start + 1)
        count = later[start:stop]
        first = torch.repeat_interleave(torch.arange(start, stop, device=tail.device), count)
        offset = torch.arange(first.numel(), device=tail.device) - torch.repeat_interleave(
            count.cumsum(0) - count, count
        )
        second = first + 1 + offset
        # Heads rise with the second entry: keys come in sorted runs, and sorting all of them first would cost more.
        key = head[first] * num_nodes + head[second]
        third = torch.searchsorted(oriented, key).clamp_(max=num_edges - 1)
        closed = oriented[third] == key
        yield edge_of[first[closed]], edge_of[second[closed]], edge_of[third[closed]]
        start = stop
