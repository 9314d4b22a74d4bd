"""A way to choose edges as one object, and the published ones by name."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from graphsparse.edges.cores import CORES
from graphsparse.edges.inclusion import DESIGNS
from graphsparse.edges.score import check_score, uses
from graphsparse.typing import EdgeScore


@dataclass(frozen=True)
class Sparsifier:
    r"""A way to choose edges: score, local rule, core, and how the rest of the edges is spent.

    It is given wherever a score is given. How many edges go is said there.

    Args:
        score: Name of a score (see :func:`edge_score`) or a callable ``(edge_index, num_nodes) -> Tensor[E]``.
        local: What ranks the edges of each node among themselves, with :math:`r` the rank of an edge among the
            :math:`d` edges of an end: ``"exponent"`` is :math:`1 - \log r / \log d`, so that a node keeps its
            :math:`d^c` best edges; ``"linear"`` is :math:`1 - (r - 1) / (d - 1)`, the same share everywhere;
            ``"rank"`` is :math:`-r`, the same number everywhere.
        combine: An edge stays if one of its ends wants it (``"either"``) or only if both do (``"both"``).
        core: Edges that are kept first. ``"forest"``, the spanning forest with the best scores, keeps connected what is
            connected; ``"spanner"`` leaves a detour of at most three edges for each edge that goes; ``"metric"`` leaves
            every distance as it was, with edges as long as one over their weight (``"metric_exact"`` keeps fewer edges,
            on up to 20,000 nodes).
        design: ``"top"`` keeps the best edges. The others draw edges with a probability that is proportional to the
            score: ``"pivotal"`` and ``"systematic"`` exactly so many, ``"poisson"`` each by itself, and
            ``"replacement"`` with replacement.
        reweight: Divide the weight of an edge that is drawn by how often it is expected, so that the expected adjacency
            matrix is the given one. By default where edges are drawn by a score other than ``"random"``, under which
            all are equally likely.
        directed: Each directed edge is one thing, with a degree that is that of its side.
        side: Where edges are directed, whose edges a local rule ranks: those into a node (``"dst"``), which bounds what
            a layer reads for it, or those out of it (``"src"``).
        options: Options of the score.
        source: Where it was published.

    Raises:
        TypeError: If the score is neither name nor callable.
        ValueError: If a name is unknown, or options do not fit together.

    Example:
        >>> Sparsifier("jaccard", local="exponent").nested
        True
        >>> import torch
        >>> from graphsparse.edges import sparsify_edge
        >>> edge_index = torch.tensor([[0, 0, 0, 3, 1], [1, 2, 3, 4, 2]])
        >>> sparsify_edge(edge_index, score=Sparsifier("random", local="rank"), num_neighbors=1, seed=0)[0].shape
        torch.Size([2, 3])
    """

    score: str | EdgeScore = "teddy"
    local: Literal["exponent", "linear", "rank"] | None = None
    combine: Literal["either", "both"] = "either"
    core: str | None = None
    design: str = "top"
    reweight: bool | None = None
    directed: bool = False
    side: Literal["dst", "src"] = "dst"
    options: Mapping[str, Any] = field(default_factory=dict)
    source: str = field(default="", compare=False, repr=False)

    def __post_init__(self) -> None:
        check_score(self.score, self.options)
        for name, known in (
            ("local", [None, "exponent", "linear", "rank"]),
            ("combine", ["either", "both"]),
            ("core", [None, *CORES]),
            ("design", ["top", *DESIGNS]),
            ("side", ["dst", "src"]),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"'{name}' must be one of {known} (got {getattr(self, name)!r})")
        if self.local and self.design != "top":
            raise ValueError(f"'local' ranks edges, and 'design' {self.design!r} draws them: one of the two")
        if self.reweight and self.design == "top":
            raise ValueError("'reweight' needs a 'design' that draws edges (got 'top', which keeps the best ones)")

    def drawn(self) -> "Sparsifier":
        """Return it with the design ``"pivotal"`` where it would give the same edges each time."""
        return replace(self, design="pivotal") if self.design == "top" and self.score != "random" else self

    @property
    def reweights(self) -> bool:
        """Whether the edges that are kept get new weights."""
        return self.design != "top" and self.score != "random" if self.reweight is None else self.reweight

    @property
    def nested(self) -> bool:
        """Whether the edges kept at one sparsity are kept at every lower one."""
        return self.design == "top"

    @property
    def uses_weight(self) -> bool:
        """Whether the weights of the edges say which ones stay; a core stands on edges whose weight is not 0."""
        return self.reweights or self.core is not None or uses(self.score, "edge_weight")


def sparsifier(name: str, **changes: Any) -> Sparsifier:
    """Return a published way to choose edges, one of :data:`SPARSIFIERS`, with some of its fields changed.

    Raises:
        ValueError: If the name is unknown.

    Example:
        >>> sparsifier("k_neighbor", directed=True).local
        'rank'
    """
    if name not in SPARSIFIERS:
        raise ValueError(f"'name' must be one of {sorted(SPARSIFIERS)} (got {name!r})")
    return replace(SPARSIFIERS[name], **changes)


def as_sparsifier(score: "str | EdgeScore | Sparsifier") -> Sparsifier:
    """Return what is given where a score is: a sparsifier, its name, or that of a score, or a callable."""
    if isinstance(score, Sparsifier):
        return score
    return SPARSIFIERS[score] if isinstance(score, str) and score in SPARSIFIERS else Sparsifier(score)


_HAMANN = "Hamann et al., SNAM 6 (2016)"
_SPIELMAN = "Spielman and Srivastava, SIAM J. Comput. 40 (2011)"

#: Published ways to choose edges, by name.
SPARSIFIERS: dict[str, Sparsifier] = {
    "random": Sparsifier("random", source="DropEdge draws it anew in each epoch (Rong et al., ICLR 2020)"),
    "k_neighbor": Sparsifier("random", local="rank", source="Chen et al., VLDB 2024; arXiv 2603.06952"),
    "degree": Sparsifier("degree", source="Seo et al., arXiv 2402.01261"),
    "teddy": Sparsifier("teddy", source="Seo et al., arXiv 2402.01261"),
    "reverse_teddy": Sparsifier("reverse_teddy", source="a control"),
    "local_degree": Sparsifier("neighbor_degree", local="exponent", source=_HAMANN),
    "l_spar": Sparsifier("jaccard", local="exponent", source="Satuluri et al., SIGMOD 2011"),
    "g_spar": Sparsifier("jaccard", source="Satuluri et al., SIGMOD 2011"),
    "scan": Sparsifier("scan", source="Xu et al., KDD 2007"),
    "simmelian": Sparsifier("simmelian", source="Nick et al., ASONAM 2013"),
    "simmelian_overlap": Sparsifier("simmelian_overlap", source="Nick et al., ASONAM 2013"),
    "triangles": Sparsifier("triangles", source=_HAMANN),
    "triangle_lift": Sparsifier("triangle_lift", source=_HAMANN),
    "triangle_multiscale": Sparsifier("triangle_multiscale", source=_HAMANN),
    "disparity": Sparsifier("disparity", source="Serrano et al., PNAS 106 (2009)"),
    "algebraic_distance": Sparsifier("algebraic_distance", source="Chen and Safro, SISC 33 (2011)"),
    "forest_fire": Sparsifier("forest_fire", source=f"Leskovec et al., KDD 2005; {_HAMANN}"),
    "rank_degree": Sparsifier("rank_degree", source="Voudigari et al., ASONAM 2016"),
    "message_norm": Sparsifier("message_norm", source="Liao et al., Unifews, ICML 2025, first layer"),
    "dspar": Sparsifier("inverse_degree_sum", design="pivotal", source="Liu et al., TMLR 2023, with an exact count"),
    "dspar_published": Sparsifier("inverse_degree_sum", design="replacement", source="Liu et al., TMLR 2023"),
    "resistance": Sparsifier("resistance", source="Chen et al., VLDB 2024"),
    "resistance_pivotal": Sparsifier("resistance", design="pivotal", source=f"{_SPIELMAN}, with an exact count"),
    "resistance_published": Sparsifier("resistance", design="replacement", source=_SPIELMAN),
    "forest": Sparsifier("random", core="forest", source="a random spanning forest, filled up at random"),
    "spanner": Sparsifier(
        "random", core="spanner", source="Althofer et al., DCG 9 (1993), stretch 3, filled up at random"
    ),
    "metric_backbone": Sparsifier("random", core="metric", source="Kalavri et al., VLDB 9 (2016), filled up at random"),
}
