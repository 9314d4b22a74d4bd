"""The layers that multiply by the normalised graph, as one matrix or as a list of edges with their weights."""

from typing import Any

import torch
from torch import Tensor
from torch_geometric.typing import Adj, OptTensor, Size
from torch_geometric.utils import is_sparse

from graphsparse.nn.fused import FusedConv
from graphsparse.nn.gather_scatter import gcn_weights
from graphsparse.nn.graph import (
    is_traced,
    refuse_weights_of_matrix,
    to_adjacency,
    to_edge_list,
    with_loops_of_matrix,
)
from graphsparse.nn.linear import apply_linear
from graphsparse.ops import Adjacency


class NormalisedConv(FusedConv):
    r"""A layer with PyG's options ``normalize``, ``add_self_loops`` and ``cached``.

    It multiplies by

    .. math::
        \hat{\mathbf{D}}^{-1/2} (\mathbf{A} + \mathbf{I}) \hat{\mathbf{D}}^{-1/2}
    """

    reductions = ("sum",)
    improved: bool = False
    _cached_adjacency: Adjacency | None = None
    _cached_edge_index: tuple[Tensor, OptTensor] | None
    _cached_adj_t: Any

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
            if self._cached_edge_index is None:
                edge_index, edge_weight, _ = to_edge_list(self._cached_adjacency, None)
                self._cached_edge_index = (self._turned(edge_index), edge_weight)
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
