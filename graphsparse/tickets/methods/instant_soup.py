"""Tickets of weights that several short trainings agree on."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from graphsparse.ops.check import check_count, check_number, check_sparsity
from graphsparse.tickets.method import Found
from graphsparse.tickets.run import TicketRun
from graphsparse.training import Masks

#: Learning rates of the copies, in turn, as multiples of that of the training.
_RATES = (1.0, 0.5, 2.0)


@dataclass(frozen=True)
class InstantSoup:
    r"""Prune a little at a time the weights that the fewest of several short trainings would keep.

    In each round copies of the initial weights under the mask so far are trained for a few epochs, and each votes for
    its largest weights, as many as are left after the round. Those with the fewest votes are removed, exactly as many
    as the round takes; ties go by the mean magnitude. As a full graph has no order of batches, copies differ by the
    seed of dropout, by the learning rate (that of the training, its half and its double in turn) and by edges that
    each leaves out at random. What is kept is trained from the initial weights.

    Against pruning by rounds of whole trainings it saves epochs: 90 % at 10 % a round takes 22 rounds of ``copies *
    weak_epochs`` epochs.

    Args:
        copies: Number of copies.
        weak_epochs: Number of epochs of each in a round.
        per_round: Fraction of the remaining weights that a round removes, at most.
        drop_edges: Fraction of the edges that a copy is trained without; for a task on one graph.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If one is out of range.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.tickets import find_ticket
        >>> from graphsparse.testing import random_graph
        >>> from graphsparse.training import Training
        >>> data, make_model, training = random_graph(), lambda: GCN(8, 16, 2, 3), Training(epochs=5)
        >>> method = InstantSoup(copies=3, weak_epochs=2, per_round=0.3)
        >>> ticket = find_ticket(make_model, data, weight_sparsity=0.5, method=method, training=training)
        >>> ticket.metrics["weight_sparsity"]
        0.5

    Source: Jaiswal et al., *Instant Soup: Cheap Pruning Ensembles in A Single Pass Can Draw Lottery Tickets from Large
    Models*, ICML 2023, arXiv 2306.10460, Section 3; there a round keeps what any copy keeps, so that its sparsity is
    not set, and training goes on from where the search ends.
    """

    copies: int = 5
    weak_epochs: int = 10
    per_round: float = 0.1
    drop_edges: float = 0.2
    prunes: ClassVar[frozenset[str]] = frozenset({"weights"})
    nested: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_count(self.copies, "copies")
        check_count(self.weak_epochs, "weak_epochs")
        check_number(self.per_round, "per_round", least=0, most=1, strictly=True)
        check_sparsity(self.drop_edges, "drop_edges")

    def find(self, run: TicketRun) -> Iterator[Found]:
        """Yield masks that lie within each other; targets must come from the least sparse to the sparsest."""
        keep, num_rounds = run.everything(), 0
        for target, rounds in run.path(weights=self.per_round):
            for step in rounds:
                sizes = [self._sizes(run, keep, num_rounds, copy) for copy in range(self.copies)]
                voted = [keep.prune(weights=size, weight_sparsity=step.weights) for size in sizes]
                keep = keep.prune(weights=_ranks(sizes, voted), weight_sparsity=step.weights)
                num_rounds += 1
            yield Found(target, weights=keep.weights)

    def _sizes(self, run: TicketRun, keep: Masks, num_rounds: int, copy: int) -> dict[str, Tensor]:
        """Return the magnitudes of the weights of a copy after its short training."""
        seed = run.training.seed + num_rounds * self.copies + copy
        state = run.train(
            run.model(),
            f"round-{num_rounds}-copy-{copy}",
            weights=keep.weights,
            edges=None if run.graph is None else run.score_edges("random", self.drop_edges, seed),
            epochs=self.weak_epochs,
            lr=run.training.lr * _RATES[copy % len(_RATES)],
            seed=seed if copy else run.training.seed,
        ).state_dict
        return {name: state[name].abs() for name in keep.weights}


def _ranks(sizes: list[dict[str, Tensor]], voted: list[Masks]) -> dict[str, Tensor]:
    """Return whole numbers that rank weights by votes, then by mean magnitude, then the first one first."""
    names = list(sizes[0])
    votes = torch.cat([torch.stack([masks.weights[name] for masks in voted]).sum(0).flatten() for name in names])
    mean = torch.cat([torch.stack([size[name] for size in sizes]).double().mean(0).flatten() for name in names])
    rank = torch.empty_like(votes)
    rank[mean.argsort(stable=True)] = torch.arange(len(votes), device=votes.device)
    parts = torch.split(votes * len(votes) + rank, [sizes[0][name].numel() for name in names])
    return {name: part.view_as(sizes[0][name]) for name, part in zip(names, parts, strict=True)}
