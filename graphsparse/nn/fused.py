"""What a layer of ours declares, and what all of them have in common."""

import inspect
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch_geometric.inspector import Inspector
from torch_geometric.nn import MessagePassing
from torch_geometric.typing import Adj, OptTensor, Size
from torch_geometric.utils import is_sparse

from graphsparse.nn.features import constant_features, to_dense
from graphsparse.nn.gather_scatter import aggregate
from graphsparse.nn.graph import (
    end_nodes,
    refuse_weights_of_matrix,
    to_adjacency,
    to_edge_list,
)
from graphsparse.nn.linear import add_bias, apply_linear, is_plain, refuse_scripting
from graphsparse.nn.propagate import add, as_weighted, propagate, propagate_and_transform
from graphsparse.ops import Adjacency, linear, spmm
from graphsparse.ops.traced import is_traced, is_transformed

#: Our layer for each of PyG's; :class:`FusedConv` enters those that are declared.
FUSED: dict[type[MessagePassing], type["FusedConv"]] = {}

_REDUCTIONS = {"add": "sum", "sum": "sum", "mean": "mean", "min": "min", "max": "max"}
#: The methods of PyG that work on messages, and may have hooks.
_METHODS = ("message", "aggregate", "message_and_aggregate", "update", "propagate", "edge_update", "edge_updater")
#: Hooks that PyG runs only where it takes a sparse product itself.
_OF_PRODUCT = ("_message_and_aggregate_forward_pre_hooks", "_message_and_aggregate_forward_hooks")


