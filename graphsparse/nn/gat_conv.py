"""Graph attention with weights, and without a tensor of messages."""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.nn import MessagePassing
from torch_geometric.nn import conv as pyg
from torch_geometric.typing import Adj, OptPairTensor, OptTensor, Size
from torch_geometric.utils import is_sparse

from graphsparse.nn.attention_edges import AttentionEdges, attention_edges
from graphsparse.nn.features import constant_features, to_dense
from graphsparse.nn.gather_scatter import attention_softmax
from graphsparse.nn.graph import (
    end_nodes,
    fused_reduction,
    refuse_weights_of_matrix,
    sees_messages,
    to_edge_list,
)
from graphsparse.nn.linear import apply_linear
from graphsparse.ops import Adjacency, dropout, spmm


class GATConv(pyg.GATConv):  # type: ignore[misc]
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

    SUPPORTS_ADJACENCY = True
    # PyG makes code for these from those of the class it comes from, which may be made code that explains nothing.
    propagate = MessagePassing.propagate
    edge_updater = MessagePassing.edge_updater
    # PyG looks these up in the source of the class by its name, which is also that of the class it comes from.
    propagate_type: ClassVar[dict[str, Any]] = {"x": OptPairTensor, "alpha": Tensor}
    edge_updater_type: ClassVar[dict[str, Any]] = {"alpha": OptPairTensor, "edge_attr": OptTensor}
    reuse_constant: bool = True
    fast_dropout: bool = False

    def __init__(
        self,
        in_channels: int | tuple[int, int],
        out_channels: int,
        heads: int = 1,
        concat: bool = True,
        negative_slope: float = 0.2,
        dropout: float = 0.0,
        add_self_loops: bool = True,
        edge_dim: int | None = None,
        fill_value: float | Tensor | str = "mean",
        bias: bool = True,
        residual: bool = False,
        *,
        reuse_constant: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            in_channels, out_channels, heads, concat, negative_slope, dropout, add_self_loops, edge_dim, fill_value,
            bias, residual, **kwargs,
        )  # fmt: skip
        self.reuse_constant = reuse_constant

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
        fused = fused_reduction(self, GATConv, source) == "sum"
        details = self.lin_edge is not None or bool(return_attention_weights)
        if not weighted and (not fused or (matrix and details)):
            edges_of_pyg, _, size = to_edge_list(edge_index, None, size, self.flow)
            return super().forward(to_dense(x), edges_of_pyg, edge_attr, size, return_attention_weights)
        if not fused:
            self._refuse_weights(source)

        ends = end_nodes(edge_index, source, target, size, self.flow)
        (x_src, x_dst), root = self._transform(source, target, reuse=fused and self.reuse_constant)
        edges = attention_edges(
            edge_index, edge_weight, ends, add_self_loops=self.add_self_loops, flow=self.flow, fused=fused
        )
        alpha = self._attention(edges, x_src, x_dst, edge_attr)
        drop = dropout if self.fast_dropout else F.dropout
        dropped = drop(alpha, p=self.dropout, training=self.training)
        if edges.adjacency is not None:
            heads = [spmm(edges.adjacency, x_src[:, head], value=dropped[:, head]) for head in range(self.heads)]
            out = torch.stack(heads, 1)
        else:
            out = self.propagate(edges.edge_index, x=(x_src, x_dst), alpha=dropped, size=edges.ends)
        out = out.flatten(1) if self.concat else out.mean(1)
        if root is not None:
            out = out + root
        if self.bias is not None:
            out = out + self.bias
        if not return_attention_weights:
            return out
        shown = edges.shown()
        return out, (edges.edge_index[:, shown], dropped[shown])

    def _refuse_weights(self, x: Tensor) -> None:
        why = sees_messages(self, GATConv, ("edge_update",))
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

    def _attention(self, edges: AttentionEdges, x_src: Tensor, x_dst: OptTensor, edge_attr: OptTensor) -> Tensor:
        """Return the coefficients ``[E, H]``."""
        score = (x_src * self.att_src).sum(-1).index_select(0, edges.source)
        if x_dst is not None:
            score = score + (x_dst * self.att_dst).sum(-1).index_select(0, edges.target)
        if edge_attr is not None and self.lin_edge is not None:
            edge_attr = edges.extend(edge_attr.view(-1, 1) if edge_attr.dim() == 1 else edge_attr, self.fill_value)
            embedded = self.lin_edge(edge_attr).view(-1, self.heads, self.out_channels)
            score = score + (embedded * self.att_edge).sum(-1)
        score = F.leaky_relu(score, self.negative_slope)
        return attention_softmax(score, edges.weight, edges.target, edges.num_dst)
