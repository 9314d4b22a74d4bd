"""Which models can be trained on batches that estimate sums over weighted edges."""

import inspect

from torch import nn
from torch_geometric.nn import GCN2Conv, GCNConv, GraphConv, LGConv, MessagePassing

_ADVICE = "use layers that do not, such as GCN(..., normalize=False) on T.GCNNorm()(data), or GraphConv(aggr='add')"
#: Layers of PyG that sum messages with the weights of their edges.
_SUMS = (GCNConv, GCN2Conv, LGConv, GraphConv)


def check_sums_weighted_messages(model: nn.Module) -> None:
    r"""Refuse a model whose layers do anything else with messages than to sum them with the weights of their edges.

    FastGCN, LADIES and the normalisation of GraphSAINT make :math:`\sum_u w_{vu} h_u` right on average. A layer that
    takes a mean, a maximum or attention, that ignores the weights, or that normalises them once more makes something
    else of them. Taken are PyG's ``GCNConv``, ``GCN2Conv`` and ``LGConv`` with ``normalize=False`` and ``GraphConv``
    with ``aggr="add"``; the layers of this package that say so of themselves (:class:`~graphsparse.nn.FusedConv`),
    such as ``SAGEConv`` with ``aggr="sum"`` and ``GINConv``; and layers of other origin that take ``edge_weight`` and
    have ``aggr="add"``: what those do with the weights cannot be seen.

    Raises:
        TypeError: If ``model`` is no module.
        ValueError: If a layer of it does not sum weighted messages, or it has no layer that passes messages; the
            message names the layer and says what to use.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> check_sums_weighted_messages(GCN(8, 16, 2, 3, normalize=False))
        >>> check_sums_weighted_messages(GCN(8, 16, 2, 3))
        Traceback (most recent call last):
        ...
        ValueError: layer 'convs.0' of 'model', a GCNConv, normalises the weights again: use layers that do not, ...
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"'model' must be a torch.nn.Module (got {type(model).__name__})")
    layers = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, MessagePassing)]
    if not layers:
        raise ValueError(f"'model' has no message passing layer of PyG, which takes weighted edges: {_ADVICE}")
    for name, layer in layers:
        reason = _objection(layer)
        if reason is not None:
            raise ValueError(f"layer {name!r} of 'model', a {type(layer).__name__}, {reason}: {_ADVICE}")


def _objection(layer: MessagePassing) -> str | None:
    """Say what a layer does that is no sum of weighted messages."""
    if "edge_weight" not in inspect.signature(layer.forward).parameters:
        return "takes no edge weights"
    if layer.aggr not in ("add", "sum"):
        return f"takes the {layer.aggr} of messages instead of their sum"
    # A layer of ours declares what it does, see `FusedConv`; `normalize` may mean something else there.
    if getattr(layer, "normalises", getattr(layer, "normalize", False)) is True:
        return "normalises the weights again"
    known = isinstance(layer, _SUMS) or not type(layer).__module__.startswith("torch_geometric.")
    return (
        None if getattr(layer, "weighted_sum", known) else "is not known to sum messages with the weights as they are"
    )
