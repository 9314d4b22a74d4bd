"""How a model of whole graphs is called on a batch of them."""

import inspect
from collections.abc import Callable
from typing import Any, TypeAlias

from torch import Tensor, nn
from torch_geometric.data import Batch

#: Returns the logits of a batch of graphs, one row per graph.
GraphCall: TypeAlias = Callable[[nn.Module, Batch], Tensor]

# What a wrapper that hands its arguments on calls the model inside: Supermask, torch.compile, DataParallel.
_WRAPPED = ("model", "_orig_mod", "module")
_OPTIONAL = ("edge_attr", "edge_weight", "pos")


def graph_call(model: nn.Module, batch: Batch) -> GraphCall:
    """Return the function that calls a model on a batch of graphs; its signature is read here, once.

    ``x`` and ``edge_index`` come by position. By name come ``batch``, the graph ``[N]`` of every node, which the model
    must take, and, where its ``forward`` takes an argument of that name, ``edge_attr``, ``edge_weight`` and ``pos`` as
    far as the graphs have them, and ``batch_size``, the number of graphs. Of a wrapper that only hands arguments on,
    the model inside is looked at.

    Args:
        model: The model.
        batch: A batch like those to come.

    Raises:
        ValueError: If the model takes no ``batch``, or must have what the graphs lack.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> from torch_geometric.nn import GCN
        >>> batch = Batch.from_data_list([Data(x=torch.ones(2, 4), edge_index=torch.tensor([[0, 1], [1, 0]]))])
        >>> model = GCN(4, 8, 2, 3)
        >>> graph_call(model, batch)(model, batch).shape
        torch.Size([2, 3])
    """
    taken = _arguments(model)
    if "batch" not in taken:
        raise ValueError(
            f"'model' must take an argument named 'batch', the graph of every node (the forward of "
            f"{type(model).__name__} takes {list(taken)}); for any other signature give 'call'"
        )
    given = [name for name in _OPTIONAL if name in taken and batch.get(name) is not None]
    known = {"batch", "batch_size", *given}
    missing = [
        name
        for name, argument in list(taken.items())[2:]
        if argument.default is argument.empty
        and argument.kind in (argument.POSITIONAL_OR_KEYWORD, argument.KEYWORD_ONLY)
        and name not in known
    ]
    if missing:
        raise ValueError(
            f"'model' must be given {missing}, which the graphs do not have (they have {sorted(batch.keys())}); "
            "for any other signature give 'call'"
        )

    def call(model: nn.Module, batch: Batch) -> Any:
        named = {name: batch[name] for name in given}
        if "batch_size" in taken:
            named["batch_size"] = batch.num_graphs
        return model(batch.get("x"), batch.edge_index, batch=batch.batch, **named)

    return call


def _arguments(model: nn.Module) -> dict[str, inspect.Parameter]:
    """Return the arguments of a model's ``forward``, of the innermost one that names them."""
    taken = dict(inspect.signature(model.forward).parameters)
    hands_on = any(argument.kind is argument.VAR_KEYWORD for argument in taken.values())
    inside = next(
        (getattr(model, name) for name in _WRAPPED if isinstance(getattr(model, name, None), nn.Module)), None
    )
    return _arguments(inside) if "batch" not in taken and hands_on and inside is not None else taken
