"""The linear maps of a model, what they are applied to on a graph, and how they are exchanged."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn import MLP

from graphsparse.nn.fused import FusedConv
from graphsparse.nn.gat_conv import GATConv
from graphsparse.nn.gcn2_conv import GCN2Conv
from graphsparse.nn.gin_conv import GINConv
from graphsparse.nn.inference import Layers, Step
from graphsparse.nn.linear import is_plain
from graphsparse.ops import spmm
from graphsparse.soups.merging.domain import Domain
from graphsparse.soups.states import State
from graphsparse.utils.copy_model import copy_model

#: Gets the number of a map and its input ``[N, p]``.
See = Callable[[int, Tensor], None]
_NORM = ("weight", "bias", "running_mean", "running_var")


@dataclass(frozen=True)
class LinearMap:
    r"""A map of a model that is linear in its weights for a given input: :math:`Y = Z W + b`.

    The input of a graph layer is what it aggregates, such as :math:`\hat A H` of a GCN, and beside it the features of
    the node itself where these have a matrix of their own, as in GraphSAGE.

    Args:
        name: Name of the layer.
        weights: Names of its matrices, whose inputs stand side by side.
        bias: Names of its biases, of which the sum counts.
        is_transposed: Whether matrices are ``[outputs, inputs]``.
        beta: Share of the matrices in the map, whose rest is the identity, as in GCNII; 1 for all others.
        norm: Name of the batch normalisation that follows at once, if one does. It is affine, so the map includes it.
        eps: What that adds to variances.
    """

    name: str
    weights: tuple[str, ...]
    bias: tuple[str, ...]
    is_transposed: bool = True
    beta: float = 1.0
    norm: str | None = None
    eps: float = 0.0

    @property
    def is_affine(self) -> bool:
        """Whether the last row of :meth:`matrix` is a constant."""
        return bool(self.bias) or self.norm is not None

    def inputs(self, z: Tensor) -> Tensor:
        """Return inputs in double precision, with a column of ones for the constant, if there is one."""
        z = z.double()
        return torch.cat([z, z.new_ones(len(z), 1)], 1) if self.is_affine else z

    def matrix(self, state: State) -> Tensor:
        """Return the map of a state, the constant as the last row, float64 ``[p, q]``."""
        parts = [state[name].double() for name in self.weights]
        found = torch.cat([self._with_identity(part.t() if self.is_transposed else part) for part in parts])
        if not self.is_affine:
            return found
        constant = torch.stack([found.new_zeros(found.size(1)), *(state[name].double() for name in self.bias)]).sum(0)
        if self.norm is not None:
            weight, bias, mean, var = (state[f"{self.norm}.{key}"].double() for key in _NORM)
            scale = weight / (var + self.eps).sqrt()
            found, constant = found * scale, (constant - mean) * scale + bias
        return torch.cat([found, constant.unsqueeze(0)])

    def _with_identity(self, weight: Tensor) -> Tensor:
        return weight if self.beta == 1 else self.beta * weight + (1 - self.beta) * torch.eye(len(weight))

    def _without_identity(self, part: Tensor) -> Tensor:
        return part if self.beta == 1 else (part - (1 - self.beta) * torch.eye(len(part))) / self.beta

    def tensors(self, matrix: Tensor, like: State, moments: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """Return the tensors of a state that hold such a map.

        Args:
            matrix: The map.
            like: A state dict with tensors of these shapes and types.
            moments: Mean and variance of the outputs, which a batch normalisation that changes nothing has.
        """
        rows = matrix[:-1] if self.is_affine else matrix
        parts = torch.split(rows, [like[name].size(int(self.is_transposed)) for name in self.weights])
        found = {name: self._without_identity(part) for name, part in zip(self.weights, parts, strict=True)}
        found = {name: part.t() if self.is_transposed else part for name, part in found.items()}
        for i, name in enumerate(self.bias):
            found[name] = matrix[-1] if i == 0 else torch.zeros_like(matrix[-1])
        if self.norm is not None:
            mean, var = moments
            before = mean if self.bias else mean - matrix[-1]  # without a bias the normalisation adds the constant
            values = (var + self.eps).sqrt(), mean, before, var
            found.update({f"{self.norm}.{key}": value for key, value in zip(_NORM, values, strict=True)})
        return {name: value.to(like[name].dtype).contiguous() for name, value in found.items()}


class LinearMaps:
    """A model of the declared family on a graph, as linear maps and what lies between them.

    Args:
        model: The model: ``GCN``, ``GraphSAGE`` or ``GIN`` of PyG, or a ``Sequential`` of such layers, with anything
            that works on each row alone.
        data: The graph.

    Raises:
        ValueError: If the model is of another kind, or has a layer that is not linear in its weights, such as
            ``GATConv``; the message names it.

    Example:
        >>> from torch_geometric.nn import GraphSAGE
        >>> from graphsparse.testing import random_graph
        >>> model, data = GraphSAGE(8, 16, 2, 3), random_graph()
        >>> linear = LinearMaps(model, data)
        >>> state, (first, last) = model.state_dict(), linear.maps
        >>> z = linear.inputs(state, torch.arange(60))[1]  # of the last map at all nodes, what it is applied to
        >>> torch.allclose((last.inputs(z) @ last.matrix(state)).float(), model(data.x, data.edge_index), atol=1e-5)
        True
    """

    def __init__(self, model: nn.Module, data: Data) -> None:
        self.layers = Layers(copy_model(model), data)  # weights are loaded into it
        self._names = {id(tensor): name for name, tensor in self.layers.model.named_parameters()}
        self._modules = {id(module): name for name, module in self.layers.model.named_modules()}
        self._tensors = dict(self.layers.model.state_dict(keep_vars=True))
        self.maps: list[LinearMap] = []
        self._number: dict[int, int] = {}
        self._known: Mapping[int, Tensor] = {}
        for step in self.layers.steps:
            self._enter(step.module)
        self._norms()

    def _enter(self, module: Any) -> None:
        """Note the linear maps of a step, in the order in which they are applied."""
        if not isinstance(module, FusedConv):
            for part in module.modules() if isinstance(module, nn.Module) else []:
                if is_plain(part):
                    self._add(part, [part.weight], [part.bias])
            return
        name = self._modules[id(module)]
        if isinstance(module, GATConv) or not module.is_product or module.reduction not in ("sum", "mean"):
            kind = type(module).__name__
            raise ValueError(
                f"layer {name!r} ({kind}) is not linear in its weights: its aggregation depends on them, or is no sum; "
                "take 'distil' or 'regmean', or align() with a soup"
            )
        if getattr(module, "project", False):
            self._add(module.lin, [module.lin.weight], [module.lin.bias])
        if isinstance(module, GCN2Conv):
            weights = [w for w in (module.weight1, module.weight2) if w is not None]
            self._add(module, weights, [], is_transposed=False, beta=float(module.beta))
        elif module.near is None:
            self._enter(module.nn)
        else:
            parts = [getattr(module, module.near)]
            parts += [getattr(module, module.own)] if module.own is not None and module.has_root else []
            self._add(module, [p.weight for p in parts], [*(p.bias for p in parts), getattr(module, "bias", None)])

    def _add(self, module: Any, weights: list[Any], bias: list[Any], **kind: Any) -> None:
        biases = tuple(self._names[id(b)] for b in bias if isinstance(b, Tensor))
        self._number[id(module)] = len(self.maps)
        names = tuple(self._names[id(w)] for w in weights)
        self.maps.append(LinearMap(self._modules[id(module)], names, biases, **kind))

    def _norms(self) -> None:
        """Note which map a batch normalisation follows at once, with nothing else between."""
        pairs: list[tuple[Any, Any]] = []
        for number, step in enumerate(self.layers.steps, 1):
            following = [later for later in self.layers.steps if number in later.uses]
            pairs += [(step.module, following[0].module)] if len(following) == 1 else []
        for module in self.layers.model.modules():
            if isinstance(module, MLP) and not module.act_first:
                pairs += list(zip(module.lins, module.norms, strict=False))
            elif type(module) is nn.Sequential:
                pairs += list(pairwise(module))
        for first, second in pairs:
            norm, at = getattr(second, "module", second), self._number.get(id(_last_linear(first)))
            is_norm = isinstance(norm, nn.BatchNorm1d) and norm.affine and norm.running_mean is not None
            if at is not None and is_norm and (isinstance(first, GINConv) or getattr(first, "is_linear", True)):
                self.maps[at] = replace(self.maps[at], norm=self._modules[id(norm)], eps=norm.eps)

    def inputs(self, state: State, nodes: Tensor) -> list[Tensor]:
        """Return what each map of a state is applied to at some nodes, ``[n, p]`` each, on CPU."""
        found: dict[int, Tensor] = {}

        def see(number: int, z: Tensor) -> None:
            found[number] = z[nodes.to(z.device)].cpu()

        self.run(state, see)
        return [found[number] for number in range(len(self.maps))]

    @torch.no_grad()
    def run(self, state: State, see: See, known: Mapping[int, Tensor] | None = None) -> Tensor:
        """Return the output of a state for all nodes, and show the input of every map on the way.

        Args:
            state: State dict; its head may have fewer outputs than the model.
            see: Function of the number of a map and its input.
            known: Outputs of maps by their number, which are taken as they are; what leads to them is not shown.
        """
        self._known = known or {}
        before = {name: tensor.data for name, tensor in self._tensors.items()}
        try:
            for name, tensor in self._tensors.items():
                tensor.data = state[name].to(tensor.device)
            return self._run(see)
        finally:  # no state is held longer than it is looked at
            self._known = {}
            for name, tensor in self._tensors.items():
                tensor.data = before[name]

    def _run(self, see: See) -> Tensor:
        values, steps = {0: self.layers.x}, self.layers.steps
        for number, step in enumerate(steps, 1):
            given = [values[i] for i in step.inputs]
            if step.is_conv:
                values[number] = self._conv(step, given[0], {n: values[i] for n, i in step.extra.items()}, see)
            else:
                values[number] = self._seen(step.module, partial(step.run, *given), see)
            needed = {i for later in steps[number:] for i in later.uses}
            values = {i: value for i, value in values.items() if i in needed or i == number}
        return values[len(steps)]

    def _conv(self, step: Step, x: Tensor, extra: dict[str, Tensor], see: See) -> Tensor:
        module: Any = step.module
        if (number := self._number.get(id(module), -1)) in self._known:
            return self._known[number]
        sent: Tensor = self._seen(module, lambda: module.prepare(x), see)
        near = spmm(self.layers.operator(step), sent, module.reduction)
        if number < 0:
            return self._seen(module.nn, lambda: module.from_near(near, x, transformed=False, fresh=False), see)
        z = near
        if isinstance(module, GCN2Conv):
            z, x_0 = (1 - module.alpha) * near, module.alpha * extra["x_0"]
            z = z + x_0 if module.weight2 is None else torch.cat([z, x_0], 1)
        elif len(self.maps[number].weights) > 1:
            z = torch.cat([near, x], 1)
        see(number, z)
        return module.from_near(near, x, transformed=False, fresh=False, **extra)  # type: ignore[no-any-return]

    def _seen(self, module: Any, run: Callable[[], Tensor], see: See) -> Tensor:
        """Run modules, with a look at the input of every linear layer in them."""
        with ExitStack() as stack:
            for part in module.modules() if isinstance(module, nn.Module) else []:
                if (number := self._number.get(id(part))) is not None and is_plain(part):
                    stack.callback(part.register_forward_hook(partial(self._show, see, number)).remove)
            return run()

    def _show(self, see: See, number: int, _module: nn.Module, given: tuple[Tensor], _out: Tensor) -> Tensor | None:
        if number not in self._known:
            see(number, given[0])
        return self._known.get(number)


def maps_on(model: nn.Module, domains: Sequence[Domain]) -> list[LinearMaps]:
    """Return the linear maps on the graph of each domain, built once for each graph."""
    on: dict[int, LinearMaps] = {}
    for domain in domains:
        if id(domain.data) not in on:
            on[id(domain.data)] = LinearMaps(model, domain.data)
    return [on[id(domain.data)] for domain in domains]


def _last_linear(module: Any) -> Any:
    """Return the linear layer whose output a module returns as it is, or the module itself."""
    if isinstance(module, GINConv):
        return _last_linear(module.nn)
    if isinstance(module, MLP):
        return module.lins[-1] if module.plain_last else module
    if type(module) is nn.Sequential and len(module):
        return _last_linear(module[-1])
    return module
