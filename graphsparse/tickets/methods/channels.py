"""Tickets that lose whole channels, so that what is left is a smaller dense model."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from graphsparse.nn import ChannelUnits, channel_units
from graphsparse.ops.lasso import lasso_order, least_squares
from graphsparse.tickets.method import Found
from graphsparse.tickets.run import TicketRun
from graphsparse.utils.copy_model import copy_model


@dataclass(frozen=True)
class Channels:
    r"""Train, remove the channels that matter least, all weights that make or read them, and train on.

    Channels are removed from all layers at the same rate, and one of each layer stays. The number of removed weights is
    exact: of the last channel that is touched, and of what no whole channel holds, the smallest weights go.
    ``ticket.materialize(make_model, shrink=data)`` is the smaller model.

    ``score="magnitude"`` removes the channels with the smallest norm of the weights that make them. ``score="lasso"``
    keeps those from which the layers that read them can be computed: with the inputs :math:`x_u` of a layer and the
    columns :math:`w_u` of its weight,

    .. math::
        \min_b \Big\lVert \sum_u x_u w_u^\top - \sum_u b_u x_u w_u^\top \Big\rVert^2 + \lambda \lVert b \rVert_1
        = (1 - b)^\top G \, (1 - b) + \lambda \lVert b \rVert_1, \qquad G = (X^\top X) \circ (W^\top W),

    the sum over all layers that read a channel. Channels stay in the order in which a falling :math:`\lambda` takes
    them in. The last training starts from weights that are the least squares solution for the inputs that are left,
    :math:`W X^\top X_S (X_S^\top X_S)^{-1}`.

    Args:
        score: ``"magnitude"`` or ``"lasso"``.
        start: Where the last training starts from, the ``"trained"`` weights or the ``"initial"`` ones.

    Raises:
        ValueError: If ``score`` or ``start`` is unknown. While searching, if no channel of the model can be removed, as
            where a ``LayerNorm`` follows each layer: see :func:`~graphsparse.nn.channel_units`.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.tickets import find_ticket
        >>> from graphsparse.testing import random_graph
        >>> from graphsparse.training import Training
        >>> data, make_model = random_graph(), lambda: GCN(8, 16, 2, 3)
        >>> training = Training(epochs=5)
        >>> ticket = find_ticket(make_model, data, weight_sparsity=0.75, method=Channels(), training=training)
        >>> ticket.materialize(make_model, shrink=data).convs
        ModuleList( (0): GCNConv(8, 4) (1): GCNConv(4, 3) )

    Source: Zhou et al., *Accelerating Large Scale Real-Time GNN Inference using Channel Pruning*, arXiv 2105.04528, for
    the lasso, which is solved there by gradient descent on batches, layer after layer from the output on; here from the
    inputs of the trained network over all nodes, for each layer by itself. Li et al., *Pruning Filters for Efficient
    ConvNets*, arXiv 1608.08710, Section 3, for the norm, there the sum of absolute values.
    """

    score: Literal["magnitude", "lasso"] = "magnitude"
    start: Literal["trained", "initial"] = "trained"
    prunes: ClassVar[frozenset[str]] = frozenset({"weights"})
    nested: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name, known in (("score", ("magnitude", "lasso")), ("start", ("trained", "initial"))):
            if getattr(self, name) not in known:
                raise ValueError(f"'{name}' must be one of {known} (got {getattr(self, name)!r})")

    def find(self, run: TicketRun) -> Iterator[Found]:
        """Yield masks of weights; those of a sparser target lie within those of a denser one."""
        trained = run.train(run.model(), "dense").state_dict
        model, graph, call = run.model(trained, plain=True), run.example(), getattr(run.task, "call", None)
        units, everything = channel_units(model, graph, call), run.everything()
        grams = units.grams(model, graph, call) if self.score == "lasso" else {}
        largest = units.norms(model).argsort(descending=True, stable=True).argsort()
        turns = units.spread(_turns(units, _lasso(units, grams, trained) if grams else largest))
        scores = {}
        for name in everything.weights:  # within a turn the smallest first
            size = trained[name].abs().double()
            turn = turns.get(name, torch.tensor(float(units.num_units))).to(size.device)
            scores[name] = turn + size / (2 * size.max() + 1e-30)
        for target in run.targets:
            keep = everything.prune(weights=scores, weight_sparsity=target.weights)
            alive = units.sums(keep.weights, units.made | units.read) > 0
            start = _refit(model, units, grams, alive).state_dict() if self.start == "trained" else None
            yield Found(target, weights=keep.weights, start=start)


def _lasso(units: ChannelUnits, grams: dict[tuple[str, int], Tensor], weights: Mapping[str, Tensor]) -> Tensor:
    """Return the place of each unit within its layer by the lasso, that of the first that is taken in first."""
    total = torch.zeros(units.num_units, units.num_units, dtype=torch.float64)
    for (name, axis), gram in grams.items():
        weight = weights[name].cpu().double().movedim(axis, 0)
        unit = nn.functional.one_hot(units.labels[name, axis] + 1, units.num_units + 1)[:, 1:].double()
        total += unit.t() @ (gram * (weight @ weight.t())) @ unit
    layers, place = units.layers(), torch.zeros(units.num_units, dtype=torch.long)
    for layer in range(int(layers.max()) + 1):
        own = layers == layer
        place[own] = lasso_order(total[own][:, own])
    return place


def _turns(units: ChannelUnits, place: Tensor) -> Tensor:
    """Return when each unit is removed, all layers at the same rate; the best of each layer after all others."""
    same = units.layers().unsqueeze(1) == units.layers()
    worse, size = (same & (place > place.unsqueeze(1))).sum(1), same.sum(1)
    turn = ((worse + 0.5) / size).argsort(stable=True).argsort().double()
    turn[worse == size - 1] = units.num_units
    return turn


def _refit(model: nn.Module, units: ChannelUnits, grams: dict[tuple[str, int], Tensor], alive: Tensor) -> nn.Module:
    """Return a copy of the model with weights that make up for the channels that are not there any more."""
    model = copy_model(model)
    for (name, axis), gram in grams.items():
        label, parameter = units.labels[name, axis], model.get_parameter(name)
        weight = parameter.detach().cpu().double().movedim(axis, 0)
        parameter.data.copy_(least_squares(gram, weight, (label < 0) | alive[label]).movedim(0, axis))
    return model
