"""Tickets of the largest trained weights."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from graphsparse.tickets.run import Found, TicketRun


@dataclass(frozen=True)
class Magnitude:
    """Train, remove the weights of smallest magnitude, and train again from the initial weights.

    Args:
        per_round: Fraction of the remaining weights that is removed at a time; each further round trains what is left
            from the initial weights and ranks it anew. 1 removes all at once.

    Raises:
        ValueError: If the fraction is not in ``(0, 1]``.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.tickets import find_ticket
        >>> from graphsparse.testing import random_graph
        >>> from graphsparse.training import Training
        >>> data, make_model = random_graph(), lambda: GCN(8, 16, 2, 3)
        >>> method, training = Magnitude(per_round=0.2), Training(epochs=5)
        >>> ticket = find_ticket(make_model, data, weight_sparsity=0.5, method=method, training=training)
        >>> ticket.metrics["weight_sparsity"]
        0.5

    Source: Frankle and Carbin, *The Lottery Ticket Hypothesis*, arXiv 1803.03635, Section 2.
    """

    per_round: float = 1.0
    prunes: ClassVar[frozenset[str]] = frozenset({"weights"})
    nested: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 < self.per_round <= 1:
            raise ValueError(f"'per_round' must be above 0 and at most 1 (got {self.per_round!r})")

    def find(self, run: TicketRun) -> Iterator[Found]:
        """Yield masks that lie within each other; targets must come from the least sparse to the sparsest."""
        keep, result, num_rounds = run.everything(), None, 0
        for target, rounds in run.path(weights=self.per_round):
            for step in rounds:
                if result is None or self.per_round < 1:
                    result = run.train(run.model(), f"round-{num_rounds}", weights=keep.weights)
                    num_rounds += 1
                sizes = {name: result.state_dict[name].abs() for name in keep.weights}
                keep = keep.prune(weights=sizes, weight_sparsity=step.weights)
            yield Found(target, weights=keep.weights)
