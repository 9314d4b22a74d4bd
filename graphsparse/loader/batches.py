"""What all loaders of this package have in common: their generator, their checks, and how a batch is cut out."""

import copy
import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.nn import GCN2Conv, GCNConv, GraphConv, LGConv, MessagePassing

from graphsparse.edges.attributes import attribute_kinds, check_one_graph, node_numbers, other_integers, take, warn_of
from graphsparse.edges.mask import fix_num_nodes_
from graphsparse.loader.in_graph import new_generator
from graphsparse.ops.check import check_count, check_edge_index

#: Said wherever edge weights are needed and not there.
NEEDS_WEIGHTS = (
    "'data.edge_weight' is missing: this sampler estimates sums over weighted edges; normalise the graph once, with "
    "torch_geometric.transforms: data = T.GCNNorm()(data), and take layers that do not normalise again, such as "
    "GCN(..., normalize=False)"
)


class Batches(ABC):
    """An iterable of training batches that are cut out of one graph.

    All randomness comes from :attr:`generator`, so that its state between two epochs is all there is to save. Every
    ``iter()`` is a new epoch with fresh draws. Batches lie on the device of ``data``; draws are made on the CPU.

    What holds node numbers, such as ``edge_label_index`` or a dictionary of splits, speaks of the whole graph and is in
    no batch; a warning says so once.

    Args:
        data: One graph, with ``edge_index``. What is derived from its edges is built once; change none of them later.
        seed: Seed of the generator.

    Attributes:
        generator: Where all randomness comes from.
        needs_weighted_sums: Whether its batches estimate something only in models that sum messages with the weights
            of their edges, see :func:`~graphsparse.loader.batches.check_sums_weighted_messages`.
    """

    needs_weighted_sums: bool = False

    def __init__(self, data: Data, seed: int) -> None:
        self.data = prepared(data)
        self.generator = new_generator(check_count(seed, "seed", least=0))

    @abstractmethod
    def __iter__(self) -> Iterator[Data]:
        """Draw an epoch."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of batches of an epoch."""


class FullBatch(Batches):
    """Gives the graph itself, once in every epoch.

    Args:
        data: The graph, in any form that the model takes.
        seed: Not used: there is nothing to draw.

    Raises:
        TypeError: If ``data`` is no ``Data``.

    Example:
        >>> from graphsparse.testing import random_graph
        >>> data = random_graph()
        >>> [batch is data for batch in FullBatch(data)]
        [True]
    """

    def __init__(self, data: Data, *, seed: int = 0) -> None:
        _check_data(data)
        self.data = data
        self.generator = new_generator(check_count(seed, "seed", least=0))

    def __iter__(self) -> Iterator[Data]:
        """Yield the graph."""
        yield self.data

    def __len__(self) -> int:
        """Return 1."""
        return 1


def check_graph(data: Data, *, train: bool = False, weights: bool = False) -> None:
    """Raise an error unless batches can be cut out of the graph, with training nodes and edge weights if needed."""
    _check_one(data)
    if data.get("edge_index") is None:
        raise ValueError(f"'data' must hold 'edge_index' to be cut into batches (got {sorted(data.keys())})")
    num_nodes = data.num_nodes
    check_edge_index(data.edge_index, num_nodes, "data.edge_index")
    if not num_nodes:
        raise ValueError("'data' is an empty graph: it has no nodes")
    x = data.get("x")
    if isinstance(x, Tensor) and x.layout != torch.strided:
        raise TypeError(f"'data.x' must be dense to be cut into batches (got layout {x.layout})")
    if train:
        mask = data.get("train_mask")
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.shape != (num_nodes,):
            raise ValueError(f"'data.train_mask' must be a bool mask [{num_nodes}] (got {_shape(mask)})")
        if not mask.any():
            raise ValueError("'data.train_mask' marks no node")
    if weights:
        _check_weight(data.get("edge_weight"), data.edge_index.size(1))


def _check_data(data: Data) -> None:
    if not isinstance(data, Data):
        raise TypeError(f"'data' must be a torch_geometric Data (got {type(data).__name__})")


def prepared(data: Data) -> Data:
    """Return a graph that knows its number of nodes, without what would be wrong in a part of it."""
    _check_one(data)
    data = copy.copy(data)
    fix_num_nodes_(data._store)
    kinds, doubts = attribute_kinds(data._store)
    numbers = node_numbers(data._store, kinds)
    left_out = "is in no batch: it holds, or may hold, node numbers, and those of a batch are others"
    same = "is the same in every batch: node numbers are known by names with 'index' in them"
    warn_of({**dict.fromkeys(other_integers(data._store, kinds), same), **doubts, **dict.fromkeys(numbers, left_out)})
    for key in numbers:
        del data[key]
    return data


def _check_one(data: Data) -> None:
    _check_data(data)
    check_one_graph(data)
    if isinstance(data, Batch):
        raise ValueError("'data' must be one graph (got a Batch): make it one by Data.from_dict(batch.to_dict())")


def _check_weight(weight: Tensor | None, num_edges: int) -> None:
    if weight is None:
        raise ValueError(NEEDS_WEIGHTS)
    if not isinstance(weight, Tensor) or not weight.is_floating_point() or weight.shape != (num_edges,):
        raise ValueError(f"'data.edge_weight' must hold a float for each edge, [{num_edges}] (got {_shape(weight)})")
    if num_edges and not (weight.min() >= 0 and weight.isfinite().all()):
        raise ValueError("'data.edge_weight' must be finite and not negative")


def _shape(value: object) -> str:
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def train_nodes(data: Data) -> Tensor:
    """Return the training nodes, ``[T]``, on the CPU."""
    found: Tensor = data.train_mask.nonzero().view(-1).cpu()
    return found


def shuffled_groups(items: Tensor, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield items in random order, so many at a time."""
    yield from torch.split(items[torch.randperm(items.numel(), generator=generator)], size)


def cut_out(data: Data, nodes: Tensor, edge_index: Tensor | None = None, edges: Tensor | None = None) -> Data:
    """Return a graph of some nodes, with all that ``data`` knows about them and about its edges.

    Args:
        data: The whole graph.
        nodes: Nodes ``[n]``, kept as ``n_id``.
        edge_index: Edges ``[2, m]`` as positions in ``nodes``; ``None`` for a graph without any edge, and without
            what is known of edges.
        edges: The same edges as positions in ``data.edge_index``, ``[m]``, kept as ``e_id``.
    """
    out = copy.copy(data)
    kinds, _ = attribute_kinds(data._store)
    for key, kind in kinds.items():
        value = data[key]
        if key == "num_nodes":
            out.num_nodes = nodes.numel()
        elif kind == "node":
            out[key] = take(key, value, nodes, data.__cat_dim__(key, value))
        elif kind == "edge" and edges is not None:
            out[key] = take(key, value, edges, data.__cat_dim__(key, value))
        elif kind != "other":
            del out[key]
    device = data.edge_index.device
    out.n_id = nodes.to(device)
    if edge_index is not None and edges is not None:
        out.edge_index = edge_index.to(device)
        out.e_id = edges.to(device)
    return out


_ADVICE = "use layers that do not, such as GCN(..., normalize=False) on T.GCNNorm()(data), or GraphConv(aggr='add')"
#: Layers of PyG that sum messages with the weights of their edges.
_SUMS = (GCNConv, GCN2Conv, LGConv, GraphConv)


def check_sums_weighted_messages(model: nn.Module) -> None:
    r"""Raise an error unless every layer of a model sums messages with the weights of their edges.

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
    """Return why a layer does not compute a sum of weighted messages, or ``None``."""
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
