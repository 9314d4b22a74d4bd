"""Several tickets from one training with moving masks."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from graphsparse.ops.check import check_count, check_share
from graphsparse.tickets.method import Found, WeightRule
from graphsparse.tickets.rules import RigL
from graphsparse.tickets.run import TicketRun
from graphsparse.training import FitResult, Masks, Training
from graphsparse.training.training import MakeOptimizer


@dataclass(frozen=True)
class FreeTickets:
    """Explore with a moving mask, then leave one ticket after another; together they are an ensemble (EDST).

    After the exploration the mask is held, and the weights are trained on for each ticket with the learning rate of the
    training, and in the second half with a tenth of it. Before each ticket but the first, most weights of the last one
    are exchanged for those where the gradient is largest. A ticket has the weights of the best epoch of its phase.
    :func:`~graphsparse.tickets.find_tickets` returns ``members`` tickets for each target;
    :func:`graphsparse.soups.ensemble` with ``mean="probabilities"`` says what they do together.

    Args:
        members: Number of tickets for each target.
        explore_epochs: Epochs of the exploration; those of the training are not used.
        phase_epochs: Epochs of each ticket.
        escape: Fraction of the kept weights of each tensor that is exchanged between two tickets.
        rule: How the mask moves in the exploration.

    Raises:
        TypeError: If an option has the wrong type.
        ValueError: If one is out of range; in a search, if the optimiser of the training has a schedule of its own.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.soups import Evaluator, TicketStates, ensemble
        >>> from graphsparse.testing import random_graph
        >>> from graphsparse.tickets import find_tickets
        >>> data, make_model = random_graph(), lambda: GCN(8, 16, 2, 3)
        >>> method = FreeTickets(members=3, explore_epochs=20, phase_epochs=10)
        >>> tickets = find_tickets(make_model, data, targets=[(0, 0.5)], method=method)
        >>> [ticket.config["member"] for ticket in tickets]
        [1, 2, 3]
        >>> evaluator = Evaluator(make_model(), data)
        >>> together = ensemble(TicketStates(tickets), evaluator, mean="probabilities")

    Source: Liu et al., *Deep Ensembling with No Overhead for either Training or Testing*, arXiv 2106.14568, Section 3.
    """

    members: int = 3
    explore_epochs: int = 100
    phase_epochs: int = 100
    escape: float = 0.8
    rule: WeightRule = field(default_factory=RigL)
    prunes: ClassVar[frozenset[str]] = frozenset({"weights"})
    nested: ClassVar[bool] = False
    distils: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for name in ("members", "explore_epochs", "phase_epochs"):
            check_count(getattr(self, name), name)
        check_share(self.escape, "escape")

    def find(self, run: TicketRun) -> Iterator[Found]:
        """Yield the tickets of each target, trained."""
        optimizer = scheduled(run.training, lambda epoch: 1.0 if 2 * epoch < self.phase_epochs else 0.1)
        for number, target in enumerate(run.targets, 1):
            hold = run.hold(self.rule, target.weights, self.explore_epochs)
            result = run.train(run.model(), f"explore-{number}", weights=hold, epochs=self.explore_epochs)
            keep = kept(run, result)
            for member in range(1, self.members + 1):
                if member > 1:
                    keep = escaped(run, result.state_dict, keep, self.escape)
                model, tag = run.model(result.state_dict), f"member-{number}-{member}"
                result = run.train(model, tag, weights=keep.weights, epochs=self.phase_epochs, optimizer=optimizer)
                yield Found(target, weights=keep.weights, start=result.state_dict, trained=True, member=member)


def kept(run: TicketRun, result: FitResult) -> Masks:
    """Return which weights a rule has kept in a training."""
    return Masks({name: result.weight_masks[name] for name in run.names})


def escaped(run: TicketRun, state: dict[str, Tensor], keep: Masks, fraction: float) -> Masks:
    """Return masks in which a fraction of the weights has given way to those where the gradient is largest."""
    slopes = {name: gradient.abs() for name, gradient in run.gradient(run.model(state)).items()}
    return keep.move(weights={name: state[name].abs() for name in keep.weights}, scores=slopes, fraction=fraction)


def scheduled(training: Training, factor: Callable[[int], float]) -> MakeOptimizer:
    """Return what makes the optimiser of a training, whose learning rate is multiplied by a factor of the epoch."""

    def make(parameters: list[nn.Parameter], lr: float, weight_decay: float) -> tuple[Any, LambdaLR]:
        optimizer, own = training.make_optimizer(parameters)
        if own is not None:
            raise ValueError(
                f"'training.optimizer' must make no schedule for a method that brings one (got {type(own).__name__})"
            )
        return optimizer, LambdaLR(optimizer, factor)

    return make
