r"""Edge scores: how much each undirected edge matters. The lowest scores are pruned first.

Every score is symmetric by construction, so both directions of an edge get the same bits, and depends only on the
graph: not on the order of the edges, and not on the device.
"""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from graphsparse.typing import EdgeScore
from graphsparse.utils.counter_random import GAMMA, mix64
from graphsparse.utils.triangles import triangles_per_edge
from graphsparse.utils.undirected import UndirectedEdges, entry_blocks, undirected_edges

#: Scores of edges given by two vectors of end points, smaller one first.
PairScore: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def _teddy(edges: UndirectedEdges, seed: int | None, self_loops: bool = False) -> PairScore:
    degree = edges.degree() + int(self_loops)
    # Sums of 1/sqrt(d) as fixed-point integers: exact, hence the same for every order of the edges and every device.
    shift = 62 - max(int(degree.max()) if degree.numel() else 0, 1).bit_length()
    inverse_root = 1 / degree.clamp(min=1).to(torch.float64).sqrt_()
    fixed = (inverse_root * 2.0**shift).to(torch.int64)
    total = fixed.clone() if self_loops else torch.zeros_like(degree)
    for _, u, v in edges.blocks():
        total.index_add_(0, u, fixed[v])
        total.index_add_(0, v, fixed[u])
    node = total.to(torch.float64) * 2.0**-shift / degree.clamp(min=1).to(torch.float64).square()
    return lambda u, v: (node[u] * node[v]).to(torch.float32)


def _reverse_teddy(edges: UndirectedEdges, seed: int | None) -> PairScore:
    score = _teddy(edges, seed)
    return lambda u, v: -score(u, v)


def _degree(edges: UndirectedEdges, seed: int | None) -> PairScore:
    degree = edges.degree().to(torch.float64)
    return lambda u, v: (1 / (degree[u] * degree[v])).to(torch.float32)


def _dspar(edges: UndirectedEdges, seed: int | None) -> PairScore:
    inverse = 1 / edges.degree().to(torch.float64)
    return lambda u, v: (inverse[u] + inverse[v]).to(torch.float32)


def _jaccard(edges: UndirectedEdges, seed: int | None) -> PairScore:
    degree = edges.degree()
    common = triangles_per_edge(edges, degree)

    def score(u: Tensor, v: Tensor) -> Tensor:
        shared = common[edges.position(u * edges.num_nodes + v)]
        return (shared.to(torch.float64) / (degree[u] + degree[v] - shared)).to(torch.float32)

    return score


def _random(edges: UndirectedEdges, seed: int | None) -> PairScore:
    if seed is None:
        seed = int(torch.randint(2**62, ()))

    def score(u: Tensor, v: Tensor) -> Tensor:
        # A hash of the edge key: one draw per edge that needs no memory and no order, so the same edge gets the same
        # number in every edge list that holds it.
        return mix64(u * edges.num_nodes + v + (seed + 1) * GAMMA % 2**63)

    return score


_SCORES: dict[str, Callable[[UndirectedEdges, int | None], PairScore]] = {
    "teddy": _teddy,
    "reverse_teddy": _reverse_teddy,
    "degree": _degree,
    "dspar": _dspar,
    "jaccard": _jaccard,
    "random": _random,
}


def pair_score(
    score: str | EdgeScore,
    edges: UndirectedEdges,
    edge_index: Tensor,
    num_src: int | None = None,
    *,
    seed: int | None = None,
    count_self_loops: bool = False,
) -> PairScore:
    """Resolve a score by name or callable into a symmetric function of two end points."""
    if count_self_loops and score != "teddy":
        raise ValueError(f"'count_self_loops' replicates the released 'teddy' score only (got score={score!r})")
    if isinstance(score, str):
        if score not in _SCORES:
            raise ValueError(f"'score' must be a callable or one of {sorted(_SCORES)} (got {score!r})")
        return _teddy(edges, seed, self_loops=True) if count_self_loops else _SCORES[score](edges, seed)
    if not callable(score):
        raise TypeError(f"'score' must be a name or a callable (got {type(score).__name__})")
    return _from_callable(score, edges, edge_index, num_src)


