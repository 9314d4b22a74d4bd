"""What a pruning method is, what it aims at, and what it finds."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from torch import Tensor
from torch.optim import Optimizer

from graphsparse.edges.graph_edges import PerEdge
from graphsparse.edges.sparsifier import Sparsifier, as_sparsifier
from graphsparse.tickets.edge_rule import EdgeRule
from graphsparse.tickets.ticket import Ticket
from graphsparse.training import StepProjection
from graphsparse.typing import EdgeScore

if TYPE_CHECKING:
    from graphsparse.tickets.run import TicketRun


class Target(NamedTuple):
    """How sparse a ticket shall be.

    Args:
        edges: Fraction of the undirected edges to remove, in ``[0, 1)``.
        weights: Fraction of the weights to remove, in ``[0, 1)``; biases and normalisation are not counted.
    """

    edges: float = 0.0
    weights: float = 0.0

    def towards(self, other: "Target", rounds: int) -> "list[Target]":
        """Return the targets of so many rounds to a sparser one; each takes the same share of what is left.

        Example:
            >>> [target.weights for target in Target().towards(Target(weights=0.75), 2)]
            [0.5, 0.75]
        """

        def at(before: float, after: float, share: float) -> float:
            left = math.exp((1 - share) * math.log1p(-before) + share * math.log1p(-after))
            return min(max(1 - left, before), after)  # but for rounding it lies between them

        shares = [i / rounds for i in range(1, rounds)]
        between = [Target(*(at(*ends, share) for ends in zip(self, other, strict=True))) for share in shares]
        return [*between, other] if rounds else []


class WeightRule(Protocol):
    """Says which weights are kept while a model is trained: a small frozen dataclass, whose fields are its options.

    A rule that cannot remove exactly what is asked for, as :class:`~graphsparse.tickets.NM`, says ``exact = False``;
    it may remove less, and never more.
    """

    @property
    def nested(self) -> bool:
        """Whether the weights kept at one sparsity lie within those kept at a lower one."""
        ...

    def __call__(self, optimizer: Optimizer, sparsity: float, *, steps: int | None, seed: int) -> StepProjection:
        """Attach a projection to an optimiser.

        Args:
            optimizer: The optimiser.
            sparsity: Fraction of the weights to remove.
            steps: How many steps the training takes at most; ``None`` where the loader does not say.
            seed: Seed of what is drawn.
        """
        ...


def check_edges(edges: str | EdgeScore | Sparsifier | None) -> None:
    """Refuse what chooses edges that a ticket cannot hold: it has a mask of undirected edges."""
    method = None if edges is None else as_sparsifier(edges)
    if method is not None and (method.reweights or method.directed):
        what = "new weights for edges" if method.reweights else "one direction of an edge without the other"
        raise ValueError(f"'edges' must be what the file of a ticket can hold, which is not {what} (got {method})")


@dataclass(frozen=True, eq=False)
class Found:
    """What a method found for one target: what the run trains for a last time, and makes a ticket of.

    Args:
        target: The target.
        edges: Kept undirected edges, bool ``[M]`` in canonical order, of a ``HeteroData`` by edge type as in
            :class:`~graphsparse.training.Masks`, or what :meth:`TicketRun.score_edges` returned; ``None`` for all.
        weights: Kept weights by name, bool, held in the last training; or a rule for it, such as
            :class:`~graphsparse.tickets.L0`; ``None`` for all.
        start: Weights to start from; ``None`` for the initial ones of the seed.
        trained: ``start`` is the result already, and is only judged; ``weights`` must be masks then.
        member: Number of the ticket, where a method finds several for one target.
        epochs: Number of epochs of the last training; ``None`` for that of the run.

    Raises:
        ValueError: If a trained one has no ``start``, or a rule in the place of masks.
    """

    target: Target
    edges: PerEdge | EdgeRule | None = None
    weights: Mapping[str, Tensor] | WeightRule | None = None
    start: Mapping[str, Tensor] | None = None
    trained: bool = False
    member: int | None = None
    epochs: int | None = None

    def __post_init__(self) -> None:
        if self.trained and (self.start is None or callable(self.weights)):
            raise ValueError("what is 'trained' needs its weights as 'start', and masks for 'weights' or None")


class PruningMethod(Protocol):
    """A way to find tickets: a small frozen dataclass, whose fields are its options.

    One that finds several tickets for each target says how many by ``members``; one that trains its tickets itself, so
    that they learn nothing from a teacher, says ``distils = False``.
    """

    @property
    def prunes(self) -> frozenset[str]:
        """``"edges"``, ``"weights"`` or both; a sparsity of what is not pruned must be 0."""
        ...

    @property
    def nested(self) -> bool:
        """Whether what is kept for one target lies within what is kept for a less sparse one."""
        ...

    def find(self, run: "TicketRun") -> Iterator[Found | Ticket]:
        """Yield what is found for each of ``run.targets``, in their order."""
        ...


def num_rounds(before: float, after: float, share: float) -> int:
    """Count the rounds from one sparsity to another; a share that rounding makes too small for one costs none more."""
    if after == before or share == 1:
        return int(after > before)
    return max(1, math.ceil(math.log((1 - after) / (1 - before)) / math.log1p(-share) - 1e-6))
