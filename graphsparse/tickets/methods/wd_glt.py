"""Tickets of masks that are trained against a distance between what the classes of nodes are given."""

from dataclasses import dataclass
from typing import Any, Literal

from graphsparse.ops.check import check_count, check_number
from graphsparse.tickets.mask_terms import Ascend, Clamp, Transport
from graphsparse.tickets.methods.ugs import UGS
from graphsparse.tickets.run import TicketRun


@dataclass(frozen=True)
class WDGLT(UGS):
    r"""Do what UGS does with a term that reaches all edges, the transport distance between classes, and no l1 term.

    .. math::
        L = L_{\mathrm{task}} - \lambda \sum_c W_\varepsilon \big( \{ \mathbf{q}_v : c_v = c \},
        \{ \mathbf{q}_v : c_v \neq c \} \big), \qquad \mathbf{q}_v = \mathrm{softmax}(\mathbf{z}_v), \;
        c_v = \arg\max \mathbf{z}_v

    The loss of the task alone says nothing of edges that no training node depends on. Masks of edges stay in
    :math:`[0, 1]`. Of each side of a class so many points are drawn in an epoch, which makes the term a biased estimate
    on larger graphs; classes with fewer than two points are left out.

    Args:
        l1_edges: As for :class:`UGS`, like all of its options.
        transport: :math:`\lambda`.
        points: Most points of each side of a class; the cost of an epoch grows with their square.
        eps: :math:`\varepsilon`.
        sweeps: Sweeps of Sinkhorn's algorithm.
        mode: ``"descent"`` trains all on :math:`L`, as a published re-implementation does; ``"minmax"`` lets the masks
            of edges ascend on it, an experimental first-order form of what the paper describes.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If one is out of range, or the task is not one class of several.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.tickets import find_ticket
        >>> from graphsparse.testing import random_graph
        >>> from graphsparse.training import Training
        >>> options = {"edge_sparsity": 0.05, "weight_sparsity": 0.2, "training": Training(epochs=3)}
        >>> ticket = find_ticket(lambda: GCN(8, 16, 2, 3), random_graph(), method=WDGLT(), **options)
        >>> round(ticket.metrics["weight_sparsity"], 2)
        0.2

    Source: Hui et al., *Rethinking Graph Lottery Tickets: Graph Sparsity Matters*, arXiv 2305.02190, Section 3.
    """

    l1_edges: float = 0.0
    l1_weights: float = 0.0
    transport: float = 0.1
    points: int = 1024
    eps: float = 1e-3
    sweeps: int = 10
    mode: Literal["descent", "minmax"] = "descent"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self.transport, "transport", least=0)
        check_number(self.eps, "eps", least=0, strictly=True)
        check_count(self.points, "points", least=2)
        check_count(self.sweeps, "sweeps")
        if self.mode not in ("descent", "minmax"):
            raise ValueError(f"'mode' must be 'descent' or 'minmax' (got {self.mode!r})")

    def terms(self, run: TicketRun) -> dict[str, Any]:
        """Return what a training of the masks has besides the loss of the task."""
        if (target := getattr(run.task, "target", None)) != "multiclass":
            raise ValueError(
                f"WDGLT compares classes of nodes or graphs: 'target' must be 'multiclass' (got {target!r})"
            )
        terms, ascend = super().terms(run), [Ascend()] if self.mode == "minmax" else []
        kind = getattr(run.task, "node_type", None)
        term = Transport(self.transport, self.points, self.eps, self.sweeps, run.training.seed, kind)
        return {"extra_loss": term, "before_step": [*ascend, *terms["before_step"]], "after_step": [Clamp(1.0)]}
