"""Tickets of weights that are chosen before any training."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from graphsparse.edges.sparsifier import Sparsifier, as_sparsifier
from graphsparse.tickets.run import Found, Target, TicketRun, check_edges
from graphsparse.training import Masks
from graphsparse.typing import EdgeScore

#: Number of rounds of SynFlow, and what outputs of the model are divided by for GraSP, as published.
_ROUNDS, _TEMPERATURE = 100, 200.0


@dataclass(frozen=True)
class AtInit:
    r"""Rank the initial weights :math:`\theta`, remove the lowest, and train what is left once.

    All tensors are ranked together. With the gradient :math:`g` of the training loss and its second derivatives
    :math:`H`, the score of a weight is

    ===============  ==========================================================================================
    ``"snip"``       :math:`|\theta g|`: how much the loss depends on it
    ``"grasp"``      :math:`\theta (H g)`: how much the length of the gradient does; outputs of the model are divided
                     by 200 before the loss
    ``"synflow"``    :math:`|\theta\, \partial R / \partial \theta|`, where :math:`R` is the sum of the outputs of the
                     model with :math:`|\theta|` in the place of :math:`\theta`, features of 1, no dropout and no
                     normalisation; ranked anew in each of 100 rounds. It needs neither labels nor features;
                     attention vectors have no share in it, as all neighbours are alike, and go first
    ``"magnitude"``  :math:`|\theta|`
    ===============  ==========================================================================================

    Args:
        score: One of these names.
        edges: Edge score or sparsifier, as of :class:`~graphsparse.tickets.OneShot`; ``None`` keeps all edges. Weights
            are ranked on the whole graph.

    Raises:
        TypeError: If ``edges`` is neither a name nor callable.
        ValueError: If there is no score of that name, or the edges that it keeps cannot be those of a ticket.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.tickets import find_ticket
        >>> from graphsparse.testing import random_graph
        >>> from graphsparse.training import Training
        >>> data, make_model, training = random_graph(), lambda: GCN(8, 16, 2, 3), Training(epochs=5)
        >>> ticket = find_ticket(make_model, data, weight_sparsity=0.5, method=AtInit("grasp"), training=training)
        >>> ticket.metrics["weight_sparsity"]
        0.5

    Source: SNIP: Lee et al., arXiv 1810.02340, Section 4; GraSP: Wang et al., arXiv 2002.07376, Section 4; SynFlow:
    Tanaka et al., arXiv 2006.05467, Section 6.
    """

    score: Literal["snip", "grasp", "synflow", "magnitude"] = "snip"
    edges: str | EdgeScore | Sparsifier | None = None

    def __post_init__(self) -> None:
        if self.score not in _SCORES:
            raise ValueError(f"'score' must be one of {list(_SCORES)} (got {self.score!r})")
        check_edges(self.edges)

    @property
    def prunes(self) -> frozenset[str]:
        """What is pruned."""
        return frozenset({"weights"} if self.edges is None else {"edges", "weights"})

    @property
    def nested(self) -> bool:
        """Whether kept sets are nested: those of SynFlow, which has other rounds for each target, need not be."""
        return self.score != "synflow" and (self.edges is None or as_sparsifier(self.edges).nested)

    def find(self, run: TicketRun) -> Iterator[Found]:
        """Yield what the run trains once for each target."""
        score = _SCORES[self.score](run)
        for target in run.targets:
            keep = run.everything()
            for step in Target().towards(target, _ROUNDS if self.score == "synflow" else 1):
                keep = keep.prune(weights=score(keep), weight_sparsity=step.weights)
            yield Found(target, run.score_edges(self.edges, target.edges), keep.weights)


#: Scores of the weights by name, as far as they depend on what is kept.
_Scores: TypeAlias = Callable[[Masks], dict[str, Tensor]]


def _magnitude(run: TicketRun) -> _Scores:
    found = {name: weight.abs() for name, weight in _weights(run.model(), run).items()}
    return lambda keep: found


def _snip(run: TicketRun) -> _Scores:
    model = run.model()
    gradient = run.gradient(model)
    found = {name: (weight * gradient[name]).abs() for name, weight in _weights(model, run).items()}
    return lambda keep: found


def _grasp(run: TicketRun) -> _Scores:
    model = run.model()
    model.register_forward_hook(lambda _, inputs, output: _each(output, lambda out: out / _TEMPERATURE))
    product = run.gradient(model, times=run.gradient(model))
    found = {name: weight * product[name] for name, weight in _weights(model, run).items()}
    return lambda keep: found


def _synflow(run: TicketRun) -> _Scores:
    """Score every kept weight by its share in what flows from inputs of 1 to the outputs."""
    model = run.model().double().eval()  # the flow through many layers is a number of any size
    for parameter in model.parameters():
        parameter.data.abs_()
    for module in model.modules():
        if "norm" in type(module).__name__.lower() and not list(module.children()):
            module.register_forward_hook(lambda _, inputs, output: inputs[0])
    start = {name: weight.clone() for name, weight in _weights(model, run).items()}
    flow: list[Tensor] = []

    def enter(_: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
        x = _each(inputs[0], lambda entry: entry.new_ones(entry.shape, dtype=torch.double, layout=torch.strided))
        others = [_each(value, lambda entry: entry.double().abs()) for value in inputs[1:]]
        return (x, *others), {name: _each(value, lambda entry: entry.double().abs()) for name, value in named.items()}

    def leave(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
        _each(output, lambda out: flow.append(out.sum()))
        return _each(output, lambda out: out.detach().float())  # for the loss, which nobody looks at

    model.register_forward_pre_hook(enter, with_kwargs=True)
    model.register_forward_hook(leave)

    def score(keep: Masks) -> dict[str, Tensor]:
        weights = {name: model.get_parameter(name) for name in run.names}
        for name, weight in weights.items():
            weight.data.copy_(start[name] * keep.weights[name])
        flow.clear()
        for batch in run.task.batches():
            run.task.loss(model, batch, None)
        found = torch.autograd.grad(torch.stack(flow).sum(), list(weights.values()), materialize_grads=True)
        return {name: (w.detach() * g).abs() for (name, w), g in zip(weights.items(), found, strict=True)}

    return score


_SCORES: dict[str, Callable[[TicketRun], _Scores]] = {
    "snip": _snip,
    "grasp": _grasp,
    "synflow": _synflow,
    "magnitude": _magnitude,
}


def _weights(model: nn.Module, run: TicketRun) -> dict[str, Tensor]:
    return {name: model.get_parameter(name).detach() for name in run.names}


def _each(value: Any, change: Callable[[Tensor], Any]) -> Any:
    """Change a floating point tensor, or those of a dictionary by types of nodes or edges; the rest stays."""
    if isinstance(value, Mapping):
        return {key: _each(entry, change) for key, entry in value.items()}
    return change(value) if isinstance(value, Tensor) and value.is_floating_point() else value
