"""Edge scores: how much each undirected edge matters. The lowest scores are pruned first.

Every score is symmetric by construction, so both directions of an edge get the same bits, and depends only on the
graph: not on the order of the edges, and not on the device.
"""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from graphsparse.edges.undirected import UndirectedEdges, entry_blocks, undirected_edges
from graphsparse.typing import EdgeScore

#: Scores of edges given by two vectors of end points, smaller one first.
PairScore: TypeAlias = Callable[[Tensor, Tensor], Tensor]
#: Looks at a graph once, with the seed of the call, and returns the score of any of its edges.
EdgeScoreRule: TypeAlias = Callable[[UndirectedEdges, "int | None"], PairScore]

_RULES: dict[str, EdgeScoreRule] = {}


def edge_score_rule(name: str) -> Callable[[EdgeScoreRule], EdgeScoreRule]:
    """Add a score under a name, which then works wherever a score is named.

    The decorated function takes the :class:`UndirectedEdges` of a graph and the ``seed`` of the call. It returns a
    function of two int64 vectors of end points, ``u < v``, that gives one real number per edge and must not depend on
    the order of the edges. That function is called several times with parts of the edges, so that a graph of any size
    needs little memory; what costs much is worked out once, before it is returned.

    Raises:
        ValueError: If another function has the name.

    Example:
        >>> @edge_score_rule("smaller_degree")
        ... def smaller_degree(edges, seed):
        ...     degree = edges.degree()
        ...     return lambda u, v: torch.minimum(degree[u], degree[v])
        >>> edge_score(torch.tensor([[0, 0, 0, 3, 1], [1, 2, 3, 4, 2]]), "smaller_degree")
        tensor([2, 2, 2, 1, 2])
    """

    def register(rule: EdgeScoreRule) -> EdgeScoreRule:
        old = _RULES.setdefault(name, rule)
        if (old.__module__, old.__qualname__) != (rule.__module__, rule.__qualname__):
            raise ValueError(f"'name' is taken by {old.__module__}.{old.__qualname__} (got {name!r})")
        _RULES[name] = rule  # a cell of a notebook that ran again
        return rule

    return register


def pair_score(
    score: str | EdgeScore,
    edges: UndirectedEdges,
    edge_index: Tensor,
    num_src: int | None = None,
    *,
    seed: int | None = None,
) -> PairScore:
    """Turn a name or a callable into a symmetric function of two end points."""
    check_score(score)
    if isinstance(score, str):
        return _RULES[score](edges, seed)
    return _from_callable(score, edges, edge_index, num_src)


def check_score(score: object) -> None:
    """Refuse what is neither the name of a score nor a callable."""
    if isinstance(score, str) and score not in _RULES:
        raise ValueError(f"'score' must be a callable or one of {sorted(_RULES)} (got {score!r})")
    if not callable(score) and not isinstance(score, str):
        raise TypeError(f"'score' must be a name or a callable (got {type(score).__name__})")


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
        position = edges.position(low[edge], high[edge])
        best.scatter_reduce_(0, position, values[where][edge], "amax")
    return lambda u, v: best[edges.position(u, v)]


def edge_score(
    edge_index: Tensor,
    score: str | EdgeScore = "teddy",
    *,
    num_nodes: int | tuple[int, int] | None = None,
    seed: int | None = None,
) -> Tensor:
    r"""Score every edge of a graph; low scores are pruned first.

    With :math:`d` the degrees of the undirected graph without self-loops and duplicates, the named scores are

    ====================== ================================================================================
    ``teddy``              :math:`t_u t_v` with :math:`t_v = d_v^{-2} \sum_{w \in N(v)} d_w^{-1/2}`
    ``reverse_teddy``      the opposite order, a control
    ``degree``             :math:`1 / (d_u d_v)`
    ``inverse_degree_sum`` :math:`1/d_u + 1/d_v`; DSpar (TMLR 2023) samples by it and reweights, this ranks
    ``jaccard``            :math:`|N(u) \cap N(v)| / |N(u) \cup N(v)|`
    ``random``             an independent draw per edge, the same for the same ``seed`` in every edge list
    ====================== ================================================================================

    and those that :func:`edge_score_rule` added. The degree scores take :math:`O(N + E)` time and memory after one sort
    of the edges. Their sums are exact, so no score depends on the order of the edges or on the device.

    Args:
        edge_index: Edges as ``[2, E]``, int64 or int32, in any order. A directed graph is scored as its undirected
            counterpart.
        score: A name of the table, or a callable ``(edge_index, num_nodes) -> Tensor[E]``. Where a callable gives the
            entries of one undirected edge different values, the largest counts.
        num_nodes: Number of nodes, or ``(num_src, num_dst)`` for a bipartite graph.
        seed: Seed of ``random``; ``None`` draws one from PyTorch's global generator.

    Returns:
        Scores as ``[E]``, aligned with ``edge_index``; bitwise equal for both directions of an edge. Self-loops, which
        are never pruned, score the largest value of the type.

    Raises:
        TypeError: If ``edge_index`` is not an integer tensor or ``score`` is neither name nor callable.
        ValueError: If an index is out of range, the name is unknown, or a callable returns the wrong shape or NaN.

    Example:
        >>> edge_score(torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]), "degree")
        tensor([0.5000, 0.5000, 0.5000, 0.5000])

    Source: Seo et al., *TEDDY: Trimming Edges with Degree-based Discrimination strategY*, arXiv 2402.01261, Section 4.
    """
    edges = undirected_edges(edge_index, num_nodes)
    num_src = num_nodes[0] if isinstance(num_nodes, tuple) else None
    of_pair = pair_score(score, edges, edge_index, num_src, seed=seed)
    nothing = edges.key[:0]
    dtype = of_pair(nothing, nothing).dtype
    top = torch.inf if dtype.is_floating_point else torch.iinfo(dtype).max
    scores = torch.full((edge_index.size(1),), top, dtype=dtype, device=edge_index.device)
    for where, low, high in entry_blocks(edge_index, num_src):
        edge = (low != high).nonzero().squeeze(1)
        scores[where][edge] = of_pair(low[edge], high[edge])
    return scores
