"""The normalised graph of a layer that multiplies by it, as one matrix or as a list of edges with their weights."""

from typing import Any

from torch import Tensor
from torch_geometric.typing import Adj, OptTensor
from torch_geometric.utils import is_sparse

from graphsparse.nn.gather_scatter import gcn_weights
from graphsparse.nn.graph import (
    is_traced,
    refuse_weights_of_matrix,
    to_adjacency,
    to_edge_list,
    with_loops_of_matrix,
)
from graphsparse.ops import Adjacency


class NormalisedGraph:
    r"""The graph that ``GCNConv`` and ``GCN2Conv`` multiply by, and its cache.

    .. math::
        \hat{\mathbf{D}}^{-1/2} (\mathbf{A} + \mathbf{I}) \hat{\mathbf{D}}^{-1/2}

    A mix-in for a layer of PyG with the options ``normalize``, ``add_self_loops`` and ``cached``.
    """

    improved: bool = False
    normalize: bool
    add_self_loops: bool
    cached: bool
    flow: str
    aggr: Any
    explain: bool | None
    node_dim: int
    reuse_constant: bool = True
    _cached_adjacency: Adjacency | None = None
    _cached_edge_index: tuple[Tensor, OptTensor] | None
    _cached_adj_t: Any

    def reset_parameters(self) -> None:
        """Draw new weights, and forget a cached graph."""
        super().reset_parameters()  # type: ignore[misc]
        self._cached_adjacency = None

    def refuse_pair(self, x: object) -> None:
        """Refuse the features of sources and destinations of a bipartite graph.

        Args:
            x: What came as features.

        Raises:
            ValueError: If it is a pair.
        """
        if isinstance(x, (tuple, list)):
            raise ValueError(f"'x' must be one tensor: {type(self).__name__} takes no bipartite input (got a pair)")

    def normalised(self, x: Tensor, edge_index: Adj | Adjacency, edge_weight: OptTensor) -> Adjacency:
        """Return the graph as one normalised matrix.

        Args:
            x: Features ``[N, F]``, for their number and type.
            edge_index: The graph in any form.
            edge_weight: Weights of the edges ``[E]``; not with a matrix.
        """
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

    def edges_for_messages(
        self, x: Tensor, edge_index: Adj | Adjacency, edge_weight: OptTensor
    ) -> tuple[Any, OptTensor, bool]:
        """Return the graph as PyG's layer takes it, in which an edge of weight 0 must be no edge.

        Args:
            x: Features, nodes along ``node_dim``.
            edge_index: The graph in any form.
            edge_weight: Weights of the edges ``[E]``; not with a matrix.

        Returns:
            Edges, weights, and whether they are normalised; PyG's forward pass would do it again.

        Raises:
            ValueError: If weights come with a matrix, or are compiled for an ``aggr`` other than a sum.
        """
        if self._cached_adjacency is not None:
            if self._cached_edge_index is None:
                edge_index, edge_weight, _ = to_edge_list(self._cached_adjacency, None)
                self._cached_edge_index = (self._turned(edge_index), edge_weight)
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
                return *self._traced(x, edge_index, edge_weight), True
        return edge_index, edge_weight, False

    def _turned(self, edge_index: Tensor) -> Tensor:
        return edge_index if self.flow == "source_to_target" else edge_index.flip(0)

    def _without_removed(self, edge_index: Tensor, edge_weight: Tensor) -> tuple[Tensor, Tensor]:
        """Delete the edges of weight 0, but not where they make no difference: others may count on their places."""
        removed = edge_weight.view(-1) == 0
        if self.explain or self.aggr in ("add", "sum"):
            removed = removed & (edge_index[0] == edge_index[1])
        return (edge_index[:, ~removed], edge_weight[~removed]) if removed.any() else (edge_index, edge_weight)

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