def _from_callable(score: EdgeScore, edges: UndirectedEdges, edge_index: Tensor, num_src: int | None) -> PairScore:
    values = score(edge_index, edges.num_nodes)
    if not isinstance(values, Tensor) or values.shape != (edge_index.size(1),):
        got = list(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise ValueError(f"'score' must return one value per edge, shape [{edge_index.size(1)}] (got {got})")
    values = values.detach().to(edge_index.device)
    if values.dtype == torch.bool or values.is_complex():
        raise TypeError(f"'score' must return real numbers (got {values.dtype})")
    if values.is_floating_point() and values.isnan().any():
        raise ValueError("'score' returned NaN")
    # An edge is worth what its better entry is worth: the maximum does not depend on the order of the entries.
    lowest = -torch.inf if values.is_floating_point() else torch.iinfo(values.dtype).min
    best = values.new_full((edges.num_edges,), lowest)
    for where, low, high in entry_blocks(edge_index, num_src):
        edge = low != high
        position = edges.position((low * edges.num_nodes + high)[edge])
        best.scatter_reduce_(0, position, values[where][edge], "amax")
    return lambda u, v: best[edges.position(u * edges.num_nodes + v)]


def edge_score(
    edge_index: Tensor,
    score: str | EdgeScore = "teddy",
    *,
    num_nodes: int | tuple[int, int] | None = None,
    seed: int | None = None,
    count_self_loops: bool = False,
) -> Tensor:
    r"""Score every edge of a graph; low scores are pruned first.

    With :math:`d` the degrees of the undirected graph without self-loops and duplicates, the named scores are

    ================== ====================================================================================
    ``teddy``          :math:`t_u t_v` with :math:`t_v = d_v^{-2} \sum_{w \in N(v)} d_w^{-1/2}`
    ``reverse_teddy``  the opposite order, a control
    ``degree``         :math:`1 / (d_u d_v)`, the end points only
    ``dspar``          :math:`1/d_u + 1/d_v` (DSpar, TMLR 2023, used deterministically)
    ``jaccard``        :math:`|N(u) \cap N(v)| / |N(u) \cup N(v)|`
    ``random``         an independent draw per edge, the same for the same ``seed`` in every edge list
    ================== ====================================================================================

    Args:
        edge_index: Edges as ``[2, E]``, int64 or int32, in any order. A directed graph is scored as its undirected
            counterpart.
        score: A name of the table, or a callable ``(edge_index, num_nodes) -> Tensor[E]``. Where a callable gives the
            entries of one undirected edge different values, the largest counts.
        num_nodes: Number of nodes, or ``(num_src, num_dst)`` for a bipartite graph.
        seed: Seed of ``random``; ``None`` draws one from PyTorch's global generator.
        count_self_loops: Score as if every node had a self-loop, as the released code of TEDDY does for GAT. For
            replication only.

    Returns:
        Scores as ``[E]``, aligned with ``edge_index``; bitwise equal for both directions of an edge. Self-loops, which
        are never pruned, score the largest value of the type.

    Raises:
        TypeError: If ``edge_index`` is not an integer tensor or ``score`` is neither name nor callable.
        ValueError: If an index is out of range, the name is unknown, or a callable returns the wrong shape or NaN.

    Example:
        >>> edge_score(torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]), "degree")
        tensor([0.5000, 0.5000, 0.5000, 0.5000])
    """
    edges = undirected_edges(edge_index, num_nodes)
    num_src = num_nodes[0] if isinstance(num_nodes, tuple) else None
    of_pair = pair_score(score, edges, edge_index, num_src, seed=seed, count_self_loops=count_self_loops)
    nothing = edges.key[:0]
    dtype = of_pair(nothing, nothing).dtype
    top = torch.inf if dtype.is_floating_point else torch.iinfo(dtype).max
    scores = torch.full((edge_index.size(1),), top, dtype=dtype, device=edge_index.device)
    for where, low, high in entry_blocks(edge_index, num_src):
        edge = (low != high).nonzero().squeeze(1)
        scores[where][edge] = of_pair(low[edge], high[edge])
    return scores


def teddy_score(edge_index: Tensor, num_nodes: int | None = None, *, count_self_loops: bool = False) -> Tensor:
    r"""Score edges by the degrees around them; high means low-degree surroundings, keep.

    .. math::
        s(u, v) = t_u \, t_v, \qquad t_v = \frac{1}{d_v^2} \sum_{w \in N(v)} \frac{1}{\sqrt{d_w}}

    on the undirected graph without self-loops and duplicates, in :math:`O(N + E)` time and memory after one sort of
    the edges. The sums are exact, so the result does not depend on the order of the edges, on the numbering of the
    nodes or on the device.

    Args:
        edge_index: Edges as ``[2, E]``, int64 or int32, in any order.
        num_nodes: Number of nodes; the largest index plus one when ``None``.
        count_self_loops: Score as if every node had a self-loop, as the released code does for GAT (replication only).

    Returns:
        float32 scores ``[E]``, aligned with ``edge_index`` and infinite for self-loops.

    Raises:
        TypeError: If ``edge_index`` is not an integer tensor.
        ValueError: If its shape or an index is out of range.

    Example:
        >>> edge_index = torch.tensor([[0, 0, 0, 3, 1], [1, 2, 3, 4, 2]])
        >>> teddy_score(edge_index)
        tensor([0.0757, 0.0757, 0.0929, 0.2788, 0.1031])

    Source: Seo et al., *TEDDY: Trimming Edges with Degree-based Discrimination strategY*, arXiv 2402.01261, Section 4.
    """
    return edge_score(edge_index, "teddy", num_nodes=num_nodes, count_self_loops=count_self_loops)
