"""Graph convolution without a tensor of messages, and what it shares with GCNII."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch_geometric.nn import conv as pyg
from torch_geometric.typing import Adj, OptTensor, Size
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


def _cache_of_pyg(name: str, make: Callable[["NormalisedConv", Adjacency], Any]) -> Any:
    """Return an attribute in which PyG caches a graph: it shows ours, and whoever sets it, as to ``None``, drops it."""

    def read(conv: "NormalisedConv") -> Any:
        if vars(conv).get(name) is None and conv._cached_adjacency is not None:
            vars(conv)[name] = make(conv, conv._cached_adjacency)
        return vars(conv).get(name)

    def write(conv: "NormalisedConv", graph: Any) -> None:
        vars(conv)[name] = graph
        conv._cached_adjacency = None

    return property(read, write)


class NormalisedConv(FusedConv):
    r"""A layer with PyG's options ``normalize``, ``add_self_loops`` and ``cached``.

    It multiplies by

    .. math::
        \hat{\mathbf{D}}^{-1/2} (\mathbf{A} + \mathbf{I}) \hat{\mathbf{D}}^{-1/2}
    """

    reductions = ("sum",)
    improved: bool = False
    _cached_adjacency: Adjacency | None = None
    _cached_edge_index = _cache_of_pyg("_cached_edge_index", lambda conv, adj: conv._listed(adj))
    _cached_adj_t = _cache_of_pyg("_cached_adj_t", lambda _, adj: adj.to_torch_csr())

    @property
    def normalises(self) -> bool:
        """Whether edges are divided by the degrees of the whole graph."""
        return bool(self.normalize)

    def reset_parameters(self) -> None:
        """Draw new weights, and forget a cached graph."""
        super().reset_parameters()
        self._cached_adjacency = None

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
        num_nodes = source.size(0)
        if (cached := self._from_cache(num_nodes)) is not None:
            return cached
        adj = to_adjacency(edge_index, edge_weight, (num_nodes, num_nodes), flow=self.flow)
        dtype = source.dtype if isinstance(source, Tensor) else source.dtype()
        if self.normalize and self.add_self_loops and is_sparse(edge_index):
            adj = with_loops_of_matrix(adj, edge_index, 2.0 if self.improved else 1.0, dtype)
            adj = adj.gcn_norm(False, improved=self.improved, dtype=dtype)
        else:
            adj = self.operator(adj, dtype)
        if self.cached and self.normalize:
            self._cached_adjacency = adj
        return adj

    def _from_cache(self, num_nodes: int) -> Adjacency | None:
        """Return the graph of the first call, which may have gone edge by edge."""
        found = self._cached_adjacency
        if found is None and (self._cached_adj_t is not None or self._cached_edge_index is not None):
            edge_index, edge_weight = self._cached_edge_index or (self._cached_adj_t, None)
            found = to_adjacency(edge_index, edge_weight, (num_nodes, num_nodes), flow=self.flow)
            self._cached_adjacency = found
        return found

    def edge_by_edge(self, x: Any, edge_index: Any, edge_weight: OptTensor, size: Size = None, **extra: Any) -> Tensor:
        """Run the layer with one message for each edge, in which an edge of weight 0 must be no edge."""
        if self._cached_adjacency is not None:
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

    def _listed(self, adj: Adjacency) -> tuple[Tensor, OptTensor]:
        edge_index, edge_weight = adj.to_edge_index()
        return self._turned(edge_index), edge_weight

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
