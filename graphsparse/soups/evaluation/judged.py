"""The graph of an evaluator: all of it, but no label besides those of the judged nodes."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor
from torch_geometric.data import Data


@dataclass(frozen=True, eq=False)
class Judged:
    """A private graph and the nodes on which models are judged.

    Args:
        data: The graph without masks; ``y`` is hidden but for the judged nodes, which ``mask`` marks.
        nodes: The judged nodes in ascending order, ``[n]``.
        y: Their labels, ``[n]`` or ``[n, T]``.
    """

    data: Data
    nodes: Tensor
    y: Tensor


def judged_nodes(data: Data, mask: str | Tensor) -> Judged:
    """Copy a graph so that no label and no mask is left but those that judge.

    Args:
        data: A graph with ``x``, edges and ``y``.
        mask: Bool mask ``[N]``, or the name of one that the graph holds.

    Raises:
        TypeError: If the mask is none of bools, or ``data`` is no graph.
        ValueError: If the mask is missing, has another length, or marks no node.
    """
    if not isinstance(data, Data):
        raise TypeError(f"'data' must be a torch_geometric Data (got {type(data).__name__})")
    found = data.get(mask) if isinstance(mask, str) else mask
    if found is None:
        raise ValueError(f"'data' has no {mask!r} to judge models on (it holds {sorted(data.keys())})")
    if not isinstance(found, Tensor) or found.dtype != torch.bool:
        kind = found.dtype if isinstance(found, Tensor) else type(found).__name__
        raise TypeError(f"'mask' must be a bool tensor [N] (got {kind})")
    y = data.get("y")
    if not isinstance(y, Tensor) or found.shape != y.shape[:1]:
        raise ValueError(f"'data.y' and 'mask' must have one entry per node (mask has {list(found.shape)})")
    if not bool(found.any()):
        raise ValueError("'mask' marks no node")
    return _restrict(data, y, found.to(y.device).nonzero().view(-1))


def halves(judged: Judged, seed: int) -> tuple[Judged, Judged]:
    """Cut the judged nodes into two halves with about the same classes.

    Args:
        judged: The nodes.
        seed: Two calls with the same one give the same halves.

    Raises:
        ValueError: If there are fewer than two nodes.
    """
    count = judged.nodes.numel()
    if count < 2:
        raise ValueError(f"'mask' must mark at least two nodes to be cut into halves (got {count})")
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    if judged.y.dim() == 1:  # classes one after another, dealt out in turn
        order = order[judged.y.cpu()[order].argsort(stable=True)]
    first = torch.zeros(count, dtype=torch.bool)
    first[order[::2]] = True
    first = first.to(judged.nodes.device)
    return tuple(_restrict(judged.data, judged.data.y, judged.nodes[part]) for part in (first, ~first))  # type: ignore[return-value]


def _restrict(data: Data, y: Tensor, nodes: Tensor) -> Judged:
    hidden = torch.full_like(y, torch.nan if y.is_floating_point() else -1)
    hidden[nodes] = y[nodes]
    mask = torch.zeros(y.size(0), dtype=torch.bool, device=y.device)
    mask[nodes] = True
    data = copy.copy(data)
    for name in list(data.keys()):
        if name.endswith("_mask"):
            del data[name]
    data.y, data.mask = hidden, mask
    return Judged(data, nodes, y[nodes])
