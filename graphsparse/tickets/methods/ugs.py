"""Tickets of masks that are trained together with the weights."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from graphsparse.nn import SoftMasks
from graphsparse.ops.check import check_count, check_number
from graphsparse.tickets.mask_terms import L1, Clamp
from graphsparse.tickets.method import Found
from graphsparse.tickets.run import TicketRun
from graphsparse.training import Masks


@dataclass(frozen=True)
class UGS:
    r"""Train masks of edges and weights with an l1 term, prune the smallest, rewind, and go on so in rounds.

    .. math::
        L = L_{\mathrm{task}} + \gamma_g \|m_g\|_1 + \gamma_\theta \|m_\theta\|_1

    In each round weights and masks are trained together from the initial weights, see
    :class:`~graphsparse.nn.SoftMasks`; of the epoch with the best validation metric the smallest :math:`|m|` are
    removed. Both directions of an edge have one mask, which stays from 0 up, as degrees of negative edges have no root.
    Only what shall be sparse has masks: with an edge sparsity of 0 none of edges, with a weight sparsity of 0 none of
    weights. The rounds are those of :meth:`~graphsparse.tickets.TicketRun.path`.

    The model must take weights of edges (``Training(fast=True)`` sees to it for PyG's SAGE, GIN and GAT). Published
    coefficients are 1e-2 and 1e-2 for GCN on Cora and CiteSeer, 1e-6 and 1e-3 on PubMed, 1e-3 and 1e-3 for GIN and GAT
    on Cora.

    Args:
        l1_edges: :math:`\gamma_g`; with a loader it acts once per epoch, a share with each batch.
        l1_weights: :math:`\gamma_\theta`.
        edges_per_round: Largest fraction of the remaining edges that a round removes.
        weights_per_round: Largest fraction of the remaining weights.
        mask_epochs: Epochs in which masks are trained; those of ``training`` when ``None``.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If one is out of range.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.tickets import find_tickets
        >>> from graphsparse.testing import random_graph
        >>> from graphsparse.training import Training
        >>> data, make_model, targets = random_graph(), lambda: GCN(8, 16, 2, 3), [(0.05, 0.2), (0.0975, 0.36)]
        >>> method, training = UGS(l1_edges=1e-2, l1_weights=1e-2), Training(epochs=5)
        >>> tickets = find_tickets(make_model, data, targets=targets, method=method, training=training)
        >>> [round(ticket.metrics["weight_sparsity"], 2) for ticket in tickets]
        [0.2, 0.36]

    Source: Chen et al., *A Unified Lottery Ticket Hypothesis for Graph Neural Networks*, arXiv 2102.06790, Algorithms 1
    and 2.
    """

    l1_edges: float = 1e-4
    l1_weights: float = 1e-4
    edges_per_round: float = 0.05
    weights_per_round: float = 0.2
    mask_epochs: int | None = None
    prunes: ClassVar[frozenset[str]] = frozenset({"edges", "weights"})
    nested: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("l1_edges", "l1_weights"):
            check_number(getattr(self, name), name, least=0)
        for name in ("edges_per_round", "weights_per_round"):
            check_number(getattr(self, name), name, least=0, most=1, strictly=True)
        if self.mask_epochs is not None:
            check_count(self.mask_epochs, "mask_epochs")

    def find(self, run: TicketRun) -> Iterator[Found]:
        """Yield masks that lie within each other; targets must come from the least sparse to the sparsest."""
        keep, number = run.learnable(), 0
        epochs: dict[str, Any] = {} if self.mask_epochs is None else {"epochs": self.mask_epochs}
        for target, rounds in run.path(edges=self.edges_per_round, weights=self.weights_per_round):
            for step in rounds:
                number += 1
                soft = self.soften(run, keep, number)
                run.train(soft, f"mask-{number:02}", **epochs, **self.terms(run))
                keep = keep.prune(**soft.scores(), edge_sparsity=step.edges, weight_sparsity=step.weights)
            yield Found(target, keep.edges if target.edges else None, keep.weights if target.weights else None)

    def soften(self, run: TicketRun, keep: Masks, number: int) -> SoftMasks:
        """Return a model with its initial weights, and masks near 1 of what shall be sparse in the end."""
        edges, weights = (any(target[i] for target in run.targets) for i in range(2))
        return SoftMasks(
            run.model(),
            weights=keep.weights if weights else None,
            edges=keep.edges if edges else None,
            noise=1e-5,
            seed=run.training.seed + number,
        )

    def terms(self, run: TicketRun) -> dict[str, Any]:
        """Return what a training of the masks has besides the loss of the task."""
        share = 1 / run.steps_per_epoch
        return {"before_step": [L1(self.l1_edges * share, self.l1_weights * share)], "after_step": [Clamp()]}
