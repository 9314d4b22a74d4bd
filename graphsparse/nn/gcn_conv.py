"""Graph convolution without a tensor of messages."""

from typing import Any, ClassVar

from torch import Tensor
from torch_geometric.nn import MessagePassing
from torch_geometric.nn import conv as pyg
from torch_geometric.typing import Adj, OptTensor

from graphsparse.nn.features import constant_features, to_dense
from graphsparse.nn.graph import fused_reduction
from graphsparse.nn.normalised_graph import NormalisedGraph
from graphsparse.nn.propagate import add, propagate_and_transform
from graphsparse.ops import Adjacency


class GCNConv(NormalisedGraph, pyg.GCNConv):  # type: ignore[misc]
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
        self.refuse_pair(x)
        if fused_reduction(self, GCNConv, x) != "sum":
            return self._edge_by_edge(to_dense(x), edge_index, edge_weight)
        adj = self.normalised(x, edge_index, edge_weight)
        x = constant_features(x, self.reuse_constant)
        out, fresh = propagate_and_transform(adj, x, self.lin, "sum", self.reuse_constant, transform_first=True)
        return out if self.bias is None else add(out, self.bias, fresh)

    def _edge_by_edge(self, x: Tensor, edge_index: Adj | Adjacency, edge_weight: OptTensor) -> Tensor:
        edge_index, edge_weight, done = self.edges_for_messages(x, edge_index, edge_weight)
        out: Tensor
        if not done:
            out = super().forward(x, edge_index, edge_weight)
            return out
        out = self.propagate(edge_index, x=self.lin(x), edge_weight=edge_weight)
        return out if self.bias is None else out + self.bias
