"""Models of the declared family as lists of steps, and their outputs for all nodes in bounded memory."""

import inspect
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric import nn as pyg
from torch_geometric.data import Data
from torch_geometric.nn import MessagePassing
from torch_geometric.nn.aggr import Aggregation
from torch_geometric.nn.models.basic_gnn import BasicGNN
from torch_geometric.utils._trim_to_layer import TrimToLayer

from graphsparse.nn.accelerate import accelerate
from graphsparse.nn.fused import FUSED, FusedConv
from graphsparse.nn.linear import FASTER, FastDropout, is_plain
from graphsparse.ops import Adjacency
from graphsparse.ops.blocks import blocks
from graphsparse.ops.check import check_count
from graphsparse.ops.pattern import Pattern

#: Modules that compute each row from that row alone, in evaluation mode.
_ROW_WISE: tuple[type[nn.Module], ...] = (
    *FASTER, *FASTER.values(), nn.Dropout, FastDropout, nn.Identity, nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.GELU,
    nn.SELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.Softplus, nn.LayerNorm, nn.BatchNorm1d, pyg.BatchNorm, pyg.LayerNorm,
    pyg.MLP, pyg.JumpingKnowledge, nn.Sequential, nn.ModuleList,
)  # fmt: skip
_ACTIVATIONS = (F.relu, torch.relu, F.elu, F.leaky_relu, F.gelu, F.silu, torch.tanh, F.tanh, torch.sigmoid, F.sigmoid)
_SUPPORTED = (
    "what is run layer by layer are GCN, GraphSAGE, GIN, GAT and Sequential of PyG, made of the layers that "
    "accelerate() exchanges and of modules that work on each row alone"
)
#: Edges of a block for each of its rows, at most; a single row may have more.
_EDGES_PER_ROW = 64


@dataclass(frozen=True)
class Step:
    """One module of a model, and what it is applied to: value 0 is ``x``, value ``i`` the output of step ``i - 1``.

    Attributes:
        module: A layer of ours, a module that works on each row alone, or a function that does.
        inputs: The values that it is called with.
        extra: For a layer, its further values by the names of its arguments.
        weighted: Whether a layer takes the edge weights of the graph.
    """

    module: Any
    inputs: tuple[int, ...]
    extra: Mapping[str, int] = field(default_factory=dict)
    weighted: bool = False

    @property
    def is_conv(self) -> bool:
        """Whether it passes messages."""
        return isinstance(self.module, FusedConv)

    @property
    def uses(self) -> set[int]:
        """The values that it needs."""
        return {*self.inputs, *self.extra.values()}

    def run(self, *given: Tensor) -> Tensor:
        """Apply a module that works on each row alone."""
        if isinstance(self.module, pyg.JumpingKnowledge):
            out: Tensor = self.module(list(given))
        elif getattr(self.module, "inplace", False):
            out = self.module(given[0].clone())
        else:
            out = self.module(*given)
        return out


