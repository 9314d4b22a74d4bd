"""How every part of the package calls a model on a graph."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch_geometric.data import Data, HeteroData
from torch_geometric.nn import MessagePassing, Sequential
from torch_geometric.nn.models.basic_gnn import BasicGNN

#: Calls a model on a graph or on a batch of graphs, for a model that :func:`call_model` cannot call.
Call: TypeAlias = Callable[[nn.Module, Any], Any]

#: What a wrapper that hands its arguments on calls the model inside: Supermask, torch.compile, DataParallel.
_WRAPPED = ("model", "_orig_mod", "module")
#: What comes by name where the graph has it and the model takes it.
_BY_NAME = ("edge_weight", "edge_attr", "pos", "batch")


def call_model(model: nn.Module, data: Any, call: Call | None = None, node_type: str | None = None) -> Any:
    """Call a model on a graph, or on a batch of graphs, as its ``forward`` asks for it.

    ``x`` and ``edge_index`` (``adj_t`` where there is none) come by position. By name come ``edge_weight``,
    ``edge_attr``, ``pos`` and ``batch``, the graph of every node, as far as the graph has them and ``forward`` takes an
    argument of that name, and with ``batch`` also ``batch_size``, the number of graphs. Of a wrapper that only hands
    arguments on, the model inside is looked at. Weights are never left out: a model that takes none is refused.

    Where ``data`` has ``layer_edges``, a list of pairs of edges ``[2, m]`` and weights ``[m]``, each message passing
    layer gets the next of them, in the order in which the layers are called, whatever the model passes to it.

    Of a ``HeteroData`` come the dictionaries by type, as ``model(x_dict, edge_index_dict)``, and ``edge_weight``,
    ``edge_attr`` and ``pos`` under their names, or with ``_dict`` at the end, whichever ``forward`` has.

    A model with a method ``weighed``, such as :class:`~graphsparse.nn.SoftMasks`, puts weights of its own on the edges
    meanwhile: it is called inside ``with model.weighed(data) as data``.

    Args:
        model: The model.
        data: The graph.
        call: ``(model, data) -> output`` instead, for any other signature.
        node_type: Of a dictionary that is returned, what this node type has; all of it when ``None``.

    Raises:
        ValueError: If the model takes no edge weights although there are some, needs what the graph lacks, or is on
            another device than the graph.

    Example:
        >>> import torch
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.testing import random_graph
        >>> call_model(GCN(8, 16, 2, 3), random_graph()).shape
        torch.Size([60, 3])
    """
    if node_type is not None:
        return _of_type(call_model(model, data, call), node_type)
    if call is None and isinstance(model, nn.Module):
        check_device(model, data)
    if (weighed := getattr(model, "weighed", None)) is not None:
        with weighed(data) as own:
            return _call_model(model, own, call)
    return _call_model(model, data, call)


def _call_model(model: nn.Module, data: Any, call: Call | None) -> Any:
    if call is not None:
        return call(model, data)
    if isinstance(data, HeteroData):
        return _call_hetero(model, data)
    layer_edges = data.get("layer_edges")
    if layer_edges is not None:
        with own_edges(model, layer_edges):
            return model(data.x, *layer_edges[0])
    edges = data.edge_index if "edge_index" in data else data.adj_t
    taken, flags = forward_arguments(model), _inside(model)
    named = {name: data[name] for name in _BY_NAME if name in taken and data.get(name) is not None}
    if "batch" in named and "batch_size" in taken:
        named["batch_size"] = data.num_graphs
    # PyG's models have the argument all the same.
    without = isinstance(flags, BasicGNN) and all(getattr(conv, "edge_dim", 0) is None for conv in flags.convs)
    if without or getattr(flags, "supports_edge_attr", True) is False:
        named.pop("edge_attr", None)
    weight: tuple[Tensor, ...] = ()
    if data.get("edge_weight") is not None:
        _check_takes_weights(model, "data.edge_weight")
        if "edge_weight" not in taken:
            if not any(entry.kind is entry.VAR_POSITIONAL for entry in taken.values()):
                raise ValueError(
                    f"'data.edge_weight' is given, but the forward of {type(model).__name__} has no argument "
                    f"'edge_weight' (it takes {list(taken)}); for any other signature give 'call'"
                )
            weight = (data.edge_weight,)
    _check_required(model, taken, named, data)
    return model(data.get("x"), edges, *weight, **named)


def _of_type(out: Any, node_type: str) -> Any:
    if not isinstance(out, Mapping):
        return out
    if node_type not in out:
        raise ValueError(f"'model' must return logits for {node_type!r} (got {list(out)})")
    return out[node_type]


def _call_hetero(model: nn.Module, data: HeteroData) -> Any:
    """Call a model on dictionaries by node type and by edge type."""
    taken, named = forward_arguments(model), {}
    for name in ("edge_weight", "edge_attr", "pos"):
        if not any(store.get(name) is not None for store in data.stores):
            continue
        key = next((key for key in (f"{name}_dict", name) if key in taken), None)
        if name == "edge_weight":
            _check_hetero_takes_weights(model, key)
        if key is not None:
            named[key] = data.collect(name)
    return model(data.collect("x", True), data.collect("edge_index", True), **named)


def _check_hetero_takes_weights(model: nn.Module, key: str | None) -> None:
    """Refuse a model that would leave weights out; to_hetero takes them, and loses them before layers without any."""
    layers = model.named_modules() if isinstance(model, GraphModule) else ()
    parts = [(n, part) for n, part in layers if isinstance(part, MessagePassing)]
    without = [n for n, part in parts if "edge_weight" not in inspect.signature(part.forward).parameters]
    if key is None or without:
        who = f"its layer {without[0]!r}" if without else f"the forward of {type(model).__name__}"
        raise ValueError(
            f"'data' holds 'edge_weight', but {who} has no argument 'edge_weight'; for any other signature give 'call'"
        )


def check_device(model: nn.Module, data: Any, name: str = "data") -> None:
    """Refuse a graph on another device than the model, by the names of both."""
    if isinstance(data, HeteroData):
        for store in data.stores:
            check_device(model, store, f"{name}[{store._key!r}]")
        return
    own = next((tensor.device for part in (model.parameters(), model.buffers()) for tensor in part), None)
    for key in ("x", "edge_index", "adj_t", "edge_weight", "edge_attr"):
        other = getattr(data.get(key), "device", None)
        if own is not None and isinstance(other, torch.device) and other != own:
            raise ValueError(f"'model' is on {own}, but '{name}.{key}' is on {other}: move one of them to the other")


def forward_arguments(model: nn.Module) -> dict[str, inspect.Parameter]:
    """Return the arguments of a model's ``forward``, inside wrappers that hand theirs on, and of PyG's ``Sequential``.

    The third argument of a ``Sequential``, whatever its name, may be that of the weights: it is left out then.
    """
    model = _inside(model)
    taken = dict(inspect.signature(getattr(model, "forward", model)).parameters)
    if isinstance(model, Sequential):
        places = list(model.signature.param_dict)
        kept = [name for i, name in enumerate(places) if i != 2 or name in _BY_NAME]
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        taken |= {name: inspect.Parameter(name, kind) for name in kept}
    return taken


def _inside(model: nn.Module) -> nn.Module:
    """Return the model inside wrappers that hand their arguments on."""
    taken = inspect.signature(getattr(model, "forward", model)).parameters.values()
    inside = next((part for name in _WRAPPED if isinstance(part := getattr(model, name, None), nn.Module)), None)
    hands_on = any(entry.kind is entry.VAR_KEYWORD for entry in taken)
    return _inside(inside) if hands_on and inside is not None else model


def _check_required(model: nn.Module, taken: dict[str, inspect.Parameter], named: dict[str, Any], data: Data) -> None:
    """Refuse a model that must be given what the graph does not have, or takes no features and edges."""
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    places = [name for name, entry in taken.items() if entry.kind in positional]
    if len(places) < 2 and not any(entry.kind is entry.VAR_POSITIONAL for entry in taken.values()):
        raise ValueError(
            f"'model' must be called as model(x, edge_index) (the forward of {type(model).__name__} takes "
            f"{list(taken)}); for any other signature give 'call'"
        )
    missing = [
        name
        for name, entry in taken.items()
        if entry.default is entry.empty
        and entry.kind in (*positional, entry.KEYWORD_ONLY)
        and name not in {*places[:2], *named}
    ]
    if missing:
        raise ValueError(
            f"'model' must be given {missing}, which the graph does not have (it has {sorted(data.keys())}); "
            "for any other signature give 'call'"
        )


@contextmanager
def own_edges(model: nn.Module, layer_edges: Sequence[tuple[Tensor, Tensor]]) -> Iterator[None]:
    """Give every message passing layer that is called inside the block its own edges and weights, one after the other.

    Args:
        model: The model; nothing is left on it after the block, or after an error in it.
        layer_edges: For each call of a layer edges ``[2, m]`` and weights ``[m]``. A layer inside a layer takes what
            that one passes to it.

    Raises:
        ValueError: If another number of layers is called, or a layer takes no edge weights.
    """
    _check_takes_weights(model, "data.layer_edges")
    called = 0

    def give(layer: nn.Module, bound: inspect.BoundArguments) -> None:
        nonlocal called
        called += 1
        if called > len(layer_edges):
            raise ValueError(
                f"'data.layer_edges' holds edges for {len(layer_edges)} layers, but the model calls more; "
                "the number of layers is an option of the sampler"
            )
        if not {"edge_index", "edge_weight"} <= set(bound.signature.parameters):
            raise ValueError(f"'data.layer_edges' holds weights, but {type(layer).__name__} does not take edge weights")
        bound.arguments["edge_index"], bound.arguments["edge_weight"] = layer_edges[called - 1]

    with _given_to_layers(model, give):
        yield
    if called != len(layer_edges):
        raise ValueError(
            f"'data.layer_edges' holds edges for {len(layer_edges)} layers, but the model called {called}; "
            "the number of layers is an option of the sampler"
        )


@contextmanager
def weights_in_layers(model: nn.Module, weights: Sequence[tuple[Tensor, Tensor]]) -> Iterator[None]:
    """Give every message passing layer that is called inside the block weights for the edges that the model passes it.

    Args:
        model: The model, which need not know of weights; nothing is left on it after the block.
        weights: Pairs of edges, the very tensors that the model passes on, and their weights.

    Raises:
        ValueError: If a layer takes no edge weights or is given other edges, or no layer is called.
    """
    called = 0

    def give(layer: nn.Module, bound: inspect.BoundArguments) -> None:
        nonlocal called
        called += 1
        edges, kind = bound.arguments.get("edge_index"), type(layer).__name__
        found = next((weight for own, weight in weights if own is edges), None)
        if "edge_weight" not in bound.signature.parameters:
            raise ValueError(
                f"edges have weights, but {kind} does not take edge weights; see graphsparse.nn.accelerate"
            )
        if found is None or bound.arguments.get("edge_weight") is not None:
            what = "other edges than those of the graph" if found is None else "edge weights of its own"
            raise ValueError(f"edges have weights, but {type(model).__name__} gives {kind} {what}: take 'edge_weight'")
        bound.arguments["edge_weight"] = found

    with _given_to_layers(model, give):
        yield
    if not called:
        raise ValueError(f"edges have weights, but {type(model).__name__} does not take edge weights")


@contextmanager
def _given_to_layers(model: nn.Module, give: Callable[[nn.Module, inspect.BoundArguments], None]) -> Iterator[None]:
    """Let a function change the arguments of every message passing layer; one inside another takes what that passes."""
    depth = 0

    def before(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        nonlocal depth
        depth += 1
        if depth > 1:
            return None
        bound = inspect.signature(layer.forward).bind(*args, **kwargs)
        give(layer, bound)
        return bound.args, bound.kwargs

    def after(layer: nn.Module, args: Any, output: Any) -> None:
        nonlocal depth
        depth -= 1

    layers = [module for module in model.modules() if isinstance(module, MessagePassing)]
    hooks = [layer.register_forward_pre_hook(before, with_kwargs=True) for layer in layers]
    hooks += [layer.register_forward_hook(after) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def takes_edge_weight(model: nn.Module) -> bool:
    """Whether a model has an argument for weights of the edges, so that :func:`call_model` gives it some."""
    inside, taken = _inside(model), forward_arguments(model)
    if isinstance(inside, Sequential):
        return len(inside.signature.param_dict) > 2
    handed_on = any(entry.kind is entry.VAR_POSITIONAL for entry in taken.values())
    return getattr(inside, "supports_edge_weight", True) is not False and ("edge_weight" in taken or handed_on)


def _check_takes_weights(model: nn.Module, name: str) -> None:
    model = _inside(model)
    if getattr(model, "supports_edge_weight", True) is False:
        raise ValueError(f"'{name}' is given, but {type(model).__name__} does not take edge weights")


@contextmanager
def keep_mode(model: nn.Module) -> Iterator[None]:
    """Give the model and each of its parts the mode back that it had before, training or evaluation.

    Args:
        model: Any module; a part of it may be in another mode than the whole, such as a frozen batch normalisation.

    Example:
        >>> model = nn.Dropout()
        >>> with keep_mode(model):
        ...     model = model.eval()
        >>> model.training
        True
    """
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        model.train(modes[0][1])  # a module may do more than set a flag when its mode changes
        for module, mode in modes:
            module.training = mode


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Put the model in evaluation mode inside the block, and every part of it back into its own mode afterwards.

    Args:
        model: Any module.

    Example:
        >>> model = nn.Dropout()
        >>> with eval_mode(model):
        ...     model.training
        False
        >>> model.training
        True
    """
    with keep_mode(model):
        model.eval()
        yield
