"""Graph convolution without a tensor of messages."""

from typing import Any, ClassVar

from torch import Tensor
from torch_geometric.nn import MessagePassing
from torch_geometric.nn import conv as pyg
from torch_geometric.typing import Adj, OptTensor
from torch_geometric.utils import is_sparse

from graphsparse.nn.features import constant_features, to_dense
from graphsparse.nn.gather_scatter import gcn_weights
from graphsparse.nn.graph import (
    fused_reduction,
    is_traced,
    refuse_weights_of_matrix,
    to_adjacency,
    to_edge_list,
    with_loops_of_matrix,
)
from graphsparse.nn.propagate import add, propagate_and_transform
from graphsparse.ops import Adjacency


class GCNConv(pyg.GCNConv):  # type: ignore[misc]
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

    SUPPORTS_ADJACENCY = True
    # PyG makes code for these from those of the class it comes from, which may be made code that explains nothing.
    propagate = MessagePassing.propagate
    # PyG looks these up in the source of the class by its name, which is also that of the class it comes from.
    propagate_type: ClassVar[dict[str, Any]] = {"x": Tensor, "edge_weight": OptTensor}
    reuse_constant: bool = True
    _cached_adjacency: Adjacency | None = None
    _cached_edge_index: tuple[Tensor, OptTensor] | None
    _cached_adj_t: Any

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        improved: bool = False,
        cached: bool = False,
        add_self_loops: bool | None = None,
        normalize: bool = True,
        bias: bool = True,
        *,
        reuse_constant: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(in_channels, out_channels, improved, cached, add_self_loops, normalize, bias, **kwargs)
        self.reuse_constant = reuse_constant

    def reset_parameters(self) -> None:
        """Draw new weights, and forget a cached graph."""
        super().reset_parameters()
        self._cached_adjacency = None

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
        if isinstance(x, (tuple, list)):
            raise ValueError(f"'x' must be one tensor: {type(self).__name__} takes no bipartite input (got a pair)")
        if fused_reduction(self, GCNConv, x) != "sum":
            return self._edge_by_edge(to_dense(x), edge_index, edge_weight)
        adj = self._normalised(x, edge_index, edge_weight)
        x = constant_features(x, self.reuse_constant)
        out, fresh = propagate_and_transform(adj, x, self.lin, "sum", self.reuse_constant, transform_first=True)
        return out if self.bias is None else add(out, self.bias, fresh)

    def _normalised(self, x: Tensor, edge_index: Adj | Adjacency, edge_weight: OptTensor) -> Adjacency:
        num_nodes = x.size(0)
        if (cached := self._from_cache(num_nodes)) is not None:
            return cached
        adj = to_adjacency(edge_index, edge_weight, (num_nodes, num_nodes), flow=self.flow)
        if not self.normalize:
            return adj
        dtype = x.dtype if isinstance(x, Tensor) else x.dtype()
        loops = self.add_self_loops
        if loops and is_sparse(edge_index):
            adj, loops = with_loops_of_matrix(adj, edge_index, 2.0 if self.improved else 1.0, dtype), False
        adj = adj.gcn_norm(add_self_loops=loops, improved=self.improved, dtype=dtype)
        if self.cached:
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

    def _edge_by_edge(self, x: Tensor, edge_index: Adj | Adjacency, edge_weight: OptTensor) -> Tensor:
        if self._cached_adjacency is not None:
            if self._cached_edge_index is None:
                edge_index, edge_weight, _ = to_edge_list(self._cached_adjacency, None)
                turned = edge_index if self.flow == "source_to_target" else edge_index.flip(0)
                self._cached_edge_index = (turned, edge_weight)
            edge_index, edge_weight = self._cached_edge_index
        edge_index, edge_weight, _ = to_edge_list(edge_index, edge_weight, flow=self.flow)
        if edge_weight is not None and is_sparse(edge_index):
            refuse_weights_of_matrix()
        if edge_weight is not None and self._cached_edge_index is None:
            if not is_traced():
                edge_index, edge_weight = self._without_removed(edge_index, edge_weight)
            elif self.aggr not in ("add", "sum"):
                raise ValueError(f"'edge_weight' cannot be traced with aggr={self.aggr!r}: removed edges would count")
            elif self.normalize:
                return self._traced(x, edge_index, edge_weight)
        out: Tensor = super().forward(x, edge_index, edge_weight)
        return out

    def _without_removed(self, edge_index: Tensor, edge_weight: Tensor) -> tuple[Tensor, Tensor]:
        """Delete the edges of weight 0, but not where they make no difference: others may count on their places."""
        removed = edge_weight.view(-1) == 0
        if self.explain or self.aggr in ("add", "sum"):
            removed = removed & (edge_index[0] == edge_index[1])
        return (edge_index[:, ~removed], edge_weight[~removed]) if removed.any() else (edge_index, edge_weight)

    def _traced(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor) -> Tensor:
        turned = edge_index if self.flow == "source_to_target" else edge_index.flip(0)
        turned, edge_weight = gcn_weights(
            turned,
            edge_weight,
            x.shape[self.node_dim],
            improved=self.improved,
            add_self_loops=self.add_self_loops,
            dtype=x.dtype,
        )
        edge_index = turned if self.flow == "source_to_target" else turned.flip(0)
        if self.cached:
            self._cached_edge_index = (edge_index, edge_weight)
        out: Tensor = self.propagate(edge_index, x=self.lin(x), edge_weight=edge_weight)
        return out if self.bias is None else out + self.bias