class Layers:
    """A model of the declared family as a list of steps, and the graph that it is run on.

    The family are ``GCN``, ``GraphSAGE``, ``GIN`` and ``GAT`` of PyG, with normalisations of rows or batches, usual
    activations, dropout and jumping knowledge, and PyG's ``Sequential`` of the layers in
    :data:`~graphsparse.nn.fused.FUSED` and of modules that work on each row alone.

    Args:
        model: The model; it stays as it is, its mode too.
        data: The graph, with ``x``, ``edge_index`` and perhaps ``edge_weight``.

    Raises:
        TypeError: If ``x`` is no dense tensor.
        ValueError: If the model is not of the family, or the graph does not fit it; the message says why.
    """

    def __init__(self, model: nn.Module, data: Data) -> None:
        self.model = exact_copy(model).eval()
        self.steps = steps_of(self.model)
        self.device = next((t.device for t in (*model.parameters(), *model.buffers())), torch.device("cpu"))
        x, edges, weight = data.get("x"), data.get("edge_index"), data.get("edge_weight")
        if not isinstance(x, Tensor) or x.layout != torch.strided:
            raise TypeError(f"'data.x' must be a dense tensor (got {getattr(x, 'layout', type(x).__name__)})")
        if x.size(0) == 0:
            raise ValueError("'data' has no nodes")
        if edges is None:
            raise ValueError(f"'data' needs 'edge_index', [2, E] (got {sorted(data.keys())})")
        self.x: Tensor = x
        takes = any(step.weighted for step in self.steps if step.is_conv)
        if weight is not None and not takes:
            raise ValueError(f"'data.edge_weight' is given, but {type(model).__name__} does not take edge weights")
        if weight is None and takes and isinstance(model, pyg.Sequential):
            raise ValueError(f"'data' needs 'edge_weight', which {type(model).__name__} takes")
        self._plain = Adjacency.from_edge_index(edges.to(self.x.device), None, self.x.size(0))
        self._weighted = self._plain
        if weight is not None:
            self._weighted = self._plain.with_value(weight.detach().view(-1).to(self.x.device))
        #: Features of edges, if any layer takes some.
        self.edge_attr = data.get("edge_attr") if any(map(_takes_edge_attr, self.steps)) else None

    def edge_rows(self, step: Step) -> Tensor | None:
        """Return the features of the entries of the matrix that a layer multiplies by, row by row, if it takes some."""
        if self.edge_attr is None or not _takes_edge_attr(step):
            return None
        graph = self._weighted if step.weighted else self._plain
        entries: Tensor = step.module.edge_rows(graph, self.edge_attr.to(self.x.device))
        return entries

    def operator(self, step: Step) -> Adjacency:
        """Return the matrix that a layer multiplies by; it is kept where it is not the graph itself."""
        operator: Adjacency = step.module.operator(self._weighted if step.weighted else self._plain, self.x.dtype)
        return operator

    @torch.no_grad()
    def outputs(self, batch_size: int) -> Tensor:
        """Return the outputs of all nodes, computed layer by layer in blocks of rows, on the device of ``x``."""
        values = {0: self.x}
        starts = [i for i, step in enumerate(self.steps) if step.is_conv or i == 0]
        for start, stop in zip(starts, [*starts[1:], len(self.steps)], strict=True):
            later = {i for step in self.steps[stop:] for i in step.uses} | {len(self.steps)}
            found = _compute(self, start, stop, values, later, batch_size)
            values = {i: value for i, value in (values | found).items() if i in later}
        return values[len(self.steps)]


def _takes_edge_attr(step: Step) -> bool:
    return step.is_conv and getattr(step.module, "lin_edge", None) is not None


