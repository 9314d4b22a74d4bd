"""What can be wrong with a graph or a model is found before training starts."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch_geometric.data import Data


def check_model(model: nn.Module) -> None:
    """Refuse what is no model, a lazy model that has no weights yet, and one with nothing to train."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"'model' must be a torch.nn.Module (got {type(model).__name__})")
    lazy = [name for name, p in model.named_parameters() if isinstance(p, UninitializedParameter)]
    if lazy:
        raise ValueError(
            f"'model' is lazy: {lazy[0]!r} has no shape yet; initialise it with one forward pass, or give its sizes"
        )
    if not any(p.requires_grad for p in model.parameters()):
        raise ValueError("'model' has no parameter to train")


def check_data(data: Data, name: str = "data", masks: tuple[str, ...] = ("train_mask",)) -> None:
    """Refuse a graph without nodes, features, labels or the nodes that are needed, and features that are not finite."""
    if not isinstance(data, Data):
        raise TypeError(f"'{name}' must be a torch_geometric Data (got {type(data).__name__})")
    x, y = data.get("x"), data.get("y")
    if not isinstance(x, Tensor) or x.dim() != 2:
        raise ValueError(f"'{name}.x' must hold features [N, F] (got {_shape(x)})")
    if x.size(0) == 0:
        raise ValueError(f"'{name}' is an empty graph: it has no nodes")
    if not x.is_floating_point():
        raise TypeError(f"'{name}.x' must be floating point (got {x.dtype})")
    values = x if x.layout == torch.strided else x.values()
    if not values.isfinite().all():
        raise ValueError(f"'{name}.x' holds NaN or infinity")
    if "edge_index" not in data and "adj_t" not in data:
        raise ValueError(f"'{name}' must hold 'edge_index' or 'adj_t' (got {sorted(data.keys())})")
    num_nodes = x.size(0)
    if not isinstance(y, Tensor) or y.shape != (num_nodes,):
        raise ValueError(f"'{name}.y' must hold one label per node, [{num_nodes}] (got {_shape(y)})")
    if y.dtype != torch.int64:
        raise TypeError(f"'{name}.y' must be int64 class labels (got {y.dtype})")
    for key in masks:
        mask = data.get(key)
        if mask is None:
            raise ValueError(f"'{name}.{key}' is missing")
        if isinstance(mask, Tensor) and mask.dim() == 2:
            raise ValueError(f"'{name}.{key}' holds {mask.size(1)} splits; pick one of its columns")
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.shape != (num_nodes,):
            dtype = getattr(mask, "dtype", "")
            raise ValueError(f"'{name}.{key}' must be a bool mask [{num_nodes}] (got {dtype} {_shape(mask)})")
        if not mask.any():
            raise ValueError(f"'{name}.{key}' marks no node")


def check_output(logits: Any, data: Data, name: str, masks: tuple[str, ...]) -> None:
    """Refuse what a model returned unless it is one row of logits per node, wide enough for the labels."""
    if not isinstance(logits, Tensor):
        raise TypeError(f"'model' must return a tensor of logits (got {type(logits).__name__})")
    num_nodes = data.x.size(0)
    if logits.dim() != 2 or logits.size(0) != num_nodes:
        raise ValueError(f"'model' must return one row of logits per node, [{num_nodes}, C] (got {_shape(logits)})")
    for key in masks:
        labels = data.y[data[key]]
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= logits.size(1):
            raise ValueError(
                f"labels of '{name}.{key}' run from {low} to {high}, but the model returns {logits.size(1)} classes: "
                "either the labels are out of range or the model has the wrong width"
            )


def _shape(value: Any) -> str:
    return str(list(value.shape)) if isinstance(value, Tensor) else type(value).__name__
