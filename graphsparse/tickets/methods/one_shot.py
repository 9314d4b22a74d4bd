"""Tickets in one training: edges go by a score before it, weights by a rule within it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch.optim import Optimizer

from graphsparse.edges.sparsifier import Sparsifier, as_sparsifier
from graphsparse.tickets.run import Found, TicketRun, WeightRule, check_edges
from graphsparse.training import FixedMask, L0Projection
from graphsparse.training.step_projection import check_scope
from graphsparse.typing import EdgeScore


@dataclass(frozen=True)
class L0:
    """The largest weights are kept after every step, and any weight may come back: the projection of TEDDY.

    Args:
        scope: Rank the weights of all tensors together (``"global"``) or tensor by tensor (``"tensor"``).

    Raises:
        ValueError: If the scope is unknown.

    Example:
        >>> L0()
        L0(scope='global')

    Source: Seo et al., *TEDDY*, arXiv 2402.01261, Section 4; see :class:`~graphsparse.training.L0Projection`.
    """

    scope: Literal["global", "tensor"] = "global"
    nested: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_scope(self.scope)

    def __call__(self, optimizer: Optimizer, sparsity: float, *, seed: int) -> L0Projection:
        """Attach the projection to an optimiser."""
        return L0Projection(optimizer, sparsity, scope=self.scope)


@dataclass(frozen=True)
class Fixed:
    """Weights that are drawn by chance are 0 from the first step to the last.

    Args:
        ratio: How many weights of each tensor are kept: ``"erk"`` more of small ones, by Erdos-Renyi ratios;
            ``"uniform"`` the same share of all, which leaves next to nothing of a small last layer; ``"global"`` as it
            comes when drawing from all of them together. The number of all together is exact with each.

    Raises:
        ValueError: If the ratio is unknown.

    Example:
        >>> Fixed()
        Fixed(ratio='erk')

    Source: the random baseline of Chen et al., *A Unified Lottery Ticket Hypothesis for Graph Neural Networks*,
    arXiv 2102.06790, Section 4; the ratios of Evci et al., *Rigging the lottery*, arXiv 1911.11134, Section 3; see
    :class:`~graphsparse.training.FixedMask`.
    """

    ratio: Literal["erk", "uniform", "global"] = "erk"
    nested: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.ratio not in ("erk", "uniform", "global"):
            raise ValueError(f"'ratio' must be 'erk', 'uniform' or 'global' (got {self.ratio!r})")

    def __call__(self, optimizer: Optimizer, sparsity: float, *, seed: int) -> FixedMask:
        """Attach the mask to an optimiser."""
        return FixedMask(optimizer, sparsity, scope="tensor" if self.ratio == "uniform" else self.ratio, seed=seed)


@dataclass(frozen=True)
class OneShot:
    r"""Remove the edges with the lowest score at once, and train once from the initial weights under a rule for these.

    ``OneShot("teddy", L0())`` is TEDDY, the default of :func:`~graphsparse.tickets.find_ticket` and ``"teddy"`` for
    short; ``OneShot("random", Fixed())`` is ``"random"``, the baseline that any choice of edges and weights must beat.

    Args:
        edges: Edge score, by name or callable (see :func:`~graphsparse.edges.edge_score`), or a
            :class:`~graphsparse.edges.Sparsifier` or its name; ``None`` keeps all edges.
        weights: :class:`L0`, :class:`Fixed`, or any other ``(optimizer, sparsity, seed=...) -> StepProjection``;
            ``None`` keeps all weights.

    Raises:
        TypeError: If ``edges`` is neither a name nor callable.
        ValueError: If there is no score of that name, or the edges that it keeps get new weights or lose one direction:
            a ticket holds a mask of undirected edges.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.datasets import synthetic_citation
        >>> from graphsparse.tickets import find_ticket
        >>> from graphsparse.training import Training
        >>> data = synthetic_citation(1000, num_features=64, num_val=200, num_test=300)
        >>> make_model = lambda: GCN(64, 16, 2, 7, dropout=0.5)
        >>> options = {"method": OneShot("degree", L0(scope="tensor")), "training": Training(epochs=5)}
        >>> ticket = find_ticket(make_model, data, edge_sparsity=0.4, weight_sparsity=0.6, **options)
        >>> round(ticket.metrics["edge_sparsity"], 2)
        0.4

    Source: Seo et al., *TEDDY: Trimming Edges with Degree-based Discrimination strategY*, arXiv 2402.01261, Section 4.
    """

    edges: str | EdgeScore | Sparsifier | None = None
    weights: WeightRule | None = None

    def __post_init__(self) -> None:
        check_edges(self.edges)

    @property
    def prunes(self) -> frozenset[str]:
        """What is pruned."""
        return frozenset(name for name in ("edges", "weights") if getattr(self, name) is not None)

    @property
    def nested(self) -> bool:
        """Whether kept sets are nested: the best edges are, drawn ones are not, and rules for weights say it."""
        nested = self.edges is None or as_sparsifier(self.edges).nested
        return nested and (self.weights is None or self.weights.nested)

    def find(self, run: TicketRun) -> Iterator[Found]:
        """Yield what the run trains once for each target."""
        for target in run.targets:
            yield Found(target, run.score_edges(self.edges, target.edges), self.weights)
