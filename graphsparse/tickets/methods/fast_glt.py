"""Tickets of one pruning at once, whose mistakes are mended while the network is trained on."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from torch.optim import Optimizer

from graphsparse.edges.undirected import undirected_edges
from graphsparse.nn import SoftMasks
from graphsparse.ops.check import check_count, check_number
from graphsparse.tickets.mask_terms import Clamp, Spread, closeness
from graphsparse.tickets.method import Found, Target
from graphsparse.tickets.run import TicketRun
from graphsparse.training import PruneAndMend


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
        for name in ("l1", "spread", "fraction"):
            check_number(getattr(self, name), name, least=0, most=1 if name == "fraction" else math.inf)
        for what in ("edges", "weights"):
            if getattr(self, f"{what}_gradients") > (every := getattr(self, f"{what}_every")):
                raise ValueError(f"'{what}_gradients' must be at most '{what}_every', which is {every}")

    def find(self, run: TicketRun) -> Iterator[Found]:
        """Yield masks for each target, from a search of its own."""
        share = 1 / run.steps_per_epoch
        for number, target in enumerate(run.targets, 1):
            model, masks = run.model(), dict[str, Any]()
            options: dict[str, Any] = {"epochs": self.pretrain + self.epochs}
            if target.edges > 0:
                model = SoftMasks(model, edges=run.learnable(one_type=True).edges, noise=1e-5, seed=run.training.seed)
                options |= {"before_step": [Spread(self.l1 * share, self.spread * share)], "after_step": [Clamp()]}
            names = [name if target.edges == 0 else f"model.{name}" for name in run.names]
            if any(target):
                hold = partial(self._attach, run, model, names, target)
                masks = run.train(model, f"search-{number}", weights=hold, **options).weight_masks
            weights = dict(zip(run.names, map(masks.__getitem__, names), strict=True)) if target.weights > 0 else None
            yield Found(target, masks.get("edge"), weights)

    def _attach(self, run: TicketRun, model: Any, names: list[str], target: Target, optimizer: Optimizer) -> Any:
        """Attach a projection for the weights, and one for the masks of the edges."""
        start, end = (run.steps_per_epoch * epochs for epochs in (self.pretrain, self.pretrain + self.epochs))
        when: dict[str, Any] = {"start": start, "end": end, "fraction": self.fraction}
        edge, weights, made = getattr(model, "edge", None), [model.get_parameter(name) for name in names], None
        if target.weights > 0:
            when |= {"every": self.weights_every, "gradients": self.weights_gradients}
            made = PruneAndMend(optimizer, target.weights, exclude=lambda p: all(p is not w for w in weights), **when)
        if target.edges > 0 and run.graph is not None:
            when |= {"every": self.edges_every, "gradients": self.edges_gradients, "grow_at": "mean"}
            when["bonus"] = partial(closeness, undirected_edges(run.graph.edge_index, run.graph.num_nodes))
            made = PruneAndMend(optimizer, target.edges, exclude=lambda p: p is not edge, **when)
        return made
