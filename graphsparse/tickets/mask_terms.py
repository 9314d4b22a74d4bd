"""What a training of soft masks has besides the loss of its task: terms, and what is done around a step."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from graphsparse.edges.undirected import UndirectedEdges
from graphsparse.nn import SoftMasks


@dataclass(frozen=True)
class L1:
    """Adds the gradient of an l1 term to that of soft masks, before a step."""

    edges: float
    weights: float

    def __call__(self, model: nn.Module, epoch: int) -> None:
        """Add it."""
        assert isinstance(model, SoftMasks)
        model.add_l1(edges=self.edges, weights=self.weights)


@dataclass(frozen=True)
class Clamp:
    """Keeps the masks of edges from 0 up, after a step: degrees of negative edges have no root."""

    most: float | None = None

    def __call__(self, model: nn.Module, epoch: int) -> None:
        """Put what is outside on the border."""
        if isinstance(model, SoftMasks) and model.edge is not None:
            model.edge.data.clamp_(0, self.most)


@dataclass(frozen=True)
class Ascend:
    """Turns the gradient of the masks of edges around, before a step."""

    def __call__(self, model: nn.Module, epoch: int) -> None:
        """Turn it."""
        if isinstance(model, SoftMasks) and model.edge is not None and model.edge.grad is not None:
            model.edge.grad.neg_()


@dataclass(frozen=True)
class Spread:
    """Adds, before a step, the gradient of terms that shrink and spread the masks of the edges that are left."""

    l1: float
    amount: float

    def __call__(self, model: nn.Module, epoch: int) -> None:
        """Add it."""
        assert isinstance(model, SoftMasks)
        assert model.edge is not None
        model.add_l1(edges=self.l1)
        mask = model.edge.detach().requires_grad_()
        left = mask[mask > 0]
        if left.numel() > 1:
            term = (-mean_difference(left) / 2).exp() - (left.var() + 1e-8).log()
            model.edge.grad.add_(torch.autograd.grad(term, mask)[0], alpha=self.amount)  # type: ignore[union-attr]


def mean_difference(values: Tensor) -> Tensor:
    r"""Return the mean of :math:`|m_i - m_j|` over all pairs of ``values``, with a gradient, in :math:`O(M \log M)`.

    .. math:: \frac{1}{M^2} \sum_{ij} |m_i - m_j| = \frac{2}{M^2} \sum_i (2 i - M - 1) \, m_{(i)}

    Example:
        >>> round(mean_difference(torch.tensor([1.0, 4.0, 2.0])).item() * 9, 4)
        12.0
    """
    num = values.numel()
    place = torch.arange(1 - num, num, 2, dtype=values.dtype, device=values.device)
    return 2 * (place / num * values.sort().values).sum() / num


@dataclass(frozen=True)
class Transport:
    """The term of the loss that drives classes apart: minus the cost of moving each predicted class to all others."""

    weight: float
    points: int
    eps: float
    sweeps: int
    seed: int
    node_type: str | None = None

    def __call__(self, logits: Tensor, batch: Any, epoch: int) -> Tensor:
        """Return the term; class by class its gradient is found at once, as one class may take much memory."""
        nodes = batch if self.node_type is None else batch[self.node_type]
        q = logits[: nodes.get("batch_size", logits.size(0))].softmax(1)
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
        phi = _HalfSweep.apply(cost, psi, log_x, eps, 1)  # type: ignore[no-untyped-call]
        psi = _HalfSweep.apply(cost, phi, log_y, eps, 0)  # type: ignore[no-untyped-call]
    moved: Tensor = (((phi.view(-1, 1) + psi - cost) / eps).exp() * cost).sum()
    return moved


class _HalfSweep(torch.autograd.Function):
    """The potential of one side from that of the other, ``eps * (log_weight - logsumexp((potential - cost) / eps))``.

    By itself, in place and with the one matrix that its gradient needs, it takes half the time of these operations.
    """

    @staticmethod
    def forward(ctx: Any, cost: Tensor, potential: Tensor, log_weight: float, eps: float, dim: int) -> Tensor:
        share = (potential.unsqueeze(1 - dim) - cost).div_(eps)
        top = share.amax(dim, keepdim=True)
        total = share.sub_(top).exp_().sum(dim, keepdim=True)
        ctx.dim = dim
        ctx.save_for_backward(share.div_(total))
        out: Tensor = eps * (log_weight - (top + total.log()).squeeze(dim))
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (share,) = ctx.saved_tensors
        moved = share * grad.unsqueeze(ctx.dim)
        return moved, -moved.sum(1 - ctx.dim), None, None, None


def closeness(edges: UndirectedEdges, kept: Tensor) -> Tensor:
    """Return ``(d_u * d_v) ** -1.5`` of each edge ``[M]``, with degrees on the edges that are kept, 1 at least."""
    degree = UndirectedEdges(edges.key[kept], edges.num_nodes).degree().clamp_(min=1).float()
    return edges.fill(lambda u, v: (degree[u] * degree[v]).pow(-1.5))
