"""Scores that follow from the weights of the edges, or from the features of their ends."""

import torch
from torch import Tensor

from graphsparse.edges.score import edge_score_rule
from graphsparse.edges.scores.neighborhood import triangles_per_edge
from graphsparse.edges.undirected import UndirectedEdges


@edge_score_rule("weight", directed=True)
def weight(edges: UndirectedEdges, seed: int | None, *, edge_weight: Tensor | None = None) -> Tensor:
    """The weight of the edge itself."""
    if edge_weight is None:
        raise ValueError("'edge_weight' must be given for the score 'weight' (got None)")
    return edge_weight


@edge_score_rule("disparity", directed=True)
def disparity(edges: UndirectedEdges, seed: int | None, *, edge_weight: Tensor | None = None) -> Tensor:
    r"""How unlikely the weight is at a node, :math:`1 - (1 - w / s_i)^{d_i - 1}`, the larger value of both ends.

    Here :math:`s_i` is the sum of the weights at node :math:`i`; all weights are 1 where none are given.

    Source: Serrano, Boguna and Vespignani, *Extracting the multiscale backbone of complex weighted networks*,
    PNAS 106 (2009).
    """
    return _disparity(
        edges, torch.ones(edges.num_edges, device=edges.key.device) if edge_weight is None else edge_weight
    )


@edge_score_rule("triangle_multiscale")
def triangle_multiscale(edges: UndirectedEdges, seed: int | None) -> Tensor:
    """``disparity`` with the number of triangles of each edge as its weight."""
    return _disparity(edges, triangles_per_edge(edges, edges.degree()))


def _disparity(edges: UndirectedEdges, value: Tensor) -> Tensor:
    value, degree = value.double(), edges.degree().double()
    strength = torch.zeros_like(degree)
    for where, u, v in edges.blocks():
        strength.index_add_(0, u, value[where]).index_add_(0, v, value[where])
    strength.masked_fill_(strength == 0, torch.inf)  # where all is 0 a node has no say
    score = torch.empty_like(value)
    for where, u, v in edges.blocks():
        likely = torch.stack([(1 - value[where] / strength[end]).clamp_(min=0) ** (degree[end] - 1) for end in (u, v)])
        score[where] = 1 - likely.amin(0)
    return score


@edge_score_rule("message_norm")
def message_norm(
    edges: UndirectedEdges, seed: int | None, *, edge_weight: Tensor | None = None, x: Tensor | None = None
) -> Tensor:
    r"""Length of what GCN sends, :math:`w_{uv} \lVert x_u \rVert / \sqrt{d_u d_v}`, in the direction that sends more.

    Degrees are sums of weights, with a self-loop each.

    Source: Liao et al., *Unifews*, ICML 2025, whose first layer this is.
    """
    if x is None or x.dim() != 2 or x.size(0) != edges.num_nodes:
        got = None if x is None else list(x.shape)
        raise ValueError(f"'x' must have shape [{edges.num_nodes}, F] for the score 'message_norm' (got {got})")
    norm = torch.linalg.vector_norm(x.to_dense() if x.layout != torch.strided else x, dim=1).double()
    value = torch.ones(edges.num_edges, dtype=torch.float64, device=norm.device) if edge_weight is None else edge_weight
    strength = torch.ones_like(norm)
    for where, u, v in edges.blocks():
        strength.index_add_(0, u, value[where]).index_add_(0, v, value[where])
    score = torch.empty_like(value)
    for where, u, v in edges.blocks():
        score[where] = value[where] * torch.maximum(norm[u], norm[v]) / (strength[u] * strength[v]).sqrt()
    return score
