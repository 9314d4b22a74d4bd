"""Tickets of one pruning at once, whose mistakes are mended while the network is trained on."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import Parameter
from torch.optim import Optimizer
from torch_geometric.data import HeteroData

from graphsparse.edges.undirected import UndirectedEdges, undirected_edges
from graphsparse.nn import SoftMasks
from graphsparse.ops.check import check_count, check_number
from graphsparse.ops.ratios import kept_counts
from graphsparse.ops.select import drop_and_grow, num_removed, smallest_k_mask
from graphsparse.tickets.methods.ugs import Clamp
from graphsparse.tickets.run import Found, Target, TicketRun
from graphsparse.training import HeldMask


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


@dataclass(frozen=True)
class FastGLT:
    r"""Prune once, early, and exchange mistakes for what the loss depends on most while the network is trained.

    After a few epochs the smallest weights, as large a part of each tensor, and the smallest masks of edges are
    removed. Then, every few steps, a fraction :math:`\tfrac{\alpha}{2} (1 + \cos \pi t / T)` of what is kept is
    dropped, and as many grow: weights with the largest sum of gradients over the last steps, from 0; edges with the
    largest such sum plus :math:`(d_u d_v)^{-3/2}`, with the degrees of the current graph, from the mean of the masks
    that are left. What is kept in the best epoch is trained anew from the initial weights. Terms of the loss shrink the
    masks of edges, :class:`~graphsparse.nn.SoftMasks`, and spread those that are left:

    .. math::
        \gamma \|m\|_1 + \lambda \exp \big( -\tfrac{1}{2} \mathrm{mean}_{ij} |m_i - m_j| \big)
        - \lambda \log (\mathrm{Var}\, m + 10^{-8})

    Args:
        epochs: Epochs of the search after the pruning.
        pretrain: Epochs before it.
        fraction: :math:`\alpha`.
        edges_every: Steps between two exchanges of edges.
        edges_gradients: Last steps before it whose gradients are added up.
        weights_every: Steps between two exchanges of weights.
        weights_gradients: Last steps before it whose gradients are added up.
        l1: :math:`\gamma`; with a loader it acts once per epoch, a share with each batch, and so does the next.
        spread: :math:`\lambda`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If one is out of range.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.tickets import find_ticket
        >>> from graphsparse.testing import random_graph
        >>> from graphsparse.training import Training
        >>> options = {"edge_sparsity": 0.3, "weight_sparsity": 0.9, "training": Training(epochs=5)}
        >>> ticket = find_ticket(lambda: GCN(8, 16, 2, 3), random_graph(), method=FastGLT(20, 5), **options)
        >>> round(ticket.metrics["edge_sparsity"], 1)
        0.3

    Source: the code of *Fast Graph Lottery Tickets* (one-shot pruning and gradual denoising). Here both directions of
    an edge have one mask, self-loops have none, counts are exact, and what an optimiser remembers of what grows is 0.
    """

    epochs: int = 400
    pretrain: int = 30
    fraction: float = 0.3
    edges_every: int = 10
    edges_gradients: int = 9
    weights_every: int = 3
    weights_gradients: int = 2
    l1: float = 1e-4
    spread: float = 0.1
    prunes: ClassVar[frozenset[str]] = frozenset({"edges", "weights"})
    nested: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_count(self.pretrain, "pretrain", least=0)
        for name in ("epochs", "edges_every", "edges_gradients", "weights_every", "weights_gradients"):
            check_count(getattr(self, name), name)
        for name in ("l1", "spread"):
            check_number(getattr(self, name), name, least=0)
        check_number(self.fraction, "fraction", least=0, most=1)
        for what in ("edges", "weights"):
            every, gradients = getattr(self, f"{what}_every"), getattr(self, f"{what}_gradients")
            if gradients > every:
                raise ValueError(f"'{what}_gradients' must be at most '{what}_every', {every} (got {gradients})")

    def find(self, run: TicketRun) -> Iterator[Found]:
        """Yield masks for each target, from a search of its own."""
        steps = run.steps_per_epoch
        if any(target.edges > 0 for target in run.targets):
            run.check_one_graph()
            if isinstance(run.graph, HeteroData):
                raise ValueError("FastGLT grows edges by degrees: 'edge_sparsity' must be 0 on a HeteroData")
        for number, target in enumerate(run.targets, 1):
            hooks: dict[str, Any] = {}
            model, prefix = run.model(), ""
            if target.edges > 0:
                model = SoftMasks(model, edges=run.everything().edges, noise=1e-5, seed=run.training.seed)
                spread = Spread(self.l1 / steps, self.spread / steps)
                prefix, hooks = "model.", {"before_step": [spread], "after_step": [Clamp()]}
            masks: dict[str, Tensor] = {}
            if any(target):
                hold = _Attach(self, run, model, [f"{prefix}{name}" for name in run.names], target, steps)
                epochs = self.pretrain + self.epochs
                masks = run.train(model, f"search-{number}", weights=hold, epochs=epochs, **hooks).weight_masks
            weights = {name: masks[f"{prefix}{name}"] for name in run.names} if target.weights > 0 else None
            yield Found(target, masks.get("edge"), weights)


@dataclass(frozen=True)
class _Attach:
    """Attaches the pruning to the optimiser of a search."""

    plan: FastGLT
    run: TicketRun
    model: nn.Module
    names: list[str]
    target: Target
    steps: int

    def __call__(self, optimizer: Optimizer) -> HeldMask:
        weights = [self.model.get_parameter(name) for name in self.names] if self.target.weights > 0 else []
        edge, ends = getattr(self.model, "edge", None) if self.target.edges > 0 else None, None
        if edge is not None and self.run.graph is not None:
            ends = undirected_edges(self.run.graph.edge_index, self.run.graph.num_nodes)
        return PruneAndMend(optimizer, weights, edge, self.target, self.plan, steps_per_epoch=self.steps, ends=ends)


class PruneAndMend(HeldMask):
    """Removes the smallest once, and then exchanges a falling part of what is kept, as :class:`FastGLT` says.

    Args:
        optimizer: The optimiser.
        weights: The weights that are pruned.
        edge: The mask of the edges that is pruned, or ``None``.
        target: How sparse both shall be.
        plan: When, how much and by what is exchanged.
        steps_per_epoch: Steps of an epoch.
        ends: The edges of the mask, for their degrees.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        weights: Sequence[Parameter],
        edge: Parameter | None,
        target: Target,
        plan: FastGLT,
        *,
        steps_per_epoch: int = 1,
        ends: UndirectedEdges | None = None,
    ) -> None:
        self.target, self.plan, self._edge, self._ends = target, plan, edge, ends
        self.start, self.end = plan.pretrain * steps_per_epoch, (plan.pretrain + plan.epochs) * steps_per_epoch
        self._sums: list[Tensor] = []
        covered = [*weights, *([] if edge is None else [edge])]

        def first(parameters: Sequence[Parameter]) -> list[Tensor]:
            return (
                [torch.ones_like(p, dtype=torch.bool) for p in parameters] if self.start else self._pruned(parameters)
            )

        super().__init__(optimizer, first, exclude=lambda parameter: all(parameter is not one for one in covered))

    @property
    def holds(self) -> bool:
        """Whether what is kept is as sparse as it shall be."""
        return self.num_steps >= self.start

    @property
    def ramp_steps(self) -> int:
        """Number of steps before that."""
        return self.start

    def settings(self) -> dict[str, Any]:
        """Return the options, and how many scalars it covers."""
        return {"target": tuple(self.target), "plan": self.plan, "start": self.start, **super().settings()}

    def state(self) -> dict[str, Any]:
        """Return what is kept, and the sums of gradients."""
        return {**super().state(), "kept": list(self.kept), "sums": self._sums}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`state` returned."""
        super().load_state(state)
        self.kept, self._sums = (
            [one.to(p.device) for one, p in zip(state[name], self.parameters[: len(state[name])], strict=True)]
            for name in ("kept", "sums")
        )

    @torch.no_grad()
    def project(self) -> None:
        """Prune or exchange, where it is time, and set to 0 what is not kept."""
        after = self.num_steps - self.start
        if after == 0 and self.start > 0:
            self.kept = self._pruned(self.parameters)
        elif after > 0 and self.num_steps < self.end:
            self._sums = self._sums or [torch.zeros_like(parameter) for parameter in self.parameters]
            kept = [self._exchanged(i, after) for i in range(len(self.parameters))]
            self.kept = kept
        super().project()

    def _pruned(self, parameters: Sequence[Parameter]) -> list[Tensor]:
        weights = [parameter.shape for parameter in parameters if parameter is not self._edge]
        counts, masks = iter(kept_counts(weights, self.target.weights, "uniform") if weights else []), []
        for parameter in parameters:
            num = parameter.numel()
            removed = num_removed(self.target.edges, num) if parameter is self._edge else num - next(counts)
            masks.append(~smallest_k_mask(parameter.detach().abs().view(-1), removed).view_as(parameter))
        return masks

    def _exchanged(self, i: int, after: int) -> Tensor:
        """Add up the gradient of a parameter, and return what of it is kept after this step."""
        parameter, kept = self.parameters[i], self.kept[i]
        what = "edges" if parameter is self._edge else "weights"
        every, gradients = getattr(self.plan, f"{what}_every"), getattr(self.plan, f"{what}_gradients")
        if parameter.grad is not None and -after % every < gradients:
            self._sums[i] = self._sums[i] + parameter.grad
        if after % every:
            return kept
        share = self.plan.fraction / 2 * (1 + math.cos(math.pi * after / (self.end - self.start)))
        score = self._sums[i].abs() + (0 if what == "weights" else self._closeness(kept))
        new = drop_and_grow(kept, parameter.abs(), score, math.floor(share * int(kept.count_nonzero())))
        grown = new & ~kept
        parameter[grown] = 0.0 if what == "weights" else parameter[kept].mean()
        for moment in self.optimizer.state.get(parameter, {}).values():
            if isinstance(moment, Tensor) and moment.shape == parameter.shape:
                moment.masked_fill_(grown, 0)
        self._sums[i] = torch.zeros_like(parameter)
        return new

    def _closeness(self, kept: Tensor) -> Tensor:
        """Return the product of the degrees of both ends of each edge on the kept graph, to the power -3/2."""
        ends = self._ends
        assert ends is not None
        degree = UndirectedEdges(ends.key[kept], ends.num_nodes).degree().clamp_(min=1).to(torch.get_default_dtype())
        return ends.fill(lambda u, v: (degree[u] * degree[v]).pow(-1.5))
