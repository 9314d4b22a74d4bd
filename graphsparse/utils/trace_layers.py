"""Find out on a few rows which layers a model calls, with what, and what it needs of their outputs."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.nn import MessagePassing

from graphsparse.utils.replay import Arguments, EdgePlaceholder, Replay, twin

_ROWS, _EDGES = 7, 9  # of the first run
_BEFORE, _AFTER = 2, 3  # strangers around them in the second run
_STRANGERS = _BEFORE + _ROWS + _AFTER

#: Makes the block of some nodes and some edges: tensors per node and per edge, and the placeholder of the edges.
MakeBlock = Callable[[Tensor, Tensor], Data]


@dataclass
class Leaf:
    """One value inside the arguments of a layer.

    Attributes:
        kind: ``"rows"``, ``"edges"``, ``"graph"`` (the edges themselves) or ``"constant"``.
        source: The stored tensor that it equals, unchanged: the name of an attribute of the graph, or the number of
            the call whose output it is. ``None`` if it has to be computed.
        value: The value of a constant.
    """

    kind: str
    source: str | int | None = None
    value: Any = None


@dataclass
class LayerCall:
    """One call of a layer.

    Attributes:
        layer: Shares its parameters with the model's layer; keeps nothing of a graph.
        name: Class and place in the model, for errors.
        arguments: The arguments of the call, whose leaves are described by ``leaves``.
        leaves: What each leaf is.
        last_use: The last call whose arguments need the output of this one directly; the number of calls if the
            logits do, and -1 if nothing does.
    """

    layer: MessagePassing
    name: str
    arguments: Arguments
    leaves: list[Leaf]
    last_use: int = -1


@dataclass
class Trace:
    """What a few rows told about a model.

    Attributes:
        calls: The calls of layers, in order.
        rows: The nodes of the first run.
        outputs: What the layers gave on them, in a made-up graph.
    """

    calls: list[LayerCall]
    rows: Tensor
    outputs: list[Tensor]


def trace_layers(replay: Replay, make_block: MakeBlock, num_nodes: int, num_edges: int) -> Trace:
    """Run a model a few times on a few rows.

    The first run gives the calls. The second one has the same rows at other places, among rows full of NaN: what a
    model computes between its layers must come out the same, else it mixes rows. Further runs change the output of
    one layer each, to see what depends on it directly.

    Args:
        replay: The model.
        make_block: Makes a block of nodes and edges.
        num_nodes: Number of nodes of the graph.
        num_edges: Number of edges of the graph.

    Raises:
        ValueError: If the model mixes rows outside its layers, or a layer or the model does not return one tensor with
            one row per node.
    """
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(num_nodes, (_ROWS,), generator=generator)
    edges = torch.randint(max(num_edges, 1), (_EDGES if num_edges else 0,), generator=generator)
    outputs: list[Tensor] = []

    def made_up(k: int, arguments: Arguments) -> Tensor:
        outputs.append(_on_made_up_graph(arguments, edges.numel(), replay.name_of(arguments.layer)))
        return outputs[k].clone()

    def among_strangers(k: int, arguments: Arguments) -> Tensor:
        like = outputs[k]
        return like.new_full((_STRANGERS, *like.shape[1:]), torch.nan).index_copy(0, place.to(like.device), like)

    first = _record(replay, make_block(rows, edges), made_up)
    place, edge_place = (torch.arange(part.numel()).flip(0) + _BEFORE for part in (rows, edges))
    second = _record(replay, _among_strangers(make_block, rows, edges, num_nodes, num_edges), among_strangers)

    calls = []
    for k, arguments in enumerate(first.arguments):
        leaves = []
        for i, (a, b) in enumerate(zip(first.leaves[k], second.leaves[k], strict=True)):
            what = f"argument '{arguments.leaf_names[i]}' of layer {replay.name(k)}"
            leaves.append(Leaf(_kind(a, b, place, edge_place, what), first.sources[k][i], a))
        calls.append(LayerCall(twin(arguments.layer), replay.name(k), arguments, leaves))
    if not isinstance(first.output, Tensor):
        raise ValueError(f"the model must return one tensor with one row per node (got {type(first.output).__name__})")
    if _kind(first.output, second.output, place, edge_place, "the output of the model") != "rows":
        raise ValueError("the model must return one tensor with one row per node")

    for j, call in enumerate(calls):
        noise = torch.randn(outputs[j].shape, generator=generator).to(outputs[j])
        for changed in (torch.full_like(outputs[j], torch.nan), noise):
            answers = [*outputs[:j], changed, *outputs[j + 1 :]]
            other = _record(replay, make_block(rows, edges), partial(_clone_of, answers))
            users = [k for k in range(j + 1, len(calls)) if _differ(first.leaves[k], other.leaves[k])]
            users += [len(calls)] if _differ([first.output], [other.output]) else []
            call.last_use = max([call.last_use, *users])
    return Trace(calls, rows, outputs)


def _clone_of(answers: list[Tensor], k: int, _: Arguments) -> Tensor:
    return answers[k].clone()


@dataclass
class _Record:
    """Copies of everything that the layers were given in one run."""

    arguments: list[Arguments]
    leaves: list[list[Any]]
    sources: list[list[str | int | None]]
    output: Any = None


def _record(replay: Replay, block: Data, answer: Callable[[int, Arguments], Tensor]) -> _Record:
    record = _Record([], [], [])
    given: dict[int, tuple[Tensor, str | int, int]] = {}  # holds the tensors, so that no other gets the same id

    def note(value: Tensor, source: str | int) -> None:
        given[id(value)] = (value, source, value._version)

    def noted(k: int, arguments: Arguments) -> Tensor:
        record.arguments.append(arguments)
        record.leaves.append([_copy(leaf) for leaf in arguments.leaves])
        record.sources.append([])
        for leaf in arguments.leaves:
            _, source, version = given.get(id(leaf), (None, None, 0))
            untouched = isinstance(leaf, Tensor) and id(leaf) in given and leaf._version == version
            record.sources[k].append(source if untouched else None)
        output = answer(k, arguments)
        note(output, k)
        return output

    for name in block.keys():  # noqa: SIM118
        if isinstance(block[name], Tensor) and not isinstance(block[name], EdgePlaceholder):
            note(block[name], name)
    record.output = _copy(replay.run(block, noted))
    return record


def _copy(leaf: Any) -> Any:
    return leaf.clone() if isinstance(leaf, Tensor) and not isinstance(leaf, EdgePlaceholder) else leaf


def _on_made_up_graph(arguments: Arguments, num_edges: int, name: str) -> Tensor:
    """Run a layer on some edges between the few rows, to have an output of the right kind."""
    generator = torch.Generator().manual_seed(1)
    leaves = [_copy(leaf) for leaf in arguments.leaves]
    for i, leaf in enumerate(leaves):
        if isinstance(leaf, EdgePlaceholder):
            edges = torch.randint(_ROWS, (2, num_edges), generator=generator)
            leaves[i] = edges[:, edges[1].argsort()].to(leaf.device)  # some aggregations ask for an order
    args, kwargs = arguments.filled(leaves)
    output = type(arguments.layer).forward(twin(arguments.layer), *args, **kwargs)
    if not isinstance(output, Tensor) or output.dim() == 0 or output.size(0) != _ROWS:
        raise ValueError(f"layer {name} must return one tensor with one row per node")
    if not output.is_floating_point():
        raise ValueError(f"layer {name} must return floating point numbers (got {output.dtype})")
    return output


def _among_strangers(make_block: MakeBlock, rows: Tensor, edges: Tensor, num_nodes: int, num_edges: int) -> Data:
    """Make the block of the second run: the same rows and edges backwards, and NaN around them."""
    around = [
        torch.cat([torch.arange(_BEFORE) % max(size, 1), part.flip(0), torch.arange(_AFTER) % max(size, 1)])
        if part.numel()
        else part
        for part, size in ((rows, num_nodes), (edges, num_edges))
    ]
    block = make_block(*around)
    for name in block.keys():  # noqa: SIM118
        value = block[name]
        if isinstance(value, Tensor) and not isinstance(value, EdgePlaceholder) and value.is_floating_point():
            value[:_BEFORE] = torch.nan
            value[value.size(0) - _AFTER :] = torch.nan
    return block


def _kind(a: Any, b: Any, place: Tensor, edge_place: Tensor, what: str) -> str:
    """Tell rows, edges and constants apart by their sizes in two runs, and refuse what differs between these."""
    if isinstance(a, EdgePlaceholder) and isinstance(b, EdgePlaceholder):
        return "graph"
    if isinstance(a, Tensor) and isinstance(b, Tensor) and a.dim() == b.dim() and a.dtype == b.dtype:
        sizes = (a.size(0), b.size(0)) if a.dim() else (-1, -1)
        if sizes == (_ROWS, _STRANGERS):
            kind, b = "rows", b[place.to(b.device)]
        elif sizes == (edge_place.numel(), edge_place.numel() + (_BEFORE + _AFTER if edge_place.numel() else 0)):
            kind, b = "edges", b[edge_place.to(b.device)]
        else:
            kind = "constant"
        if a.shape == b.shape and _close(a, b):
            return kind
    elif a is b or (isinstance(a, (bool, int, float, str, tuple)) and type(a) is type(b) and a == b):
        return "constant"
    raise ValueError(
        f"{what} depends on which other rows are computed with it: the model mixes nodes outside its message passing"
        " layers (GraphNorm, PairNorm, LayerNorm in mode 'graph', pooling, ...), or is random in evaluation mode. It"
        " cannot be run layer by layer"
    )


def _close(a: Tensor, b: Tensor) -> bool:
    """Compare up to rounding: products of matrices of other heights round otherwise."""
    if not a.is_floating_point():
        return torch.equal(a, b)
    largest = float(a.nan_to_num(0.0, 0.0, 0.0).abs().max()) if a.numel() else 0.0
    tolerance = 1e3 * torch.finfo(a.dtype).eps * largest
    return torch.allclose(a, b, rtol=0.0, atol=tolerance, equal_nan=True)


def _differ(before: list[Any], after: list[Any]) -> bool:
    return any(
        isinstance(a, Tensor) and not isinstance(a, EdgePlaceholder) and not torch.equal(a, b)
        for a, b in zip(before, after, strict=True)
    )
