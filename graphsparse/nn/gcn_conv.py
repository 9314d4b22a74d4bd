"""Graph convolution without a tensor of messages."""

from typing import Any

from torch import Tensor
from torch_geometric.nn import conv as pyg
from torch_geometric.typing import Adj, OptTensor

from graphsparse.nn.normalised_graph import NormalisedConv
from graphsparse.nn.propagate import add
from graphsparse.ops import Adjacency


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
