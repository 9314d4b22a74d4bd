"""Tickets of weights that are chosen before any training."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from graphsparse.edges.sparsifier import Sparsifier, as_sparsifier
from graphsparse.ops.check import check_count
from graphsparse.tickets.method import Found, Target, check_edges
from graphsparse.tickets.run import TicketRun
from graphsparse.training import Masks
from graphsparse.typing import EdgeScore

#: What outputs of the model are divided by for GraSP, as published.
_TEMPERATURE = 200.0


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
                     normalisation; ranked anew in each round. It needs neither labels nor features;
                     attention vectors have no share in it, as all neighbours are alike, and go first
    ``"magnitude"``  :math:`|\theta|`
    ===============  ==========================================================================================

    Args:
        score: One of these names.
        edges: Edge score or sparsifier, as of :class:`~graphsparse.tickets.OneShot`; ``None`` keeps all edges. Weights
            are ranked on the whole graph.
        rounds: Number of rounds of SynFlow to each target, each of which takes the same share of what is left.

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
    rounds: int = 100

    def __post_init__(self) -> None:
        if self.score not in (known := ("snip", "grasp", "synflow", "magnitude")):
            raise ValueError(f"'score' must be one of {list(known)} (got {self.score!r})")
        check_edges(self.edges)
        check_count(self.rounds, "rounds")

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
        scores = {} if self.score == "synflow" else _scores(run, self.score)
        for target in run.targets:
            keep = run.everything()
            if self.score == "synflow":
                model = _positive(run)
                for step in Target().towards(target, self.rounds):
                    keep = keep.prune(weights=_flow(run, model, keep), weight_sparsity=step.weights)
            else:
                keep = keep.prune(weights=scores, weight_sparsity=target.weights)
            yield Found(target, run.score_edges(self.edges, target.edges), keep.weights)


def _scores(run: TicketRun, score: str) -> dict[str, Tensor]:
    """Return the scores of all weights of the initial model."""
    model = run.model()
    found = {name: model.get_parameter(name).detach() for name in run.names}
    if score == "grasp":
        model.register_forward_hook(lambda _, inputs, output: _each(output, lambda out: out / _TEMPERATURE))
    if score != "magnitude":
        gradient = run.gradient(model)
        product = run.gradient(model, times=gradient) if score == "grasp" else gradient
        found = {name: weight * product[name] for name, weight in found.items()}
    return found if score == "grasp" else {name: value.abs() for name, value in found.items()}


def _positive(run: TicketRun) -> nn.Module:
    """Return the initial model with absolute weights and without normalisation."""
    model = run.model().double().eval()  # the flow through many layers is a number of any size
    for parameter in model.parameters():
        parameter.data.abs_()
    for module in model.modules():
        if "norm" in type(module).__name__.lower() and not list(module.children()):
            module.register_forward_hook(lambda _, inputs, output: inputs[0])

    def enter(_: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
        x, *others = [*inputs, *named.values()]
        x = _each(x, lambda entry: entry.new_ones(entry.shape, dtype=torch.double, layout=torch.strided))
        values = [x, *(_each(value, lambda entry: entry.double().abs()) for value in others)]
        return tuple(values[: len(inputs)]), dict(zip(named, values[len(inputs) :], strict=True))

    model.register_forward_pre_hook(enter, with_kwargs=True)
    return model


def _flow(run: TicketRun, model: nn.Module, keep: Masks) -> dict[str, Tensor]:
    """Return the share of every kept weight in what flows from inputs of 1 to the outputs."""
    weights, flow = {name: model.get_parameter(name) for name in run.names}, list[Tensor]()
    for name, weight in weights.items():
        weight.data.mul_(keep.weights[name])

    def leave(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
        _each(output, lambda out: flow.append(out.sum()))
        return _each(output, lambda out: out.detach().float())  # for the loss, which nobody looks at

    with model.register_forward_hook(leave):
        for batch in run.task.batches():
            run.task.loss(model, batch, None)
    found = torch.autograd.grad(torch.stack(flow).sum(), list(weights.values()), materialize_grads=True)
    return {name: (w.detach() * g).abs() for (name, w), g in zip(weights.items(), found, strict=True)}


def _each(value: Any, change: Callable[[Tensor], Any]) -> Any:
    """Change a floating point tensor, or those of a dictionary by types of nodes or edges; the rest stays."""
    if isinstance(value, Mapping):
        return {key: _each(entry, change) for key, entry in value.items()}
    return change(value) if isinstance(value, Tensor) and value.is_floating_point() else value
