"""Graph attention with weights, and without a tensor of messages."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.nn import conv as pyg
from torch_geometric.typing import Adj, OptPairTensor, OptTensor, Size
from torch_geometric.utils import is_sparse, scatter
from torch_geometric.utils.loop import compute_loop_attr

from graphsparse.nn.features import to_dense
from graphsparse.nn.fused import FusedConv, sees_messages
from graphsparse.nn.gather_scatter import append_loops
from graphsparse.nn.graph import end_nodes, refuse_weights_of_matrix, to_adjacency, to_edge_list
from graphsparse.nn.linear import apply_linear
from graphsparse.ops import Adjacency, dropout, spmm
from graphsparse.ops.attention import Ends, Scores, attention
from graphsparse.ops.remember import remember
from graphsparse.ops.spmm import reduce_messages


class GATConv(FusedConv, pyg.GATConv):  # type: ignore[misc]
    r"""The graph attention operator with weighted edges, each head computed as a sparse product.

    .. math::
        \mathbf{x}'_i = \sum_j \alpha_{ij} \mathbf{\Theta} \mathbf{x}_j, \qquad
        \alpha_{ij} = \frac{w_{ij} e^{s_{ij}}}{\sum_k w_{ik} e^{s_{ik}}}

    with the scores :math:`s_{ij}` of :class:`torch_geometric.nn.GATConv`, whose arguments, weights and results it has.
    What differs:

    * besides the attention, ``E x H`` numbers, it holds no tensor of messages, which would be ``E x H x C``;
    * ``edge_index`` may be an :class:`~graphsparse.ops.Adjacency` too; any other form is converted once, and kept for
      as long as the same, unchanged tensor comes in;
    * it takes ``edge_weight``, not negative, and **an edge of weight 0 is the same as no edge**; the edge features of
      the self-loops that the layer adds follow this, too. The values of an ``Adjacency`` are weights, those of the
      other matrices are ignored, as PyG does;
    * ``x`` may be sparse (torch or torch-sparse): it stays sparse, forward and backward. Features that need no
      gradient, come unchanged for the second time and are sparse enough are multiplied as sparse ones.

    Args:
        in_channels: Width of the input; a pair for sources and destinations; -1 to take it from the first input.
        out_channels: Width of the output of each head.
        heads: Number of heads.
        concat: Put the heads side by side; their mean otherwise.
        negative_slope: Slope of the leaky ReLU.
        dropout: Rate at which attention coefficients are dropped in training.
        add_self_loops: Replace the self-loops by one for each node.
        edge_dim: Width of edge features.
        fill_value: Edge features of the self-loops: a value, or how to reduce those of the edges of the node.
        bias: Learn a bias.
        residual: Add the transformed features of the node itself.
        reuse_constant: Keep the sparse form of constant features.
        kwargs: Arguments of :class:`torch_geometric.nn.MessagePassing`.

    Example:
        >>> from graphsparse.testing import toy_edge_index
        >>> import torch
        >>> GATConv(4, 2, heads=3)(torch.randn(5, 4), toy_edge_index()).shape
        torch.Size([5, 6])

    Source: Velickovic et al., arXiv 1710.10903, equations 1 to 6.
    """

    replaces = pyg.GATConv
    reductions = ("sum",)
    weighted_sum = False
    fast_dropout: bool = False

    def forward(  # type: ignore[no-untyped-def]
        self,
        x: Tensor | OptPairTensor,
        edge_index: Adj | Adjacency,
        edge_attr: OptTensor = None,
        size: Size = None,
        return_attention_weights: bool | None = None,
        edge_weight: OptTensor = None,
    ):
        """Run the layer.

        Args:
            x: Features ``[N, F]``, or a pair for sources and destinations, of which the second may be ``None``.
            edge_index: The graph: ``[2, E]``, ``EdgeIndex``, ``SparseTensor``, torch sparse ``adj_t``, or
                ``Adjacency``.
            edge_attr: Edge features, ``[E, edge_dim]``.
            size: Numbers of sources and destinations, when the features do not tell.
            return_attention_weights: Return ``(out, (edge_index, alpha))``.
            edge_weight: Weights of the edges, ``[E]``; not with a matrix.

        Raises:
            ValueError: If ``x`` does not fit the graph, or weights come where they would not count: while the layer is
                explained, with an ``aggr`` other than a sum, or where a subclass or a hook computes the attention.
        """
        source, target = x if isinstance(x, (tuple, list)) else (x, x)
        matrix = is_sparse(edge_index)
        if matrix and edge_weight is not None:
            refuse_weights_of_matrix()
        weighted = edge_weight is not None or (isinstance(edge_index, Adjacency) and edge_index.value is not None)
        fused = self.is_fused(source)
        details = self.lin_edge is not None or bool(return_attention_weights)
        if not weighted and (not fused or (matrix and details)):
            edges_of_pyg, _, size = to_edge_list(edge_index, None, size, self.flow)
            return self.replaces.forward(self, to_dense(x), edges_of_pyg, edge_attr, size, return_attention_weights)
        if not fused:
            self._refuse_weights(source)

        ends = end_nodes(edge_index, source, target, size, self.flow)
        source, target = self.constants(source, target, fused and self.reuse_constant)
        x_src, x_dst = self._by_head(source, target)
        edges = self._edges(edge_index, edge_weight, ends, self.flow, fused)
        if edge_attr is not None and self.lin_edge is not None:
            edge_attr = edges.extend(edge_attr, self.fill_value)
        pattern = None if edges.adjacency is None else edges.adjacency.pattern
        listed = Ends(edges.source, edges.target, ends[1], pattern)
        alpha = self._attention(listed, edges.weight, x_src, x_dst, edge_attr)
        drop = dropout if self.fast_dropout else F.dropout
        dropped = drop(alpha, p=self.dropout, training=self.training)
        if edges.adjacency is not None:
            out = self._sum(edges.adjacency, x_src, dropped)
        else:
            out = self.propagate(edges.edge_index, x=(x_src, x_dst), alpha=dropped, size=ends)
        out = self._join(out, target)
        if not return_attention_weights:
            return out
        shown = edges.edge_index[0] != edges.edge_index[1]  # one of two self-loops of a node
        shown[shown.numel() - edges.num_loops if edges.num_loops else 0 :] = True
        return out, (edges.edge_index[:, shown], dropped[shown])

    def _refuse_weights(self, x: Tensor) -> None:
        why = sees_messages(self, ("edge_update",))
        if why is None and self.aggr not in ("add", "sum"):
            why = f"with aggr={self.aggr!r}"
        if why is None and x.dim() != 2:
            why = f"for features of {x.dim()} dimensions"
        if why is not None:
            raise ValueError(f"{type(self).__name__} takes no 'edge_weight' {why}")

    def _by_head(self, source: Tensor, target: OptTensor) -> tuple[Tensor, OptTensor]:
        """Return the features of sources and destinations by head, ``[N, H, C]``."""
        shape = (-1, self.heads, self.out_channels)
        lin_src, lin_dst = (self.lin_src, self.lin_dst) if self.lin is None else (self.lin, self.lin)
        x_src = apply_linear(lin_src, source).view(shape)
        if target is None or (target is source and lin_src is lin_dst):
            return x_src, None if target is None else x_src
        return x_src, apply_linear(lin_dst, target).view(shape)

    def _attention(
        self, ends: Ends, weight: OptTensor, x_src: Tensor, x_dst: OptTensor, edge_attr: OptTensor
    ) -> Tensor:
        """Return the coefficients ``[E, H]``."""
        source = (x_src * self.att_src).sum(-1)
        target = None if x_dst is None else (x_dst * self.att_dst).sum(-1)
        edge = None
        if edge_attr is not None and self.lin_edge is not None:
            embedded = self.lin_edge(edge_attr).view(-1, self.heads, self.out_channels)
            edge = (embedded * self.att_edge).sum(-1)
        return attention(Scores(source, target, edge), ends, weight, self.negative_slope)

    def _sum(self, adj: Adjacency, hidden: Tensor, alpha: Tensor) -> Tensor:
        hidden = hidden.to(torch.promote_types(hidden.dtype, alpha.dtype))  # as PyG's messages have it, under autocast
        return spmm(adj, hidden, value=alpha)

    def _join(self, out: Tensor, target: OptTensor) -> Tensor:
        """Put the heads together, and add residual and bias."""
        out = out.flatten(1) if self.concat else out.mean(1)
        if self.res is not None and target is not None:
            out = out + self.res(target)
        return out if self.bias is None else out + self.bias

    def _edges(
        self, edge_index: Any, edge_weight: OptTensor, ends: tuple[int, int], flow: str, fused: bool
    ) -> "AttentionEdges":
        """Return the edges over which the nodes attend; as a matrix too, kept while the same edges come, if `fused`."""
        adj: Adjacency | None = None
        if isinstance(edge_index, Adjacency) or is_sparse(edge_index):
            adj = to_adjacency(edge_index, edge_weight, ends, flow=flow, sparse_tensor_values=False)
            weight = adj.to_edge_index()[1] if isinstance(edge_index, Adjacency) else None
        else:
            weight = None if edge_weight is None else edge_weight.view(-1)

        def listed() -> Tensor:
            if adj is not None:
                return adj.to_edge_index()[0]
            edges: Tensor = edge_index.as_tensor() if isinstance(edge_index, EdgeIndex) else edge_index
            return edges.long()  # the gradients of the softmax need it

        num_loops = min(ends) if self.add_self_loops else 0
        if num_loops == 0 and adj is not None:
            return AttentionEdges(listed(), weight, 0, max(ends), flow, adj.with_value(None) if fused else None)

        def build() -> tuple[OptTensor, OptTensor, Adjacency | None]:
            edges, zero_or_one, looped = listed(), None, None
            if num_loops:
                ones = torch.ones(edges.size(1), device=edges.device)
                has_loops = not fused or bool((edges[0] == edges[1]).any())
                edges, zero_or_one = append_loops(edges, ones, ones.new_ones(num_loops))
                zero_or_one = zero_or_one if has_loops else None
            if fused:
                looped = Adjacency.from_edge_index(edges if flow == "source_to_target" else edges.flip(0), None, ends)
            # What is kept must not hold the list that it belongs to.
            return edges if num_loops or edges.dtype != edge_index.dtype else None, zero_or_one, looped

        key = ("attention", ends, flow, num_loops)
        if not fused:
            found, zero_or_one, looped = build()
        elif adj is not None:
            found, zero_or_one, looped = adj.pattern.keep(key, build)
        else:
            found, zero_or_one, looped = remember([edge_index], key, build)
        if weight is not None:
            weight = torch.cat([weight, weight.new_ones(num_loops)])
            weight = weight if zero_or_one is None else weight * zero_or_one
        weight = zero_or_one if weight is None else weight
        return AttentionEdges(listed() if found is None else found, weight, num_loops, max(ends), flow, looped)

    def operator(self, adj: Adjacency, dtype: torch.dtype) -> Adjacency:
        """Return the graph with its weights, and one self-loop for each node in the place of those that are there."""
        edges = self._edges(adj, None, (adj.num_src, adj.num_dst), "source_to_target", True)
        assert edges.adjacency is not None
        return edges.adjacency.with_value(edges.weight)

    def edge_rows(self, adj: Adjacency, edge_attr: Tensor) -> Tensor:
        """Return features for the entries of the :meth:`operator` of a graph, row by row."""
        edges = self._edges(adj, None, (adj.num_src, adj.num_dst), "source_to_target", True)
        assert edges.adjacency is not None
        return edges.adjacency.pattern.from_edges(edges.extend(edge_attr, self.fill_value))

    def transform(self, x: Tensor) -> Tensor:
        """Return the nodes by head, one head beside the other."""
        return apply_linear(self.lin_src if self.lin is None else self.lin, x)

    def rows(  # type: ignore[override]
        self, block: Adjacency, hidden: Tensor, hidden_dst: Tensor, x_dst: Tensor, edge_attr: OptTensor = None
    ) -> Tensor:
        """Return some rows of the output; features of the edges as :meth:`edge_rows` gives them, of these rows."""
        (source, target), weight = block.to_edge_index()
        shape = (-1, self.heads, self.out_channels)
        if self.lin is None:
            hidden_dst = apply_linear(self.lin_dst, x_dst)
        hidden, hidden_dst = hidden.view(shape), hidden_dst.view(shape)
        ends = Ends(source, target, block.num_dst, block.pattern)
        alpha = self._attention(ends, weight, hidden, hidden_dst, edge_attr)
        return self._join(self._sum(block, hidden, alpha), x_dst)


@dataclass
class AttentionEdges:
    """Edges with their weights, self-loops behind the others.

    A self-loop of the graph itself, in place of which the node has one of those behind, stays in the list with
    weight 0, which is to be deleted; so the list only depends on sizes.

    Attributes:
        edge_index: Edges ``[2, E]``.
        weight: Weights ``[E]``, ``None`` where all are 1.
        num_loops: How many self-loops are behind.
        num_nodes: The larger number of sources and destinations.
        flow: As in PyG's ``MessagePassing``.
        adjacency: The edges without weights, whose edge list has their order; ``None`` if it is not needed.
    """

    edge_index: Tensor
    weight: Tensor | None
    num_loops: int
    num_nodes: int
    flow: str
    adjacency: Adjacency | None

    @property
    def source(self) -> Tensor:
        """Sources ``[E]``."""
        return self.edge_index[0 if self.flow == "source_to_target" else 1]

    @property
    def target(self) -> Tensor:
        """Destinations ``[E]``."""
        return self.edge_index[1 if self.flow == "source_to_target" else 0]

    def extend(self, edge_attr: Tensor, fill_value: float | Tensor | str) -> Tensor:
        """Return edge features ``[E, D]``; those of the self-loops behind are a value, or reduced from the in-edges."""
        edge_attr = edge_attr.view(-1, 1) if edge_attr.dim() == 1 else edge_attr
        if self.num_loops == 0:
            return edge_attr
        given = slice(0, edge_attr.size(0))
        if not isinstance(fill_value, str):
            loops = compute_loop_attr(self.edge_index, edge_attr, self.num_loops, False, fill_value)
            return torch.cat([edge_attr, loops])
        # The features of a self-loop are those of the edges into the node, whatever the flow: so has PyG.
        ends = self.edge_index[1, given]
        if self.weight is None:
            loops = scatter(edge_attr, ends, 0, self.num_nodes, fill_value)
        else:
            reduce = {"add": "sum", "amin": "min", "amax": "max"}.get(fill_value, fill_value)
            if reduce not in ("sum", "mean", "min", "max", "mul"):
                raise ValueError(f"'fill_value' {fill_value!r} does not go with weights or self-loops")
            weight = self.weight[given]
            weighted = edge_attr * weight.view(-1, 1).to(edge_attr.dtype)
            loops = reduce_messages(weighted, weight, ends, self.num_nodes, reduce)
        return torch.cat([edge_attr, loops[: self.num_loops]])
