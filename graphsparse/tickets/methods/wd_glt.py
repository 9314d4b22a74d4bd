"""Tickets of masks that are trained against a distance between what the classes of nodes are given."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphsparse.nn import SoftMasks
from graphsparse.ops.check import check_count, check_number
from graphsparse.tickets.methods.ugs import UGS, Clamp
from graphsparse.tickets.run import TicketRun


def sinkhorn_cost(x: Tensor, y: Tensor, *, eps: float = 1e-3, sweeps: int = 10) -> Tensor:
    r"""Return the entropic cost of moving some points to others, both of uniform weight.

    .. math::
        \sum_{ij} P_{ij} \|\mathbf{x}_i - \mathbf{y}_j\|_2, \qquad
        P_{ij} = \exp((\varphi_i + \psi_j - \|\mathbf{x}_i - \mathbf{y}_j\|_2) / \varepsilon)

    with potentials after some sweeps in the logarithmic domain, which the gradient goes through.

    Args:
        x: Points ``[n, C]``.
        y: Points ``[m, C]``.
        eps: :math:`\varepsilon`.
        sweeps: Number of sweeps over both potentials.

    Example:
        >>> round(sinkhorn_cost(torch.tensor([[0.0], [1.0]]), torch.tensor([[1.0], [3.0]])).item(), 2)
        1.5

    Source: Cuturi, *Sinkhorn distances*, arXiv 1306.0895.
    """
    cost = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
    log_x, log_y = -math.log(x.size(0)), -math.log(y.size(0))
    psi = cost.new_full((y.size(0),), eps * log_y)
    for _ in range(sweeps):
        phi = eps * (log_x - ((psi - cost) / eps).logsumexp(1))
        psi = eps * (log_y - ((phi.view(-1, 1) - cost) / eps).logsumexp(0))
    return (((phi.view(-1, 1) + psi - cost) / eps).exp() * cost).sum()


@dataclass(frozen=True)
class Transport:
    """The term of the loss that drives classes apart: minus the cost of moving each predicted class to all others."""

    weight: float
    points: int
    eps: float
    sweeps: int
    seed: int

    def __call__(self, logits: Tensor, batch: Any, epoch: int) -> Tensor:
        """Return the term; class by class its gradient is found at once, as one class may take much memory."""
        q = logits[: batch.get("batch_size", logits.size(0))].softmax(1)
        points, of_class = q.detach().requires_grad_(), q.argmax(1).cpu()
        # The same points in a training that goes on after a kill: draws follow from seed and epoch.
        order = torch.randperm(q.size(0), generator=torch.Generator().manual_seed(self.seed * 1_000_003 + epoch))
        value, gradient = torch.zeros_like(q[0, 0]), torch.zeros_like(points)
        for c in range(q.size(1)):
            member = of_class[order] == c
            inside, outside = (order[side][: self.points].to(q.device) for side in (member, ~member))
            if min(inside.numel(), outside.numel()) > 1:
                cost = sinkhorn_cost(points[inside], points[outside], eps=self.eps, sweeps=self.sweeps)
                value = value - cost.detach()
                gradient -= torch.autograd.grad(cost, points)[0]
        inner = (q * gradient).sum()
        return self.weight * (value + inner - inner.detach())


@dataclass(frozen=True)
class Ascend:
    """Turns the gradient of the masks of edges around, before a step."""

    def __call__(self, model: nn.Module, epoch: int) -> None:
        """Turn it."""
        if isinstance(model, SoftMasks) and model.edge is not None and model.edge.grad is not None:
            model.edge.grad.neg_()


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
        points: Most points of each side of a class.
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
        if isinstance(run.graph, HeteroData):
            raise ValueError("WDGLT compares the classes of all nodes: 'data' must be of one type (got a HeteroData)")
        terms, ascend = super().terms(run), [Ascend()] if self.mode == "minmax" else []
        term = Transport(self.transport, self.points, self.eps, self.sweeps, run.training.seed)
        return {"extra_loss": term, "before_step": [*ascend, *terms["before_step"]], "after_step": [Clamp(1.0)]}
