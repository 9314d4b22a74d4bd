"""One ticket from the mean of several."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from graphsparse.ops.check import check_count, check_share
from graphsparse.tickets.method import Found, WeightRule
from graphsparse.tickets.methods.free_tickets import escaped, kept, scheduled
from graphsparse.tickets.rules import RigL
from graphsparse.tickets.run import TicketRun
from graphsparse.training import seeded
from graphsparse.utils.running_norms import fresh_statistics, running_norms


@dataclass(frozen=True)
class SupTickets:
    r"""Train with a moving mask, collect a ticket in each of several short cycles at the end, and average them.

    A cycle exchanges a fraction of the weights for those where the gradient is largest and trains with a learning rate
    that rises to that of the training and falls to a tenth of it. With the ticket :math:`W_i` that it leaves,

    .. math:: \bar W \leftarrow \mathrm{prune}\Bigl(\tfrac{i}{i + 1} \bar W + \tfrac{1}{i + 1} W_i\Bigr),
        \qquad i = 0, 1, \dots

    which keeps the largest weights of all tensors together, exactly as many as were asked for. Running statistics of
    normalisations are estimated anew for the last mean.

    Args:
        cycles: Number of cycles.
        cycle_epochs: Epochs of each; they are the last ones of the training.
        escape: Fraction of the kept weights of each tensor that is exchanged before a cycle.
        rule: How the mask moves before the cycles.

    Raises:
        TypeError: If an option has the wrong type.
        ValueError: If one is out of range; in a search, if the training has no epoch before the cycles, or its
            optimiser a schedule of its own.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.testing import random_graph
        >>> from graphsparse.tickets import find_ticket
        >>> from graphsparse.training import Training
        >>> method, training = SupTickets(cycles=3, cycle_epochs=4), Training(epochs=30)
        >>> ticket = find_ticket(
        ...     lambda: GCN(8, 16, 2, 3), random_graph(), weight_sparsity=0.5, method=method, training=training
        ... )
        >>> ticket.metrics["weight_sparsity"]
        0.5

    Source: Yin et al., *Superposing Many Tickets into One*, arXiv 2205.15322, Section 3 (by equal
    shares).
    """

    cycles: int = 5
    cycle_epochs: int = 8
    escape: float = 0.5
    rule: WeightRule = field(default_factory=RigL)
    prunes: ClassVar[frozenset[str]] = frozenset({"weights"})
    nested: ClassVar[bool] = False
    distils: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_count(self.cycles, "cycles")
        check_count(self.cycle_epochs, "cycle_epochs")
        check_share(self.escape, "escape")

    def find(self, run: TicketRun) -> Iterator[Found]:
        """Yield the mean for each target, trained."""
        before, each = run.training.epochs - self.cycles * self.cycle_epochs, self.cycle_epochs
        if before < 1:
            raise ValueError(
                f"'training.epochs' must be above {self.cycles * each}, those of the cycles (got {run.training.epochs})"
            )
        triangle = scheduled(run.training, lambda epoch: 1 - 0.9 * abs(1 - 2 * (epoch + 1) / each))
        # The last epoch of a cycle is the one that counts.
        options: dict[str, Any] = {"epochs": each, "eval_every": each, "patience": None, "optimizer": triangle}
        for number, target in enumerate(run.targets, 1):
            hold = run.hold(self.rule, target.weights, before)
            result = run.train(run.model(), f"explore-{number}", weights=hold, epochs=before)
            keep, mean, shared = kept(run, result), dict[str, Tensor](), run.everything()
            for i in range(self.cycles):
                keep = escaped(run, result.state_dict, keep, self.escape)
                model = run.model(result.state_dict)
                result = run.train(model, f"cycle-{number}-{i + 1}", weights=keep.weights, **options)
                mean = {
                    name: _mix(mean.get(name, value), value, 1 / (i + 1)) for name, value in result.state_dict.items()
                }
                sizes = {name: mean[name].abs() for name in run.names}
                shared = run.everything().prune(weights=sizes, weight_sparsity=target.weights)
                mean = run.model(mean, shared.weights).state_dict()
            yield Found(target, weights=shared.weights, start=_with_statistics(run, mean), trained=True)


def _mix(mean: Tensor, value: Tensor, share: float) -> Tensor:
    """Return the mean with a share of a further value; numbers of batches and the like are the last ones."""
    return torch.lerp(mean, value, share) if value.is_floating_point() else value


def _with_statistics(run: TicketRun, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict with running statistics estimated anew, by one pass over the training part."""
    model = run.model(state).eval()
    if running_norms(model):
        with torch.no_grad(), seeded(run.training.seed), fresh_statistics(model):
            for batch in run.task.batches():
                run.task.loss(model, batch, None)
    return model.state_dict()