class FusedConv(MessagePassing):  # type: ignore[misc]
    r"""A layer of PyG whose messages are never held, as its aggregation is one sparse product.

    .. math::
        \mathbf{x}'_i = \mathrm{finish}\left( \mathbf{W} \bigoplus_{j} a_{ij} \, \mathrm{prepare}(\mathbf{x}_j),
        \; \mathbf{x}_i \right)

    with :math:`a_{ij}` the entries of :meth:`operator` and :math:`\mathbf{W}` the linear layer called :attr:`near`.
    A layer is a class that derives from this one and then from PyG's, says once what it is, and has a ``forward`` with
    the arguments of PyG's that calls :meth:`run`. Whatever wants to know something of layers asks these declarations:
    :func:`~graphsparse.nn.accelerate` exchanges the layer, inference runs it in blocks of rows, samplers learn whether
    they may estimate it. Weights, state dict and results are those of PyG's layer; besides,

    * **an edge of weight 0 is the same as no edge**;
    * the graph may come in any form of PyG's or as an :class:`~graphsparse.ops.Adjacency`; it is converted once, and
      kept for as long as the same, unchanged tensors come in;
    * where something looks at messages one by one (explanations, hooks, a subclass with messages of its own) or knows
      torch's operations alone (``torch.compile``, ``torch.func``, forward-mode derivatives), the layer computes as
      PyG's does; gradients have gradients, and may come many at once;
    * TorchScript is refused: script PyG's layer with the same state dict.

    Attributes:
        replaces: The layer of PyG that it computes. Declaring it registers the layer in :data:`FUSED`; a subclass that
            does not declare it again stands for nothing.
        reductions: The aggregations that are one sparse product, among ``"sum"``, ``"mean"``, ``"min"`` and ``"max"``.
            With weights they mean what they mean in :func:`~graphsparse.ops.spmm`. Any other ``aggr`` is left to PyG.
        near: Name of the linear layer of what comes from the neighbours; ``None`` if there is none.
        near_first: Whether PyG applies it before the aggregation. For a sum or a mean the order is chosen by cost.
        own: Name of the linear layer of the node itself, whose result :meth:`finish` adds; ``None`` if there is none.
        reuse_constant: Keep what is computed from features that are constant: that need no gradient, and come unchanged
            for the second time.

    Args:
        args: Arguments of PyG's layer.
        reuse_constant: As above.
        kwargs: Arguments of PyG's layer.

    Example:
        >>> from torch_geometric.nn import GraphConv
        >>> from graphsparse.testing import random_graph
        >>> class FusedGraphConv(FusedConv, GraphConv):
        ...     replaces, reductions, near, own = GraphConv, ("sum",), "lin_rel", "lin_root"
        ...
        ...     def forward(self, x, edge_index, edge_weight=None, size=None):
        ...         return self.run(x, edge_index, edge_weight, size)
        >>> data = random_graph()
        >>> FusedGraphConv(8, 4)(data.x, data.edge_index).shape
        torch.Size([60, 4])
        >>> del FUSED[GraphConv]
    """

    replaces: ClassVar[type[MessagePassing]]
    reductions: ClassVar[tuple[str, ...]] = ("sum", "mean", "min", "max")
    near: ClassVar[str | None] = None
    near_first: ClassVar[bool] = False
    own: ClassVar[str | None] = None
    reuse_constant: bool = True

    # PyG makes code for these from those of the class it comes from, which may be made code that explains nothing.
    propagate = MessagePassing.propagate
    edge_updater = MessagePassing.edge_updater
    __prepare_scriptable__ = refuse_scripting

    _declared: ClassVar[type["FusedConv"]]
    _forward_of_pyg: ClassVar[frozenset[str]]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Register a class that says what it replaces."""
        super().__init_subclass__(**kwargs)
        if "replaces" not in vars(cls):
            return
        cls._declared = cls
        cls._forward_of_pyg = frozenset(inspect.signature(cls.replaces.forward).parameters)
        for name in ("propagate", "edge_updater"):
            # PyG looks these up in the source of a class by its name, and ours may have the name of PyG's.
            found = Inspector(cls.replaces).get_params_from_method_call(name, exclude=[0, "edge_index", "size"])
            if found:
                setattr(cls, f"{name}_type", {argument: entry.type for argument, entry in found.items()})
        signature = inspect.signature(cls.replaces)
        keep = inspect.Parameter("reuse_constant", inspect.Parameter.KEYWORD_ONLY, default=True, annotation=bool)
        known = list(signature.parameters.values())
        at = next((i for i, p in enumerate(known) if p.kind is p.VAR_KEYWORD), len(known))
        cls.__signature__ = signature.replace(parameters=[*known[:at], keep, *known[at:]])
        FUSED[cls.replaces] = cls

    def __init__(self, *args: Any, reuse_constant: bool = True, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.reuse_constant = reuse_constant

    # What a layer may declare besides, as far as it differs:

    @property
    def reduction(self) -> str | None:
        """Name of the aggregation as :func:`~graphsparse.ops.spmm` knows it, ``None`` if it does not."""
        return _REDUCTIONS.get(self.aggr) if isinstance(self.aggr, str) else None

    @property
    def weighted_sum(self) -> bool:
        """Whether the output is a function of the sum over the in-edges, each times its weight."""
        return self.reduction == "sum"

    @property
    def normalises(self) -> bool:
        """Whether :meth:`operator` divides edges by the degrees of the whole graph."""
        return False

    @property
    def has_root(self) -> bool:
        """Whether the output at a node depends on the features of the node itself, without a self-loop."""
        return self.own is not None and getattr(self, self.own, None) is not None

    def operator(self, adj: Adjacency, dtype: torch.dtype) -> Adjacency:
        """Return the matrix of the sparse product, rows are destinations: normalised, with self-loops, or as it is.

        Args:
            adj: The whole graph, square.
            dtype: Type of the features.
        """
        return adj

    def prepare(self, x: Tensor) -> Tensor:
        """Return what a node sends, of its features, row by row."""
        return x

    def finish(self, near: Tensor, target: OptTensor, fresh: bool, **extra: Any) -> Tensor:
        """Return the output at nodes, row by row.

        Args:
            near: What comes from their neighbours, through the linear layer called :attr:`near`.
            target: Features of the nodes themselves.
            fresh: Whether ``near`` may be changed in place; otherwise something else holds it.
            extra: What else :meth:`run` was given.
        """
        if target is None or not self.has_root:
            return near
        return add(near, apply_linear(getattr(self, self.own or ""), target), fresh)

    # The pass over the whole graph:

    def run(
        self, x: Any, edge_index: Adj | Adjacency, edge_weight: OptTensor = None, size: Size = None, **extra: Any
    ) -> Tensor:
        """Run the layer, for its ``forward``.

        Args:
            x: Features ``[N, F]``, dense or sparse, or a pair for sources and destinations.
            edge_index: The graph: ``[2, E]``, ``EdgeIndex``, ``SparseTensor``, torch sparse ``adj_t``, or
                ``Adjacency``.
            edge_weight: Weights of the edges, ``[E]``; not with a matrix, which holds its own values.
            size: Numbers of sources and destinations, when the features do not tell.
            extra: What :meth:`finish` takes besides, under the names of PyG's ``forward``.

        Raises:
            ValueError: If there are weights where none are taken, as for another aggregation, or ``x`` does not fit the
                graph.
        """
        source, target = x if isinstance(x, (tuple, list)) else (x, x)
        if not self.is_fused(source):
            return self.edge_by_edge(to_dense(x), edge_index, edge_weight, size, **extra)
        operator = self.graph(source, target, edge_index, edge_weight, size)
        source, target = self.constants(source, target if self.has_root else None, self.reuse_constant)
        near, fresh = self.gather(operator, self.prepare(source))
        # What a subclass of a tensor gives may be a view, which must not be changed.
        return self.finish(near, target, fresh and type(near) is Tensor, **extra)

    def constants(self, source: Any, target: Any, reuse: bool) -> tuple[Tensor, OptTensor]:
        """Return the features in the form in which they are multiplied, sparse where that is worth it."""
        features = constant_features(source, reuse)
        if target is None or target is source:
            return features, None if target is None else features
        return features, constant_features(target, reuse)

    def is_fused(self, x: Any) -> bool:
        """Say whether the layer would run as one sparse product, for such features of the sources."""
        if is_transformed() or x.dim() != 2 or self.node_dim not in (-2, 0):
            return False
        return self.reduction in self.reductions and sees_messages(self) is None

    def graph(self, source: Any, target: Any, edge_index: Any, edge_weight: OptTensor, size: Size) -> Adjacency:
        """Return the operator of the graph that came in."""
        ends = end_nodes(edge_index, source, target, size, self.flow)
        # PyG ignores the values of a `SparseTensor` in the layers that take no weights.
        values = "edge_weight" in self._forward_of_pyg
        adj = to_adjacency(edge_index, edge_weight, ends, flow=self.flow, sparse_tensor_values=values)
        return self.operator(adj, source.dtype if isinstance(source, Tensor) else source.dtype())

    def gather(self, operator: Adjacency, x: Tensor) -> tuple[Tensor, bool]:
        """Return what comes from the neighbours, and whether it may be changed in place."""
        reduce = self.reduction or ""
        if self.near is None:
            return propagate(operator, x, reduce, self.reuse_constant)
        layer = getattr(self, self.near)
        return propagate_and_transform(operator, x, layer, reduce, self.reuse_constant, transform_first=self.near_first)

    # The same in blocks of rows, for inference:

    def transform(self, x: Tensor) -> Tensor:
        """Return what the nodes send, row by row: through the linear layer :attr:`near` where that comes first.

        Args:
            x: Features of some nodes, dense ``[n, F]``.
        """
        x = self.prepare(x)
        if not self.transforms_first:
            return x
        layer = getattr(self, self.near or "")
        return linear(x, layer.weight) if self.commutes else apply_linear(layer, x)

    def rows(self, block: Adjacency, hidden: Tensor, hidden_dst: Tensor, x_dst: Tensor, **extra: Any) -> Tensor:
        """Return some rows of the output.

        Args:
            block: These rows of the :meth:`operator` of the whole graph, as ``operator.rows(start, stop)``, or with the
                columns that it has no entries in left out.
            hidden: What :meth:`transform` made of the nodes of its columns.
            hidden_dst: What it made of the nodes of its rows.
            x_dst: Features of the nodes of its rows.
            extra: What :meth:`finish` takes besides, of the nodes of its rows.
        """
        near = spmm(block, as_weighted(hidden, block) if self.near_first else hidden, self.reduction or "")
        return self.from_near(near, x_dst, transformed=self.transforms_first, fresh=True, **extra)

    def from_near(self, near: Tensor, x_dst: OptTensor, *, transformed: bool, fresh: bool, **extra: Any) -> Tensor:
        """Return some rows of the output of a layer that is one sparse product.

        Args:
            near: What the product gave: the reduction of what :meth:`transform` made of the neighbours, or of what
                :meth:`prepare` did.
            x_dst: Features of the nodes of its rows; not needed without :attr:`has_root`.
            transformed: Which of the two.
            fresh: Whether ``near`` may be changed in place.
            extra: What :meth:`finish` takes besides, of the nodes of its rows.
        """
        layer = None if self.near is None else getattr(self, self.near)
        if layer is not None and not transformed:
            near, fresh = apply_linear(layer, near), True
        elif layer is not None and self.commutes and layer.bias is not None:
            near, fresh = add_bias(near, layer.bias, fresh), True
        return self.finish(near, x_dst, fresh, **extra)

    @property
    def is_product(self) -> bool:
        """Whether :meth:`rows` are one sparse product and then :meth:`from_near`."""
        return type(self).rows is FusedConv.rows

    @property
    def is_linear(self) -> bool:
        """Whether the output is linear in the weights, for a given sum of what :meth:`prepare` gives."""
        return self.near is not None and type(self).finish is FusedConv.finish

    @property
    def transforms_first(self) -> bool:
        """Whether :meth:`transform` applies the linear layer :attr:`near`."""
        if self.near is None or not self.commutes:
            return self.near_first
        weight = getattr(self, self.near).weight
        narrows: bool = weight.size(0) < weight.size(1)
        return narrows

    @property
    def commutes(self) -> bool:
        """Whether the linear layer :attr:`near` may come before the aggregation or after it, its bias always after."""
        layer: Any = None if self.near is None else getattr(self, self.near)
        biased = self.near_first and layer is not None and layer.bias is not None
        return layer is not None and is_plain(layer) and self.reduction in ("sum", "mean") and not biased

    # As PyG computes it, where something looks at messages:

    def edge_by_edge(self, x: Any, edge_index: Any, edge_weight: OptTensor, size: Size = None, **extra: Any) -> Tensor:
        """Run the layer with one message for each edge."""
        edges, weight, size = to_edge_list(edge_index, edge_weight, size, self.flow)
        if weight is None:
            return self.as_pyg(x, edges, None, size, **extra)
        if "edge_weight" in self._forward_of_pyg:
            if is_sparse(edges):
                refuse_weights_of_matrix()
            return self.as_pyg(x, *self.without_removed(edges, weight), size, **extra)
        source, target = x if isinstance(x, tuple) else (x, x)
        self.refuse_weights(source, edges)
        num_dst = end_nodes(edge_index, source, target, size, self.flow)[1]
        reduce = self.reduction or ""
        near = aggregate(self.prepare(source), edges, weight, num_dst, reduce, flow=self.flow, watch=self)
        if self.near is not None:
            near = apply_linear(getattr(self, self.near), near)
        return self.finish(near, target, False, **extra)

    def as_pyg(self, x: Any, edge_index: Any, edge_weight: OptTensor, size: Size, **extra: Any) -> Tensor:
        """Run the forward pass of PyG's layer."""
        given = {"edge_weight": edge_weight, "size": size}
        given = {name: value for name, value in given.items() if name in self._forward_of_pyg}
        out: Tensor = self.replaces.forward(self, x=x, edge_index=edge_index, **extra, **given)
        return out

    def without_removed(self, edge_index: Tensor, edge_weight: Tensor) -> tuple[Tensor, Tensor]:
        """Delete the edges of weight 0, but not where they make no difference: others may count on their places."""
        if is_traced():
            if self.aggr not in ("add", "sum"):
                raise ValueError(f"'edge_weight' cannot be traced with aggr={self.aggr!r}: removed edges would count")
            return edge_index, edge_weight
        removed = edge_weight.view(-1) == 0
        if self.explain or self.aggr in ("add", "sum"):
            removed = removed & (edge_index[0] == edge_index[1])
        return (edge_index[:, ~removed], edge_weight[~removed]) if removed.any() else (edge_index, edge_weight)

    def refuse_weights(self, x: Tensor, edge_index: Any) -> None:
        """Refuse weights where they would not count."""
        why = sees_messages(self, may_watch=("_message_forward_hooks", *_OF_PRODUCT))
        if why is None and self.reduction is None:
            why = f"with aggr={self.aggr!r}"
        if why is None and x.dim() != 2:
            why = f"for features of {x.dim()} dimensions"
        if why is not None:
            raise ValueError(f"{type(self).__name__} takes no 'edge_weight' {why}")
        if is_sparse(edge_index):
            refuse_weights_of_matrix()


