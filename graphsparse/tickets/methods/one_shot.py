"""Tickets in one training: edges go by a score before it, weights by a rule within it."""

from collections.abc import Iterator
from dataclasses import dataclass

from graphsparse.edges.sparsifier import Sparsifier, as_sparsifier
from graphsparse.tickets.method import Found, WeightRule, check_edges
from graphsparse.tickets.run import TicketRun
from graphsparse.typing import EdgeScore


@dataclass(frozen=True)
class OneShot:
    r"""Remove the edges with the lowest score at once, and train once from the initial weights under a rule for these.

    ``OneShot("teddy", L0())`` is TEDDY, the default of :func:`~graphsparse.tickets.find_ticket` and ``"teddy"`` for
    short; ``OneShot("random", Fixed())`` is ``"random"``, the baseline that any choice of edges and weights must beat.

    Args:
        edges: Edge score, by name or callable (see :func:`~graphsparse.edges.edge_score`), or a
            :class:`~graphsparse.edges.Sparsifier` or its name; ``None`` keeps all edges.
        weights: :class:`~graphsparse.tickets.L0`, any other rule for weights, or one of your own (see
            :class:`~graphsparse.tickets.WeightRule`); ``None`` keeps all weights.

    Raises:
        TypeError: If ``edges`` is neither a name nor callable.
        ValueError: If there is no score of that name, or the edges that it keeps get new weights or lose one direction:
            a ticket holds a mask of undirected edges.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.datasets import synthetic_citation
        >>> from graphsparse.tickets import L0, find_ticket
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
