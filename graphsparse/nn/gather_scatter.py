"""Weighted aggregation edge by edge, which compilers can trace, under the law that weight 0 is no edge.

Indices are int64 throughout: for int32 torch's gather and scatter along repeated rows give wrong numbers, or wrong
gradients, without a word (torch 2.13).
"""

from typing import Any

import torch
from torch import Tensor
from torch_geometric.utils import scatter

from graphsparse.ops.spmm import reduce_messages


def aggregate(
    x: Tensor,
    edge_index: Tensor,
    edge_weight: Tensor,
    num_dst: int,
    reduce: str,
    *,
    flow: str = "source_to_target",
    watch: Any = None,
) -> Tensor:
    """Gather the features of the sources and reduce them, weighted, at the destinations.

    Args:
        x: Features of the sources, ``[num_src, F]``.
        edge_index: Edges ``[2, E]``.
        edge_weight: Weights ``[E]``.
        num_dst: Number of destinations.
        reduce: ``"sum"``, ``"mean"``, ``"min"`` or ``"max"``.
        flow: As in PyG's ``MessagePassing``: whether sources come first, or destinations.
        watch: A layer whose hooks on messages see the weighted ones.
    """
    source, target = (0, 1) if flow == "source_to_target" else (1, 0)
    x_j = x.index_select(0, edge_index[source])
    message = x_j * edge_weight.view(-1, 1).to(x.dtype)
    for hook in () if watch is None else watch._message_forward_hooks.values():
        changed = hook(watch, ({"x_j": x_j, "edge_weight": edge_weight},), message)
        message = message if changed is None else changed
    return reduce_messages(message, edge_weight, edge_index[target], num_dst, reduce)


def gcn_weights(
    edge_index: Tensor, edge_weight: Tensor, num_nodes: int, *, improved: bool, add_self_loops: bool, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return ``(edge_index, edge_weight)`` normalised as PyG's ``gcn_norm`` does, but a weight of 0 is no edge.

    The difference shows at self-loops: PyG takes one of weight 0 for the self-loop of its node, which it then lacks.
    Shapes depend on nothing but those of the input, so that it can be traced.
    """
    source, target = edge_index[0], edge_index[1]
    edge_weight = edge_weight.view(-1).to(dtype)
    if add_self_loops:
        last = _last_loop(edge_index, edge_weight != 0, num_nodes)
        padded = torch.cat([edge_weight, edge_weight.new_full((1,), 2.0 if improved else 1.0)])
        loop_weight = padded.index_select(0, torch.where(last < 0, edge_weight.numel(), last))
        edge_index, edge_weight = append_loops(edge_index, edge_weight, loop_weight)
        source, target = edge_index[0], edge_index[1]
    degree = scatter(edge_weight, target, 0, num_nodes, "sum")
    empty = degree == 0
    scale = degree.masked_fill(empty, 1).pow(-0.5).masked_fill(empty, 0)
    return edge_index, scale[source] * edge_weight * scale[target]


def last_loops_only(edge_index: Tensor, edge_weight: Tensor, num_nodes: int) -> Tensor:
    """Return weights of which those of a self-loop that another one of its node follows have no gradient.

    PyG takes the last one for the self-loop of the node, but sends its gradient to all of them.
    """
    last = _last_loop(edge_index, torch.ones_like(edge_weight, dtype=torch.bool).view(-1), num_nodes)
    position = torch.arange(edge_weight.numel(), device=edge_weight.device)
    follows = (edge_index[0] == edge_index[1]) & (last[edge_index[1]] != position)
    return torch.where(follows, edge_weight.detach().view(-1), edge_weight.view(-1))


def _last_loop(edge_index: Tensor, there: Tensor, num_nodes: int) -> Tensor:
    """Return where in the list the last self-loop of each node is, among the edges that are there; -1 for none."""
    position = torch.arange(there.numel(), device=there.device)
    present = torch.where((edge_index[0] == edge_index[1]) & there, position, -1)
    last = torch.full((num_nodes,), -1, device=there.device)
    return last.scatter_reduce(0, edge_index[1], present, "amax")


def append_loops(edge_index: Tensor, edge_weight: Tensor, loop_weight: Tensor) -> tuple[Tensor, Tensor]:
    """Put a self-loop for each node behind the edges; those that are there get weight 0, which is to be deleted.

    Args:
        edge_index: Edges ``[2, E]``.
        edge_weight: Weights ``[E]``.
        loop_weight: Weight of the new self-loop of each node, ``[N]``.
    """
    nodes = torch.arange(loop_weight.numel(), device=edge_index.device)
    weight = torch.cat([edge_weight.masked_fill(edge_index[0] == edge_index[1], 0), loop_weight])
    return torch.cat([edge_index, nodes.expand(2, -1)], 1), weight