def sees_messages(conv: FusedConv, names: tuple[str, ...] = _METHODS, *, may_watch: tuple[str, ...] = ()) -> str | None:
    """Say what looks at the messages of a layer one by one, in some methods, by other hooks than some."""
    if conv.explain:
        return "while it is explained"
    for name in names:
        hooks = (f"_{name}_forward_pre_hooks", f"_{name}_forward_hooks")
        if any(getattr(conv, hook, None) for hook in hooks if hook not in may_watch):
            return f"with hooks on {name!r}"
        if has_own_method(conv, name) or _original(type(conv), name) is not _original(conv._declared, name):
            return f"with a method {name!r} of its own"
    return None


def has_own_method(conv: MessagePassing, name: str) -> bool:
    """Say whether an object has another method than its class. PyG puts its own `propagate` there and back."""
    method = vars(conv).get(name)
    known = [getattr(type(conv), f"{prefix}{name}", None) for prefix in ("_orig_", "_jinja_")]
    return method is not None and getattr(method, "__func__", method) not in known


def _original(cls: type, name: str) -> Any:
    """Return a method of a class; PyG replaces `propagate` and `edge_updater` of each class by one made for it."""
    for base in cls.__mro__:
        method = vars(base).get(name)
        made = method is vars(base).get(f"_jinja_{name}") is not vars(base).get(f"_orig_{name}")
        if method is not None and not made:
            return method
    return None
