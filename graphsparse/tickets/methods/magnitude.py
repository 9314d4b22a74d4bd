"""Tickets of the largest trained weights."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from graphsparse.ops.check import check_count, check_number
from graphsparse.tickets.method import Found
from graphsparse.tickets.run import TicketRun


@dataclass(frozen=True)
class Magnitude:
    """Train, remove the weights of smallest magnitude, and train again from the initial weights, or almost these.

    Args:
        per_round: Fraction of the remaining weights that is removed at a time, at most; each further round trains what
            is left and ranks it anew. 1 removes all at once.
        rewind: Number of epochs of the first training after which the weights are those that every later one starts
            from, and trains for the epochs that are left, with a fresh optimiser; 0 for the initial weights. It must be
            below the epochs of the training.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If the fraction is not in ``(0, 1]``, or ``rewind`` is negative.

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

    Source: Frankle and Carbin, *The Lottery Ticket Hypothesis*, arXiv 1803.03635, Section 2; late rewinding:
    Frankle et al., *Linear Mode Connectivity and the Lottery Ticket Hypothesis*, arXiv 1912.05671, Section 4.
    """

    per_round: float = 1.0
    rewind: int = 0
    prunes: ClassVar[frozenset[str]] = frozenset({"weights"})
    nested: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_number(self.per_round, "per_round", least=0, most=1, strictly=True)
        check_count(self.rewind, "rewind", least=0)

    def find(self, run: TicketRun) -> Iterator[Found]:
        """Yield masks that lie within each other; targets must come from the least sparse to the sparsest."""
        left = run.training.epochs - self.rewind
        if left < 1:
            raise ValueError(
                f"'rewind' must be below the {run.training.epochs} epochs of 'training' (got {self.rewind})"
            )
        keep, start, num_rounds = run.everything(), None, 0
        for target, rounds in run.path(weights=self.per_round):
            for step in rounds:
                if num_rounds == 0 or self.per_round < 1:
                    options = {"epochs": left} if num_rounds else {"save_at": self.rewind or None}
                    result = run.train(run.model(start), f"round-{num_rounds}", weights=keep.weights, **options)
                    start, num_rounds = start or result.saved, num_rounds + 1
                sizes = {name: result.state_dict[name].abs() for name in keep.weights}
                keep = keep.prune(weights=sizes, weight_sparsity=step.weights)
            yield Found(target, weights=keep.weights, start=start, epochs=None if start is None else left)
