"""Scores that follow from the degrees around an edge, in O(N + E)."""

import torch
from torch import Tensor

from graphsparse.edges.score import edge_score_rule
from graphsparse.edges.undirected import UndirectedEdges


@edge_score_rule("teddy", directed=True)
def teddy(edges: UndirectedEdges, seed: int | None) -> Tensor:
    r"""Product of :math:`t_v = d_v^{-2} \sum_{w \in N(v)} d_w^{-1/2}` over both ends.

    Source: Seo et al., *TEDDY: Trimming Edges with Degree-based Discrimination strategY*, arXiv 2402.01261, Section 4.
    """
    degree = edges.degree()
    # Sums of 1/sqrt(d) as fixed-point integers: exact, hence the same for every order of the edges and every device.
    shift = 62 - max(int(degree.max()) if degree.numel() else 0, 1).bit_length()
    inverse_root = 1 / degree.clamp(min=1).to(torch.float64).sqrt_()
    fixed = (inverse_root * 2.0**shift).to(torch.int64)
    total = torch.zeros_like(degree)
    for _, u, v in edges.blocks():
        total.index_add_(0, u, fixed[v])
        total.index_add_(0, v, fixed[u])
    node = total.to(torch.float64) * 2.0**-shift / degree.clamp(min=1).to(torch.float64).square()
    return edges.fill(lambda u, v: (node[u] * node[v]).to(torch.float32))


@edge_score_rule("reverse_teddy", directed=True)
def reverse_teddy(edges: UndirectedEdges, seed: int | None) -> Tensor:
    """The opposite order of ``teddy``."""
    return -teddy(edges, seed)


@edge_score_rule("degree", directed=True)
def degree(edges: UndirectedEdges, seed: int | None) -> Tensor:
    """One over the product of the degrees of both ends."""
    degree = edges.degree().to(torch.float64)
    return edges.fill(lambda u, v: (1 / (degree[u] * degree[v])).to(torch.float32))


@edge_score_rule("inverse_degree_sum", directed=True)
def inverse_degree_sum(edges: UndirectedEdges, seed: int | None) -> Tensor:
    """Sum of one over the degree of both ends: the sampling weights of DSpar (TMLR 2023), which ranks nothing."""
    inverse = 1 / edges.degree().to(torch.float64)
    return edges.fill(lambda u, v: (inverse[u] + inverse[v]).to(torch.float32))


@edge_score_rule("neighbor_degree", directed=True)
def neighbor_degree(edges: UndirectedEdges, seed: int | None) -> Tensor:
    """Degree of the other end, one score for each end: under the local rule ``"exponent"`` this is local degree.

    Source: Hamann et al., *Structure-preserving sparsification methods for social networks*, SNAM 6 (2016).
    """
    degree = edges.degree()
    return torch.stack([edges.fill(lambda u, v: degree[v]), edges.fill(lambda u, v: degree[u])])
