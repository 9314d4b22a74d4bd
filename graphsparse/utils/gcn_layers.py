"""Layers that normalise edges by the degrees of both ends: the normalisation of the full graph, then blocks."""

from dataclasses import replace

import torch
from torch import Tensor
from torch_geometric.nn import GCN2Conv, GCNConv, LGConv, MessagePassing

from graphsparse.ops.adjacency import Adjacency
from graphsparse.utils.conv_blocks import EdgeValues, Limits
from graphsparse.utils.in_edges import InEdges
from graphsparse.utils.replay import Arguments, twin
from graphsparse.utils.trace_layers import LayerCall, Leaf


def is_gcn(layer: MessagePassing) -> bool:
    """Say whether a layer is PyG's ``GCNConv``, or one of ours with the same meaning."""
    return _is(layer, GCNConv) and layer.aggr in ("add", "sum")


def normalises(layer: MessagePassing) -> bool:
    """Say whether a layer normalises its edges as a GCN does, and is known to do nothing else across the graph."""
    return any(_is(layer, kind) for kind in (GCNConv, GCN2Conv, LGConv)) and bool(layer.normalize)


def _is(layer: MessagePassing, kind: type[MessagePassing]) -> bool:
    """Say whether a layer is of a class of PyG's, or of ours with the same meaning; a subclass may do anything."""
    return type(layer) is kind or (isinstance(layer, kind) and "SUPPORTS_ADJACENCY" in vars(type(layer)))


def weight_leaf(call: LayerCall) -> int:
    """Return the place of the edge weights among the leaves of the arguments, -1 if they are not given."""
    for i, leaf in enumerate(call.leaves):
        if leaf.kind == "edges" and call.arguments.leaf_names[i] == "edge_weight":
            return i
    return -1


def full_norm(layer: MessagePassing, edges: InEdges, weight: Tensor | None, dtype: torch.dtype) -> Adjacency:
    """Return the normalised adjacency that a layer would make of the full graph.

    Args:
        layer: The layer.
        edges: The graph.
        weight: Edge weights in the order of the input.
        dtype: Type of the layer's input.
    """
    adjacency = edges.adjacency.with_value(None if weight is None else weight.detach().to("cpu"))
    if not layer.normalize:
        return adjacency
    loops = bool(getattr(layer, "add_self_loops", False))
    return adjacency.gcn_norm(loops, improved=bool(getattr(layer, "improved", False)), dtype=dtype)


def gcn_output(
    call: LayerCall, edges: InEdges, hidden: Tensor, weight: Tensor | None, limits: Limits, device: torch.device
) -> Tensor:
    """Compute the output of a ``GCNConv`` from its linearly transformed input.

    Args:
        call: The call of the layer.
        edges: The graph.
        hidden: Transformed input ``[N, F]``.
        weight: Edge weights in the order of the input.
        limits: How large a block may be; no message per edge is held.
        device: Where the layer is.
    """
    # Half precision has no sparse product, and loses digits in sums.
    dtype = hidden.dtype if hidden.dtype == torch.float64 else torch.float32
    adjacency = full_norm(call.layer, edges, weight, dtype)
    near = InEdges(adjacency, None)
    result = torch.empty_like(hidden)
    for start, stop in near.ranges(limits.nodes):
        block = near.block(start, stop)
        value = adjacency.value[block.edges] if adjacency.value is not None else torch.ones(block.source.numel())
        matrix = block.to(device).csr(value.to(device, dtype))
        output = matrix @ hidden.index_select(0, block.nodes).to(device, dtype)
        if call.layer.bias is not None:
            output = output + call.layer.bias
        result[start:stop] = output.to("cpu", hidden.dtype)
    return result


def with_full_norm(
    call: LayerCall, edges: InEdges, weight: Tensor | None, stored: dict[int, Tensor], device: torch.device
) -> tuple[LayerCall, InEdges, dict[int, Tensor], EdgeValues]:
    """Return what :func:`graphsparse.utils.conv_blocks.layer_output` needs to run a layer on normalised edges.

    Args:
        call: The call of the layer.
        edges: The graph.
        weight: Edge weights in the order of the input.
        stored: For each leaf of the arguments with a row per node, the matrix of all nodes.
        device: Where the layer is.

    Returns:
        A call of the same layer without normalisation, the normalised graph, the matrices of the call's leaves, and
        the weights.
    """
    dtype = next(iter(stored.values())).dtype
    adjacency = full_norm(call.layer, edges, weight, dtype)
    layer = twin(call.layer)
    layer.normalize = False
    # The descriptions of the leaves stand in the arguments for a moment, to find their places beside the weights.
    args, kwargs = call.arguments.filled(call.leaves)
    named = dict(zip(call.arguments.names, args, strict=False)) | kwargs | {"edge_weight": Leaf("edges")}
    arguments = Arguments(layer, (), named)
    plain = replace(call, layer=layer, arguments=arguments, leaves=arguments.leaves)
    moved = {j: stored[i] for i in stored for j, leaf in enumerate(plain.leaves) if leaf is call.leaves[i]}

    def values(places: Tensor | slice) -> dict[int, Tensor]:
        assert adjacency.value is not None
        return {weight_leaf(plain): adjacency.value[places].to(device, dtype)}

    return plain, InEdges(adjacency, None), moved, values
