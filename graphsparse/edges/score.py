"""Edge scores: how much each undirected edge matters. The lowest scores are pruned first.

A score depends only on the graph: not on the order of the edges, and both directions of an edge have the same.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from graphsparse.edges.entries import Entries, check_edge_weight
from graphsparse.edges.undirected import UndirectedEdges
from graphsparse.ops.check import check_edge_index
from graphsparse.typing import EdgeScore

#: Takes the edges of a graph and the seed of the call, and returns one score for each, or one for each of its ends.
EdgeScoreRule: TypeAlias = Callable[..., Tensor]
#: Options of rules that are filled from the graph.
_FROM_GRAPH = ("edge_weight", "x")


@dataclass(frozen=True)
class _Rule:
    """A score under a name."""

    function: EdgeScoreRule
    directed: bool
    options: tuple[str, ...]


_RULES: dict[str, _Rule] = {}


def edge_score_rule(name: str, *, directed: bool = False) -> Callable[[EdgeScoreRule], EdgeScoreRule]:
    """Add a score under a name, which then works wherever a score is named.

    The decorated function takes the :class:`UndirectedEdges` of a graph and the ``seed`` of the call. It returns one
    real number for each edge, ``[M]`` in the order of the edges, which must not depend on the order they came in. It
    may return ``[2, M]`` instead, how much the lower end ``u`` of each edge values ``v``, and how much ``v`` values
    ``u``: such a score needs a local rule (:class:`Sparsifier`), which ranks the neighbours of each node.

    Keyword parameters are the options of the score. Two of them come from the graph: ``edge_weight``, ``[M]`` in
    float64, the mean of the entries of each edge, or ``None`` where the graph has none; and the node features ``x``.

    Args:
        name: The name.
        directed: The score also holds for the edges of a directed graph, given as edges from the source side of a node
            to the destination side of another one, numbered after all sources, so that a degree is that of one side.
            Without it a directed edge has the score of its undirected counterpart.

    Raises:
        ValueError: If another function has the name.

    Example:
        >>> @edge_score_rule("smaller_degree", directed=True)
        ... def smaller_degree(edges, seed):
        ...     degree = edges.degree()
        ...     return edges.fill(lambda u, v: torch.minimum(degree[u], degree[v]))
        >>> edge_score(torch.tensor([[0, 0, 0, 3, 1], [1, 2, 3, 4, 2]]), "smaller_degree")
        tensor([2, 2, 2, 1, 2])
    """

    def register(function: EdgeScoreRule) -> EdgeScoreRule:
        old = _RULES.get(name)
        if old and (old.function.__module__, old.function.__qualname__) != (function.__module__, function.__qualname__):
            taken = f"{old.function.__module__}.{old.function.__qualname__}"
            raise ValueError(f"'name' is taken by {taken} (got {name!r})")
        named = inspect.signature(function).parameters.values()
        options = tuple(parameter.name for parameter in named if parameter.kind is parameter.KEYWORD_ONLY)
        _RULES[name] = _Rule(function, directed, options)  # or a cell of a notebook that ran again
        return function

    return register


def check_score(score: object, options: Mapping[str, Any]) -> None:
    """Refuse what is neither the name of a score nor a callable, and options that the score does not have."""
    if isinstance(score, str) and score not in _RULES:
        raise ValueError(f"'score' must be a callable or one of {sorted(_RULES)} (got {score!r})")
    if not callable(score) and not isinstance(score, str):
        raise TypeError(f"'score' must be a name or a callable (got {type(score).__name__})")
    known = [name for name in _RULES[score].options if name not in _FROM_GRAPH] if isinstance(score, str) else []
    unknown = [name for name in options if name not in known]
    if unknown:
        raise ValueError(f"'options' of the score {score!r} may be {known} (got {unknown[0]!r})")


def uses(score: str | EdgeScore, name: str) -> bool:
    """Say whether a score takes ``"edge_weight"`` or ``"x"`` from the graph."""
    return isinstance(score, str) and name in _RULES[score].options


def score_edges(
    score: str | EdgeScore,
    entries: Entries,
    *,
    seed: int | None = None,
    edge_weight: Tensor | None = None,
    x: Tensor | None = None,
    options: Mapping[str, Any] | None = None,
) -> Tensor:
    """Return the score of each edge, ``[M]``, or of both of its ends, ``[2, M]``; see :func:`edge_score`."""
    if not isinstance(score, str):
        return _from_callable(score, entries)
    rule = _RULES[score]
    scored = entries if rule.directed else entries.undirected()
    named = dict(options or {})
    if "edge_weight" in rule.options:
        named["edge_weight"] = None if edge_weight is None else scored.per_edge(edge_weight, "mean")
    if "x" in rule.options:
        named["x"] = x
    values = rule.function(scored.edges, seed, **named)
    if values.is_floating_point() and values.isnan().any():
        raise ValueError(f"'score' returned NaN ({score!r})")
    return values if scored is entries else _of_directed(values, scored.edges, entries)


def _of_directed(values: Tensor, undirected: UndirectedEdges, entries: Entries) -> Tensor:
    """Return the scores of the edges of a directed graph from those of their undirected counterparts."""
    num_src = entries.num_nodes[0] if isinstance(entries.num_nodes, tuple) else entries.num_nodes
    bipartite = isinstance(entries.num_nodes, tuple)  # there both sides are numbered one after the other anyway
    out = values.new_empty((*values.shape[:-1], entries.edges.num_edges))
    for where, u, v in entries.edges.blocks():
        v = v if bipartite else v - num_src
        edge = undirected.position(u, v)
        part = values[..., edge]
        out[..., where] = torch.where(u < v, part, part.flip(0)) if values.dim() == 2 else part
    return out


def _from_callable(score: EdgeScore, entries: Entries) -> Tensor:
    num_entries = entries.edge_index.size(1)
    total = sum(entries.num_nodes) if isinstance(entries.num_nodes, tuple) else entries.num_nodes
    values = score(entries.edge_index, total)
    if not isinstance(values, Tensor) or values.shape != (num_entries,):
        got = list(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise ValueError(f"'score' must return one value per edge, shape [{num_entries}] (got {got})")
    values = values.detach().to(entries.edge_index.device)
    if values.dtype == torch.bool or values.is_complex():
        raise TypeError(f"'score' must return real numbers (got {values.dtype})")
    if values.is_floating_point() and values.isnan().any():
        raise ValueError("'score' returned NaN")
    # An edge is worth what its better entry is worth: the maximum does not depend on the order of the entries.
    return entries.per_edge(values, "amax")


def edge_score(
    edge_index: Tensor,
    score: str | EdgeScore = "teddy",
    *,
    num_nodes: int | tuple[int, int] | None = None,
    seed: int | None = None,
    edge_weight: Tensor | None = None,
    x: Tensor | None = None,
    options: Mapping[str, Any] | None = None,
) -> Tensor:
    r"""Score every edge of a graph; low scores are pruned first.

    With :math:`d` the degrees of the undirected graph without self-loops and duplicates, the named scores are

    ======================= ===============================================================================
    ``teddy``               :math:`t_u t_v` with :math:`t_v = d_v^{-2} \sum_{w \in N(v)} d_w^{-1/2}`
    ``reverse_teddy``       the opposite order, a control
    ``degree``              :math:`1 / (d_u d_v)`
    ``inverse_degree_sum``  :math:`1/d_u + 1/d_v`, by which DSpar (TMLR 2023) draws edges
    ``neighbor_degree``     :math:`d_v` at :math:`u` and :math:`d_u` at :math:`v`, for local rules
    ``random``              an independent draw per edge, the same for the same ``seed`` in every edge list
    ``jaccard``             :math:`|N(u) \cap N(v)| / |N(u) \cup N(v)|`
    ``triangles``           :math:`t = |N(u) \cap N(v)|`
    ``triangle_lift``       :math:`t (N - 2) / ((d_u - 1)(d_v - 1))`
    ``scan``                :math:`(t + 1) / \sqrt{(d_u + 1)(d_v + 1)}`
    ``simmelian``           the same as ``jaccard`` for strongest neighbours, at the best number of them
    ``simmelian_overlap``   how many of the ``max_rank=10`` strongest neighbours are the same
    ``disparity``           :math:`1 - (1 - w / s)^{d - 1}` at the better end, with the sum :math:`s` of its weights
    ``triangle_multiscale`` ``disparity`` of the numbers of triangles
    ``weight``              :math:`w`
    ``message_norm``        :math:`w \lVert x_u \rVert / \sqrt{d_u d_v}`, which needs ``x``
    ``resistance``          :math:`w` times the effective resistance, see :func:`effective_resistance`
    ``algebraic_distance``  one minus how far the ends stay apart when random values are averaged along edges
    ``forest_fire``         how often an edge burns in fires that start at random nodes
    ``rank_degree``         how early a walk along neighbours of high degree takes an edge
    ======================= ===============================================================================

    and those that :func:`edge_score_rule` added. The degree scores take :math:`O(N + E)` time and memory after one sort
    of the edges. No score depends on the order of the edges. Sums of integers and of fixed-point numbers are exact, so
    that all but ``resistance`` and ``algebraic_distance``, and sums of weights, are the same on every device.

    Args:
        edge_index: Edges as ``[2, E]``, int64 or int32, in any order. A directed graph is scored as its undirected
            counterpart.
        score: A name of the table, or a callable ``(edge_index, num_nodes) -> Tensor[E]``. Where a callable gives the
            entries of one undirected edge different values, the largest counts.
        num_nodes: Number of nodes, or ``(num_src, num_dst)`` for a bipartite graph.
        seed: Seed of ``random``; ``None`` draws one from PyTorch's global generator.
        edge_weight: Weights of the edges ``[E]``, not negative, for scores that use them; an edge has the mean of its
            entries. An entry of weight 0 is no edge, and scores the smallest value.
        x: Node features ``[N, F]``, for scores that use them.
        options: Options of the score by name.

    Returns:
        Scores as ``[E]``, aligned with ``edge_index``; bitwise equal for both directions of an edge. Self-loops, which
        are never pruned, score the largest value of the type.

    Raises:
        TypeError: If ``edge_index`` is not an integer tensor or ``score`` is neither name nor callable.
        ValueError: If an index is out of range, the name or an option is unknown, a callable returns the wrong shape or
            NaN, or the score has two values for an edge, one for each end.

    Example:
        >>> edge_score(torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]), "degree")
        tensor([0.5000, 0.5000, 0.5000, 0.5000])

    Source: Seo et al., *TEDDY: Trimming Edges with Degree-based Discrimination strategY*, arXiv 2402.01261, Section 4.
    """
    check_score(score, options or {})
    num_src, num_dst = check_edge_index(edge_index, num_nodes)
    there = weight = None
    if edge_weight is not None and uses(score, "edge_weight"):
        weight = check_edge_weight(edge_weight, edge_index)
        there = weight > 0  # weight 0 means removed: no edge of the graph
        edge_index, weight = edge_index[:, there], weight[there]
    entries = Entries(edge_index, (num_src, num_dst) if isinstance(num_nodes, tuple) else num_src)
    values = score_edges(score, entries, seed=seed, edge_weight=weight, x=x, options=options)
    if values.dim() == 2:
        raise ValueError(f"'score' {score!r} has a value for each end of an edge: it needs a local rule")
    info = torch.finfo(values.dtype) if values.is_floating_point() else torch.iinfo(values.dtype)
    scores = entries.per_entry(values, loops=torch.inf if values.is_floating_point() else info.max)
    if there is None:
        return scores
    lowest = -torch.inf if values.is_floating_point() else info.min
    return scores.new_full(there.shape, lowest).masked_scatter_(there, scores)
