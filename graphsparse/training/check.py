"""What can be wrong with a graph, a model or an optimiser is found before training starts."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torch_geometric.data import Data, HeteroData
from torch_geometric.data.data import BaseData
from torch_geometric.data.hypergraph_data import HyperGraphData

from graphsparse.metrics.labels import check_classes, is_labelled
from graphsparse.ops.check import check_edge_index

MASKS = ("train_mask", "val_mask", "test_mask")
#: What a model is given of a graph beside the edges; all of it must be finite.
FEATURES = ("x", "edge_weight", "edge_attr", "pos")


def check_callable(value: Any, name: str) -> None:
    """Refuse what cannot be called."""
    if not callable(value):
        raise TypeError(f"'{name}' must be a function (got {value!r})")


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
    try:
        model.load_state_dict(model.state_dict())
    except RuntimeError as error:
        raise ValueError(
            "'model' must take its own state dict, from which its best weights come back; a linear layer of PyG does "
            f"not under weight_norm, one of torch does (got {error})"
        ) from error


def check_one_graph(model: nn.Module) -> None:
    """Refuse a model with a layer that keeps the first graph it sees, where it will see another one."""
    cached = [name for name, module in model.named_modules() if getattr(module, "cached", False) is True]
    if cached:
        raise ValueError(
            f"'model' has a layer with cached=True, {cached[0]!r}, which keeps the first graph it sees, "
            "but is trained and evaluated on different ones"
        )


def check_optimizer(optimizer: Optimizer, model: nn.Module) -> None:
    """Refuse what is no optimiser, and one that would train another model."""
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"'optimizer' must be a torch.optim.Optimizer (got {type(optimizer).__name__})")
    own = {id(parameter) for parameter in model.parameters()}
    if not any(id(parameter) in own for group in optimizer.param_groups for parameter in group["params"]):
        raise ValueError("'optimizer' holds no parameter of 'model'; was it made for another copy of it?")


def check_scheduler(scheduler: LRScheduler | None, optimizer: Optimizer | None) -> None:
    """Refuse what is no schedule that can be stepped once per epoch, and one of another optimiser."""
    if scheduler is None:
        return
    if not isinstance(scheduler, LRScheduler) or isinstance(scheduler, ReduceLROnPlateau):
        raise TypeError(
            "'scheduler' must be a torch.optim.lr_scheduler.LRScheduler that needs no metric to be stepped "
            f"(got {type(scheduler).__name__})"
        )
    if scheduler.optimizer is not optimizer:
        raise ValueError("'scheduler' belongs to another optimizer; give the one it was made for as 'optimizer'")


def check_data(
    data: Any,
    name: str = "data",
    masks: tuple[str, ...] = ("train_mask",),
    target: str = "multiclass",
    node_type: str | None = None,
) -> None:
    """Refuse a graph without nodes, features or labels of the parts that are needed, and what is not finite in it.

    Of masks that are not needed only the shape is looked at. Labels are those of ``node_type`` in a ``HeteroData``.
    """
    if node_type is not None:
        _check_hetero(data, name)
        _check_labels(data[node_type], f"{name}[{node_type!r}]", masks, target, data[node_type].num_nodes)
        return
    check_features(data, name)
    _check_labels(data, name, masks, target, data.x.size(0))


def check_features(data: Any, name: str = "data") -> None:
    """Refuse a graph without nodes, features or edges, and what is not finite in it; it need not have labels."""
    check_graph(data, name)
    x = data.get("x")
    if not isinstance(x, Tensor) or x.dim() != 2:
        raise ValueError(f"'{name}.x' must hold features [N, F] (got {_shape(x)})")
    if x.size(0) == 0:
        raise ValueError(f"'{name}' is an empty graph: it has no nodes")
    if not x.is_floating_point():
        raise TypeError(f"'{name}.x' must be floating point (got {x.dtype})")
    check_finite(data, name)
    num_nodes = data.x.size(0)
    edges = data.get("edge_index")
    if edges is None and data.get("adj_t") is None:
        raise ValueError(f"'{name}' must hold 'edge_index' or 'adj_t' (got {sorted(data.keys())})")
    if isinstance(edges, Tensor) and edges.layout == torch.strided:
        check_edge_index(edges, num_nodes, f"{name}.edge_index")


def _check_hetero(data: HeteroData, name: str) -> None:
    """Refuse a HeteroData with features or edges of the wrong form, without looking at labels."""
    for kind in data.node_types:
        x, own = data[kind].get("x"), f"{name}[{kind!r}]"
        if not data[kind].num_nodes:
            raise ValueError(f"'{own}' has no nodes, or nothing says how many")
        if x is not None and (not isinstance(x, Tensor) or not x.is_floating_point() or x.dim() != 2):
            raise TypeError(f"'{own}.x' must hold floating point features [N, F] (got {_shape(x)})")
        check_finite(data[kind], own)
    if not data.edge_types:
        raise ValueError(f"'{name}' must hold edges (got the node types {data.node_types} alone)")
    for kind in data.edge_types:
        store, own = data[kind], f"{name}[{kind!r}]"
        if (edges := store.get("edge_index")) is None and store.get("adj_t") is None:
            raise ValueError(f"'{own}' must hold 'edge_index' or 'adj_t' (got {sorted(store.keys())})")
        if isinstance(edges, Tensor):
            check_edge_index(edges, (data[kind[0]].num_nodes, data[kind[2]].num_nodes), f"{own}.edge_index")
        check_finite(store, own)


def _check_labels(data: Any, name: str, masks: tuple[str, ...], target: str, num_nodes: int) -> None:
    """Refuse labels and masks that do not fit the nodes of a graph, or of a node type."""
    y = data.get("y")
    one = isinstance(y, Tensor) and y.shape == (num_nodes,)
    if not one and (target == "multiclass" or not isinstance(y, Tensor) or y.shape[:1] != (num_nodes,)):
        advice = ": squeeze(1) makes it so" if isinstance(y, Tensor) and y.shape == (num_nodes, 1) else ""
        raise ValueError(f"'{name}.y' must hold one label per node, [{num_nodes}] (got {_shape(y)}{advice})")
    if target == "multiclass" and y.dtype != torch.int64:
        raise TypeError(f"'{name}.y' must be int64 class labels (got {y.dtype})")
    for key in (*MASKS, *masks):
        mask = data.get(key)
        if mask is not None:
            _check_mask(mask, num_nodes, f"{name}.{key}")
    for key in ("y", *MASKS):
        other = data.get(key)
        x = data.get("x")
        if other is not None and x is not None and other.device != x.device:
            raise ValueError(f"'{name}.{key}' is on {other.device}, but '{name}.x' is on {x.device}: move one of them")
    for key in masks:
        if data.get(key) is None:
            raise ValueError(f"'{name}.{key}' is missing")
        if not data[key].any():
            raise ValueError(f"'{name}.{key}' marks no node")
        check_part(y[data[key]], f"'{name}.{key}'", "node", target)


def check_graph(data: Any, name: str = "data") -> None:
    """Refuse what is not one homogeneous graph, and say what to give."""
    if isinstance(data, Data) and not isinstance(data, HyperGraphData):
        return
    advice = ""
    if hasattr(data, "to_homogeneous"):
        advice = "; HeteroData.to_homogeneous() makes one graph of several types"
    elif not isinstance(data, BaseData) and hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        one = "its only graph is" if len(data) == 1 else "one of its graphs is"
        advice = f"; {one} {name}[0], and for labels of whole graphs there is GraphTask(..., target=...)"
    raise TypeError(f"'{name}' must be a torch_geometric Data (got {type(data).__name__}{advice})")


def check_finite(data: Any, name: str) -> None:
    """Refuse a graph with NaN or infinity in what a model is given of it."""
    given = {key: data.get(key) for key in FEATURES}
    if (matrix := data.get("adj_t")) is not None:
        given["adj_t"] = matrix.storage.value() if hasattr(matrix, "csr") else matrix  # of torch-sparse
    for key, value in given.items():
        if not isinstance(value, Tensor) or not value.is_floating_point():
            continue
        if value.layout != torch.strided:
            value = (value.coalesce() if value.layout == torch.sparse_coo else value).values()
        if not value.isfinite().all():
            raise ValueError(f"'{name}.{key}' holds NaN or infinity")


def has_label(y: Tensor, target: str = "multiclass") -> Tensor:
    """Say which rows of labels hold any, bool ``[n]``; an integer that is asked for as a number may be -1."""
    if target == "regression" and not y.is_floating_point():
        return torch.ones(y.size(0), dtype=torch.bool, device=y.device)
    return is_labelled(y)


def check_part(y: Tensor, name: str, unit: str, target: str, width: int | None = None) -> None:
    """Refuse a part without any label, and classes that are none, or that a model of this width cannot return.

    Args:
        y: Labels of the part.
        name: The part, for messages.
        unit: What has the labels.
        target: What is asked.
        width: Number of outputs of the model, where it is known.
    """
    if not has_label(y, target).any():
        none = "-1 or -100" if target == "multiclass" else "NaN"
        raise ValueError(f"{name} marks no labelled {unit}: all have the label {none}, which is none; leave it out")
    if target == "multiclass":
        check_classes(y, f"labels of {name}", width)


def _check_mask(mask: Any, num_nodes: int, name: str) -> None:
    if isinstance(mask, Tensor) and mask.dim() == 2:
        raise ValueError(f"'{name}' holds {mask.size(1)} splits; pick one of its columns")
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.shape != (num_nodes,):
        raise ValueError(
            f"'{name}' must be a bool mask [{num_nodes}] (got {getattr(mask, 'dtype', '')} {_shape(mask)})"
        )


def check_output(logits: Any, data: Any, name: str, masks: tuple[str, ...], target: str = "multiclass") -> None:
    """Refuse what a model returned unless it is one row of logits per node, wide enough for the labels."""
    if not isinstance(logits, Tensor):
        raise TypeError(f"'model' must return a tensor of logits (got {type(logits).__name__})")
    num_nodes = data.num_nodes
    if logits.dim() != 2 or logits.size(0) != num_nodes:
        raise ValueError(f"'model' must return one row of logits per node, [{num_nodes}, C] (got {_shape(logits)})")
    check_labels(logits.size(1), data, name, masks, target)


def check_labels(width: int, data: Any, name: str, masks: tuple[str, ...], target: str = "multiclass") -> None:
    """Refuse parts without labels, and labels that a model with outputs of this width cannot return."""
    if target != "multiclass":
        tasks = data.y.numel() // data.y.size(0)
        if width != tasks:
            raise ValueError(f"'{name}.y' holds {tasks} labels per node, but the model returns {width} numbers")
    for key in masks:
        check_part(data.y[data[key]], f"'{name}.{key}'", "node", target, width)


def _shape(value: Any) -> str:
    return str(list(value.shape)) if isinstance(value, Tensor) else type(value).__name__