def exact_copy(model: nn.Module) -> nn.Module:
    """Return :func:`accelerate` of a model, without a word on what it left, and without weights PyG would not take."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        fast = accelerate(model)
    for name, module in model.named_modules():
        if isinstance(module, BasicGNN) and isinstance(copied := fast.get_submodule(name), BasicGNN):
            copied.supports_edge_weight = module.supports_edge_weight
    return fast


def steps_of(model: nn.Module) -> list[Step]:
    """Return the steps of an accelerated model.

    Raises:
        ValueError: If it is not of the declared family.
    """
    known = isinstance(model, BasicGNN) and type(model).forward is BasicGNN.forward and "forward" not in vars(model)
    if not known and type(model) is not pyg.Sequential:
        raise ValueError(f"{type(model).__name__} is another model, or has a forward of its own: {_SUPPORTED}")
    inside = {part for module in model.modules() if type(module) is pyg.JumpingKnowledge for part in module.children()}
    for name, module in model.named_modules():
        why = None if module is model or module in inside else _why_not(module)
        act = getattr(module, "act", None) if isinstance(module, BasicGNN | pyg.MLP) else None
        if act is not None and not isinstance(act, nn.Module) and act not in _ACTIVATIONS:
            why = f"has an activation that is not known, {act!r}"
        if any(getattr(module, f"_forward{kind}hooks") for kind in ("_", "_pre_")):
            why = "has a hook"
        if why is not None:
            raise ValueError(f"{module._get_name()} {name!r} {why}: {_SUPPORTED}".replace(" ''", ""))
    steps = _of_basic_gnn(model) if known else _of_sequential(model)
    if not any(step.is_conv for step in steps):
        raise ValueError(f"{type(model).__name__} has no message passing layer: {_SUPPORTED}")
    return steps


def why_not_by_layers(model: nn.Module) -> str | None:
    """Say why :func:`layerwise_inference` does not run a model, ``None`` if it does."""
    try:
        steps_of(exact_copy(model))
    except ValueError as error:
        return str(error)
    return None


def _why_not(module: nn.Module) -> str | None:
    """Say why a part of a model cannot be run on some rows, ``None`` if it can."""
    if isinstance(module, FusedConv):
        matrices = (part for name, part in module.named_children() if name != "nn")
        if type(module) not in FUSED.values() or not all(isinstance(m, Aggregation) or is_plain(m) for m in matrices):
            return "is not as accelerate() gives it"
        if module.flow != "source_to_target":
            return "sends messages from target to source"
        return None if module.is_fused(torch.empty(0, 0)) else f"is no sparse product with aggr={module.aggr!r}"
    if isinstance(module, MessagePassing):
        return "is a layer that accelerate() does not exchange"
    if isinstance(module, Aggregation | TrimToLayer):
        return None
    if type(module) not in _ROW_WISE or "forward" in vars(module):
        return "is not known to work on each row alone"
    if isinstance(module, nn.BatchNorm1d) and module.running_mean is None:
        return "takes its statistics from all nodes"
    if isinstance(module, pyg.LayerNorm) and module.mode != "node":
        return "normalises over all nodes; mode='node' does not"
    return None


def _of_basic_gnn(model: Any) -> list[Step]:
    steps: list[Step] = []
    value, kept = 0, []
    for i, (conv, norm) in enumerate(zip(model.convs, model.norms, strict=True)):
        steps.append(Step(conv, (value,), weighted=model.supports_edge_weight))
        if i < model.num_layers - 1 or model.jk_mode is not None:
            order = (model.act, norm) if model.act_first else (norm, model.act)
            for part in order:
                if part is not None and type(part) is not nn.Identity:
                    steps.append(Step(part, (len(steps),)))
            kept.append(len(steps))
        value = len(steps)
    if hasattr(model, "jk"):
        steps.append(Step(model.jk, tuple(kept)))
    if hasattr(model, "lin"):
        steps.append(Step(model.lin, (len(steps),)))
    return steps


def _of_sequential(model: Any) -> list[Step]:
    """Return the steps of PyG's ``Sequential``, whose names of values may be given away again."""
    x, *graph = model.signature.param_dict
    number = {x: 0}
    steps: list[Step] = []
    for child in model._children:
        module = getattr(model, child.name)
        if isinstance(module, FusedConv):
            names = dict(zip(inspect.signature(module.forward).parameters, child.param_names, strict=False))
            edges, weight = names.pop("edge_index", None), names.pop("edge_weight", None)
            if [edges, weight][: 1 + (weight is not None)] != graph[: 1 + (weight is not None)] or not names:
                raise ValueError(f"{child.name!r} does not take the graph as the model does: {_SUPPORTED}")
            known = {name: number.get(given, -1) for name, given in names.items()}
            step = Step(module, (known.pop("x", -1),), known, weight is not None)
        else:
            step = Step(module, tuple(number.get(name, -1) for name in child.param_names))
        known_here = isinstance(module, nn.Module) or module in _ACTIVATIONS
        if not known_here or min(step.uses) < 0 or len(child.return_names) != 1 or child.return_names[0] in graph:
            raise ValueError(f"{child.name!r} is not known to make one value of values of the same row: {_SUPPORTED}")
        if type(module) in (nn.Dropout, FastDropout, nn.Identity):
            number[child.return_names[0]] = step.inputs[0]
            continue
        steps.append(step)
        if getattr(module, "inplace", False):  # all names of what it is applied to name the outcome afterwards
            number = {name: len(steps) if i == step.inputs[0] else i for name, i in number.items()}
        number[child.return_names[0]] = len(steps)
    return steps


