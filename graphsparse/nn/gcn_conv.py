"""Graph convolution without a tensor of messages, and what it shares with GCNII."""

from typing import Any

import torch
from torch import Tensor
from torch_geometric.nn import conv as pyg
from torch_geometric.typing import Adj, OptTensor, Size, SparseTensor
from torch_geometric.utils import is_sparse

from graphsparse.nn.fused import FusedConv
from graphsparse.nn.gather_scatter import gcn_weights, last_loops_only
from graphsparse.nn.graph import (
    refuse_weights_of_matrix,
    to_adjacency,
    to_edge_list,
    with_loops_of_matrix,
)
from graphsparse.nn.linear import apply_linear
from graphsparse.nn.propagate import add
from graphsparse.ops import Adjacency
from graphsparse.ops.traced import is_traced


class _CacheOfPyG:
    """A cache of PyG's layer: whoever sets it, to ``None`` to forget the graph say, sets ours with it."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, conv: Any, owner: type | None = None) -> Any:
        return self if conv is None else conv.__dict__.get(self.name)

    def __set__(self, conv: Any, value: Any) -> None:
        conv.__dict__[self.name] = value
        conv.__dict__.pop(f"{self.name}_as_adjacency", None)


class NormalisedConv(FusedConv):
    r"""A layer with PyG's options ``normalize``, ``add_self_loops`` and ``cached``.

    It multiplies by

    .. math::
        \hat{\mathbf{D}}^{-1/2} (\mathbf{A} + \mathbf{I}) \hat{\mathbf{D}}^{-1/2}
    """

    reductions = ("sum",)
    improved: bool = False
    #: PyG keeps one graph for edge lists and torch matrices, and one for `SparseTensor`.
    _cached_edge_index = _CacheOfPyG()
    _cached_adj_t = _CacheOfPyG()

    @property
    def normalises(self) -> bool:
        """Whether edges are divided by the degrees of the whole graph."""
        return bool(self.normalize)

    def operator(self, adj: Adjacency, dtype: torch.dtype) -> Adjacency:
        """Return the normalised graph."""
        if not self.normalize:
            return adj
        return adj.gcn_norm(bool(self.add_self_loops), improved=self.improved, dtype=dtype)

    def run(
        self, x: Any, edge_index: Adj | Adjacency, edge_weight: OptTensor = None, size: Size = None, **extra: Any
    ) -> Tensor:
        """Run the layer, for its ``forward``; `x` must be one tensor."""
        if isinstance(x, (tuple, list)):
            raise ValueError(f"'x' must be one tensor: {type(self).__name__} takes no bipartite input (got a pair)")
        return super().run(x, edge_index, edge_weight, size, **extra)

    def graph(self, source: Any, target: Any, edge_index: Any, edge_weight: OptTensor, size: Size) -> Adjacency:
        """Return the normalised graph, that of the first call if it is cached."""
        num_nodes, cache = source.size(0), _cache_of(edge_index)
        if (cached := self._from_cache(cache, num_nodes)) is not None:
            return cached
        adj = to_adjacency(edge_index, edge_weight, (num_nodes, num_nodes), flow=self.flow)
        dtype = source.dtype if isinstance(source, Tensor) else source.dtype()
        if self.normalize and self.add_self_loops and is_sparse(edge_index):
            adj = with_loops_of_matrix(adj, edge_index, 2.0 if self.improved else 1.0, dtype)
            adj = adj.gcn_norm(False, improved=self.improved, dtype=dtype)
        else:
            adj = self.operator(adj, dtype)
        if self.cached and self.normalize:
            self.__dict__[f"{cache}_as_adjacency"] = adj
        return adj

    def _from_cache(self, cache: str, num_nodes: int) -> Adjacency | None:
        """Return the graph of the first call, which may have gone edge by edge."""
        found: Adjacency | None = self.__dict__.get(f"{cache}_as_adjacency")
        held = getattr(self, cache)
        if found is None and held is not None:
            edge_index, edge_weight = held if isinstance(held, tuple) else (held, None)
            found = to_adjacency(edge_index, edge_weight, (num_nodes, num_nodes), flow=self.flow)
            self.__dict__[f"{cache}_as_adjacency"] = found
        return found

    def edge_by_edge(self, x: Any, edge_index: Any, edge_weight: OptTensor, size: Size = None, **extra: Any) -> Tensor:
        """Run the layer with one message for each edge, in which an edge of weight 0 must be no edge."""
        cache = _cache_of(edge_index)
        adj: Adjacency | None = self.__dict__.get(f"{cache}_as_adjacency")
        if adj is not None and getattr(self, cache) is None:
            edges, value = adj.to_edge_index()
            held: Any = (self._turned(edges), value)
            if cache == "_cached_adj_t":
                held = SparseTensor(row=edges[1], col=edges[0], value=value, sparse_sizes=(adj.num_dst, adj.num_src))
            self.__dict__[cache] = held  # beside ours, which is the same
        if cache == "_cached_edge_index" and self._cached_edge_index is not None:
            edge_index, edge_weight = self._cached_edge_index
        edge_index, edge_weight, _ = to_edge_list(edge_index, edge_weight, flow=self.flow)
        if edge_weight is not None and is_sparse(edge_index):
            refuse_weights_of_matrix()
        if edge_weight is not None and self._cached_edge_index is None:
            edge_index, edge_weight = self.without_removed(edge_index, edge_weight)
            if is_traced() and self.normalize:
                # PyG would take a self-loop of weight 0 for the one that the node has.
                edge_index, edge_weight = self._traced(x, edge_index, edge_weight)
                x = apply_linear(getattr(self, self.near), x) if self.near is not None else x
                return self.finish(self.propagate(edge_index, x=x, edge_weight=edge_weight), None, True, **extra)
            if self.normalize and self.add_self_loops and edge_weight.requires_grad:
                edge_weight = last_loops_only(edge_index, edge_weight, x.size(self.node_dim))
        return self.as_pyg(x, edge_index, edge_weight, None, **extra)

    def _turned(self, edge_index: Tensor) -> Tensor:
        return edge_index if self.flow == "source_to_target" else edge_index.flip(0)

    def _traced(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor) -> tuple[Tensor, Tensor]:
        turned, edge_weight = gcn_weights(
            self._turned(edge_index),
            edge_weight,
            x.shape[self.node_dim],
            improved=self.improved,
            add_self_loops=self.add_self_loops,
            dtype=x.dtype,
        )
        edge_index = self._turned(turned)
        if self.cached:
            self._cached_edge_index = (edge_index, edge_weight)
        return edge_index, edge_weight


def _cache_of(edge_index: Any) -> str:
    """Return the name of PyG's cache for a graph of this form."""
    return "_cached_adj_t" if isinstance(edge_index, SparseTensor) else "_cached_edge_index"


