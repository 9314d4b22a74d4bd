"""Graph attention with weights, and without a tensor of messages."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.nn import conv as pyg
from torch_geometric.typing import Adj, OptPairTensor, OptTensor, Size
from torch_geometric.utils import is_sparse

from graphsparse.nn.attention_edges import attention_edges
from graphsparse.nn.features import constant_features, to_dense
from graphsparse.nn.fused import FusedConv, sees_messages
from graphsparse.nn.gather_scatter import attention_softmax
from graphsparse.nn.graph import end_nodes, refuse_weights_of_matrix, to_edge_list
from graphsparse.nn.linear import apply_linear
from graphsparse.ops import Adjacency, dropout, spmm


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
            return pyg.GATConv.forward(self, to_dense(x), edges_of_pyg, edge_attr, size, return_attention_weights)
        if not fused:
            self._refuse_weights(source)

        ends = end_nodes(edge_index, source, target, size, self.flow)
        (x_src, x_dst), root = self._transform(source, target, reuse=fused and self.reuse_constant)
        edges = attention_edges(
            edge_index, edge_weight, ends, add_self_loops=self.add_self_loops, flow=self.flow, fused=fused
        )
        if edge_attr is not None and self.lin_edge is not None:
            edge_attr = edges.extend(edge_attr.view(-1, 1) if edge_attr.dim() == 1 else edge_attr, self.fill_value)
        alpha = self._attention(edges.source, edges.target, edges.weight, edges.num_dst, x_src, x_dst, edge_attr)
        drop = dropout if self.fast_dropout else F.dropout
        dropped = drop(alpha, p=self.dropout, training=self.training)
        if edges.adjacency is not None:
            out = self._sum(edges.adjacency, x_src, dropped)
        else:
            out = self.propagate(edges.edge_index, x=(x_src, x_dst), alpha=dropped, size=edges.ends)
        out = self._join(out, root)
        if not return_attention_weights:
            return out
        shown = edges.shown()
        return out, (edges.edge_index[:, shown], dropped[shown])

    def _refuse_weights(self, x: Tensor) -> None:
        why = sees_messages(self, ("edge_update",))
        if why is None and self.aggr not in ("add", "sum"):
            why = f"with aggr={self.aggr!r}"
        if why is None and x.dim() != 2:
            why = f"for features of {x.dim()} dimensions"
        if why is not None:
            raise ValueError(f"{type(self).__name__} takes no 'edge_weight' {why}")

    def _transform(
        self, source: Tensor, target: OptTensor, *, reuse: bool
    ) -> tuple[tuple[Tensor, Tensor | None], Tensor | None]:
        """Return the features of sources and destinations by head, ``[N, H, C]``, and the residual."""
        shape = (-1, self.heads, self.out_channels)
        same = target is source
        source = constant_features(source, reuse)
        if target is not None:
            target = source if same else constant_features(target, reuse)
        root = None if self.res is None or target is None else self.res(target)
        if self.lin is not None and same:
            hidden = apply_linear(self.lin, source).view(shape)
            return (hidden, hidden), root
        lin_src, lin_dst = (self.lin_src, self.lin_dst) if self.lin is None else (self.lin, self.lin)
        hidden_dst = None if target is None else apply_linear(lin_dst, target).view(shape)
        return (apply_linear(lin_src, source).view(shape), hidden_dst), root

    def _attention(
        self,
        source: Tensor,
        target: Tensor,
        weight: OptTensor,
        num_dst: int,
        x_src: Tensor,
        x_dst: OptTensor,
        edge_attr: OptTensor,
    ) -> Tensor:
        """Return the coefficients ``[E, H]``."""
        score = (x_src * self.att_src).sum(-1).index_select(0, source)
        if x_dst is not None:
            score = score + (x_dst * self.att_dst).sum(-1).index_select(0, target)
        if edge_attr is not None and self.lin_edge is not None:
            embedded = self.lin_edge(edge_attr).view(-1, self.heads, self.out_channels)
            score = score + (embedded * self.att_edge).sum(-1)
        score = F.leaky_relu(score, self.negative_slope)
        return attention_softmax(score, weight, target, num_dst)

    def _sum(self, adj: Adjacency, hidden: Tensor, alpha: Tensor) -> Tensor:
        return torch.stack([spmm(adj, hidden[:, head], value=alpha[:, head]) for head in range(self.heads)], 1)

    def _join(self, out: Tensor, root: OptTensor) -> Tensor:
        """Put the heads together, and add residual and bias."""
        out = out.flatten(1) if self.concat else out.mean(1)
        if root is not None:
            out = out + root
        return out if self.bias is None else out + self.bias

    def operator(self, adj: Adjacency, dtype: torch.dtype) -> Adjacency:
        """Return the graph with its weights, and one self-loop for each node in the place of those that are there."""
        ends = (adj.num_src, adj.num_dst)
        edges = attention_edges(
            adj, None, ends, add_self_loops=self.add_self_loops, flow="source_to_target", fused=True
        )
        assert edges.adjacency is not None
        return edges.adjacency.with_value(edges.weight)

    def edge_rows(self, adj: Adjacency, edge_attr: Tensor) -> Tensor:
        """Return features for the entries of the :meth:`operator` of a graph, row by row."""
        ends = (adj.num_src, adj.num_dst)
        edges = attention_edges(
            adj, None, ends, add_self_loops=self.add_self_loops, flow="source_to_target", fused=True
        )
        assert edges.adjacency is not None
        edge_attr = edge_attr.view(-1, 1) if edge_attr.dim() == 1 else edge_attr
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
        alpha = self._attention(source, target, weight, block.num_dst, hidden, hidden_dst, edge_attr)
        return self._join(self._sum(block, hidden, alpha), None if self.res is None else self.res(x_dst))
