"""How every part of the package calls a model on a graph."""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn import MessagePassing


def call_model(model: nn.Module, data: Data) -> Any:
    """Call ``model(x, edge_index)``, with ``adj_t`` where there is no ``edge_index``, and with edge weights if any.

    Where ``data`` has ``layer_edges``, a list of pairs of edges ``[2, m]`` and weights ``[m]``, each message passing
    layer gets the next of them, in the order in which the layers are called, whatever the model passes to it.
    """
    layer_edges = data.get("layer_edges")
    if layer_edges is not None:
        with own_edges(model, layer_edges):
            return model(data.x, *layer_edges[0])
    edges = data.edge_index if "edge_index" in data else data.adj_t
    if data.get("edge_weight") is None:
        return model(data.x, edges)
    _check_takes_weights(model, "data.edge_weight")
    return model(data.x, edges, data.edge_weight)


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
    depth = called = 0

    def before(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        nonlocal depth, called
        depth += 1
        if depth > 1:
            return None
        called += 1
        if called > len(layer_edges):
            raise ValueError(
                f"'data.layer_edges' holds edges for {len(layer_edges)} layers, but the model calls more; "
                "the number of layers is an option of the sampler"
            )
        signature = inspect.signature(layer.forward)
        if not {"edge_index", "edge_weight"} <= set(signature.parameters):
            raise ValueError(f"'data.layer_edges' holds weights, but {type(layer).__name__} does not take edge weights")
        bound = signature.bind(*args, **kwargs)
        bound.arguments["edge_index"], bound.arguments["edge_weight"] = layer_edges[called - 1]
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
    if called != len(layer_edges):
        raise ValueError(
            f"'data.layer_edges' holds edges for {len(layer_edges)} layers, but the model called {called}; "
            "the number of layers is an option of the sampler"
        )


def _check_takes_weights(model: nn.Module, name: str) -> None:
    if getattr(model, "supports_edge_weight", True) is False:
        raise ValueError(f"'{name}' is given, but {type(model).__name__} does not take edge weights")