class GCNConv(NormalisedConv, pyg.GCNConv):  # type: ignore[misc]
    r"""The graph convolution of Kipf and Welling, computed as one sparse product.

    .. math::
        \mathbf{X}' = \hat{\mathbf{D}}^{-1/2} \hat{\mathbf{A}} \hat{\mathbf{D}}^{-1/2} \mathbf{X} \mathbf{\Theta},
        \qquad \hat{\mathbf{A}} = \mathbf{A} + \mathbf{I}

    Arguments, weights and results are those of :class:`torch_geometric.nn.GCNConv`. What differs:

    * no tensor of messages is held: a layer takes memory for ``N x F`` numbers, not for ``E x F``;
    * ``edge_index`` may be an :class:`~graphsparse.ops.Adjacency` too. Any other form is converted and normalised once,
      and kept for as long as the same, unchanged tensors come in;
    * **an edge of weight 0 is the same as no edge**, self-loops included: a node whose self-loop has weight 0 gets a
      fresh one, as if the edge were not in the list. What PyG does to self-loops of matrices stays: a torch ``adj_t``
      has new ones added to those that are there, in a ``SparseTensor`` they take their place;
    * ``x`` may be sparse (torch or torch-sparse): it stays sparse, forward and backward.

    Aggregation and linear layer are taken in the order that costs less. Features that need no gradient and come
    unchanged for the second time are constants: :math:`\hat{\mathbf{A}} \mathbf{X}` is computed once, and sparse
    ones are multiplied as such.

    Where messages are looked at one by one (explanations, hooks on messages, ``torch.compile``, static graphs, another
    ``aggr``), the layer computes as PyG's does.

    Args:
        in_channels: Width of the input; -1 to take it from the first input.
        out_channels: Width of the output.
        improved: Add self-loops of weight 2.
        cached: Keep the normalised graph of the first call, whatever comes later.
        add_self_loops: Add the self-loops that are missing; ``None`` for ``normalize``.
        normalize: Normalise the graph.
        bias: Learn a bias.
        reuse_constant: Keep what is computed from constant features. It takes memory for one more copy of them.
        kwargs: Arguments of :class:`torch_geometric.nn.MessagePassing`.

    Example:
        >>> from graphsparse.testing import toy_edge_index
        >>> import torch
        >>> GCNConv(4, 2)(torch.randn(5, 4), toy_edge_index()).shape
        torch.Size([5, 2])

    Source: Kipf and Welling, arXiv 1609.02907, equation 2.
    """

    replaces = pyg.GCNConv
    near = "lin"
    near_first = True
    is_linear = True

    def forward(self, x: Tensor, edge_index: Adj | Adjacency, edge_weight: OptTensor = None) -> Tensor:
        """Run the layer.

        Args:
            x: Features ``[N, F]``, dense or sparse.
            edge_index: The graph: ``[2, E]``, ``EdgeIndex``, ``SparseTensor``, torch sparse ``adj_t``, or
                ``Adjacency``.
            edge_weight: Weights of the edges, ``[E]``; not with a matrix, which holds its own values.

        Raises:
            ValueError: If ``x`` is a pair, or does not fit the graph, or weights come with a matrix, or are compiled
                for an ``aggr`` other than a sum.
        """
        return self.run(x, edge_index, edge_weight)

    def finish(self, near: Tensor, target: OptTensor, fresh: bool, **extra: Any) -> Tensor:
        """Add the bias."""
        return near if self.bias is None else add(near, self.bias, fresh)