def layerwise_inference(model: nn.Module, data: Data, batch_size: int = 16_384) -> Tensor:
    """Return the output of a model for all nodes of a graph, computed layer by layer in blocks of nodes.

    The result is that of one forward pass over the whole graph in evaluation mode, up to rounding: all edges and their
    weights count, and GCN layers are normalised by the degrees of the whole graph. Where the features are held two or
    three matrices of a row per node at a time, more if jumping knowledge needs several layers; on the device of the
    model, where that is another one, are a block of rows and what is multiplied for it.

    The model is one of PyG's ``GCN``, ``GraphSAGE``, ``GIN`` and ``GAT``, or a ``torch_geometric.nn.Sequential`` of
    such layers as :func:`~graphsparse.nn.accelerate` exchanges, and of modules that work on each row alone: linear
    layers, activations, ``BatchNorm``, ``LayerNorm`` of nodes, ``MLP``. It need not be accelerated itself, and stays as
    it is.

    Args:
        model: The model, on any device.
        data: The graph: ``x`` ``[N, F]``, memory-mapped or not, ``edge_index`` ``[2, E]`` in any order, and
            ``edge_weight`` ``[E]`` if the model takes weights.
        batch_size: Most nodes of a block. It holds at most 64 times as many edges, but for a node that has more.

    Returns:
        Outputs ``[N, C]``, on the device of ``x``.

    Raises:
        TypeError: If ``x`` is no dense tensor.
        ValueError: If the model is of another kind, or does not fit the graph; the message says why.

    Example:
        >>> from torch_geometric.nn import GAT
        >>> from graphsparse.testing import random_graph
        >>> layerwise_inference(GAT(8, 16, 2, 3, heads=2), random_graph(), batch_size=10).shape
        torch.Size([60, 3])
    """
    check_count(batch_size, "batch_size")
    return Layers(model, data).outputs(batch_size)


def _compute(
    layers: Layers,
    start: int,
    stop: int,
    values: dict[int, Tensor],
    later: set[int],
    batch_size: int,
) -> dict[int, Tensor]:
    """Run some steps, of which at most the first is a layer, and return the outputs that are needed later."""
    steps, x, device = layers.steps[start:stop], layers.x, layers.device
    conv = steps[0] if steps[0].is_conv else None
    ranges: Iterator[tuple[int, int]] = ((rows.start, rows.stop) for rows in blocks(x.size(0), batch_size))
    if conv is not None:
        source, operator = values[conv.inputs[0]], layers.operator(conv)
        hidden, edge_attr = _transformed(conv.module, source, batch_size, device), layers.edge_rows(conv)
        ranges = _ranges(operator.rowptr, batch_size)
    found: dict[int, Tensor] = {}
    for first, last in ranges:
        local = {i: values[i][first:last].to(device) for step in steps for i in step.uses if i in values}
        for number, step in enumerate(steps, start + 1):
            if step is conv:
                block: Adjacency = operator.rows(first, last)
                columns: slice | Tensor = slice(None)
                # What looks at all columns once for each block had better be given those that it needs.
                if device != operator.device or not conv.module.is_product:
                    block, columns = _compact(block.to(device), operator.device)
                extra = {name: local[i] for name, i in step.extra.items()}
                if edge_attr is not None:
                    extra["edge_attr"] = edge_attr[operator.rowptr[first] : operator.rowptr[last]].to(device)
                near, own = hidden[columns].to(device), hidden[first:last].to(device)
                local[number] = conv.module.rows(block, near, own, local[step.inputs[0]], **extra)
            else:
                local[number] = step.run(*(local[i] for i in step.inputs))
            if number in later:
                out = local[number]
                if number not in found:
                    found[number] = out.new_empty(x.size(0), *out.shape[1:], device=x.device)
                found[number][first:last] = out
    return found


def _transformed(conv: FusedConv, x: Tensor, batch_size: int, device: torch.device) -> Tensor:
    """Return what all nodes send; their features themselves, which may lie on disk, where nothing comes before."""
    hidden: Tensor | None = None
    for rows in blocks(x.size(0), batch_size):
        part = x[rows].to(device)
        out = conv.transform(part)
        if out is part:
            return x
        if hidden is None:
            hidden = out.new_empty(x.size(0), *out.shape[1:], device=x.device)
        hidden[rows] = out
    assert hidden is not None
    return hidden


def _ranges(rowptr: Tensor, batch_size: int) -> Iterator[tuple[int, int]]:
    """Cut rows into blocks of few rows and few edges; a row of many edges has a block to itself."""
    start, size = 0, rowptr.numel() - 1
    while start < size:
        end = int(rowptr[start]) + _EDGES_PER_ROW * batch_size
        stop = min(start + batch_size, int(torch.searchsorted(rowptr, end, right=True)) - 1)
        stop = min(max(stop, start + 1), size)
        yield start, stop
        start = stop


def _compact(block: Adjacency, device: torch.device) -> tuple[Adjacency, Tensor]:
    """Leave out the columns without entries, and return the others on a device."""
    columns, col = torch.unique(block.col, return_inverse=True)
    pattern = Pattern(block.rowptr, col.to(block.rowptr.dtype), columns.numel())
    return Adjacency(pattern, block.value), columns.to(device)
