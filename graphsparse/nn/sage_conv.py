"""GraphSAGE without a tensor of messages, with weights."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch_geometric.nn import conv as pyg
from torch_geometric.typing import Adj, OptPairTensor, OptTensor, Size

from graphsparse.nn.fused import FusedConv
from graphsparse.nn.linear import apply_linear
from graphsparse.ops import Adjacency


class SAGEConv(FusedConv, pyg.SAGEConv):  # type: ignore[misc]
    r"""The GraphSAGE operator with weighted edges, computed as one sparse product.

    .. math::
        \mathbf{x}'_i = \mathbf{W}_1 \frac{\sum_j w_{ij} \mathbf{x}_j}{\sum_j w_{ij}} + \mathbf{W}_2 \mathbf{x}_i

    Arguments, weights and results are those of :class:`torch_geometric.nn.SAGEConv`. What differs:

    * no tensor of messages is held for ``aggr`` sum, mean, min and max; where the output is narrower than the input, a
      sum or a mean is taken after the linear layer, which is the same and costs less;
    * ``edge_index`` may be an :class:`~graphsparse.ops.Adjacency` too; any other form is converted once, and kept for
      as long as the same, unchanged tensor comes in;
    * it takes ``edge_weight``, and **an edge of weight 0 is the same as no edge**: see
      :func:`~graphsparse.ops.spmm`. The values of an ``Adjacency`` or of a torch ``adj_t`` are weights, those of a
      ``SparseTensor`` are ignored, as PyG does. A mean is divided by the sum of the weights; PyG divides that of a
      torch ``adj_t`` by the number of its entries, which is the same where they are ones;
    * ``x`` may be sparse (torch or torch-sparse): it stays sparse, forward and backward, where the aggregation is
      linear and ``project`` off.

    Features that need no gradient and come unchanged for the second time are constants: what their neighbours give is
    computed once, and sparse ones are multiplied as such.

    Args:
        in_channels: Width of the input; a pair for sources and destinations; -1 to take it from the first input.
        out_channels: Width of the output.
        aggr: Any aggregation of PyG; weights need one of ``"sum"``, ``"mean"``, ``"min"`` and ``"max"``.
        normalize: Divide each row of the output by its norm.
        root_weight: Add the transformed features of the node itself.
        project: Transform the features of the neighbours by a layer of its own first.
        bias: Learn a bias.
        reuse_constant: Keep what is computed from constant features. It takes memory for one more copy of them.
        kwargs: Arguments of :class:`torch_geometric.nn.MessagePassing`.

    Example:
        >>> from graphsparse.testing import toy_edge_index
        >>> import torch
        >>> conv, x = SAGEConv(4, 2), torch.randn(5, 4)
        >>> weight = torch.ones(10)
        >>> weight[0] = 0
        >>> torch.allclose(
        ...     conv(x, toy_edge_index(), edge_weight=weight), conv(x, toy_edge_index()[:, 1:]), atol=1e-6
        ... )
        True

    Source: Hamilton, Ying and Leskovec, arXiv 1706.02216, algorithm 1.
    """

    replaces = pyg.SAGEConv
    near, own = "lin_l", "lin_r"

    @property
    def is_linear(self) -> bool:
        """Whether the output is linear in the weights, for a given sum of what :meth:`prepare` gives."""
        return not self.normalize

    @property
    def has_root(self) -> bool:
        """Whether something of the node itself is added."""
        return bool(self.root_weight)

    def forward(
        self,
        x: Tensor | OptPairTensor,
        edge_index: Adj | Adjacency,
        size: Size = None,
        edge_weight: OptTensor = None,
    ) -> Tensor:
        """Run the layer.

        Args:
            x: Features ``[N, F]``, or a pair for sources and destinations, of which the second may be ``None``.
            edge_index: The graph: ``[2, E]``, ``EdgeIndex``, ``SparseTensor``, torch sparse ``adj_t``, or
                ``Adjacency``.
            size: Numbers of sources and destinations, when the features do not tell.
            edge_weight: Weights of the edges, ``[E]``; not with a matrix, which holds its own values.

        Raises:
            ValueError: If there are weights where none are taken, as for another aggregation, or ``x`` does not fit the
                graph.
        """
        return self.run(x, edge_index, edge_weight, size)

    def prepare(self, x: Tensor) -> Tensor:
        """Project the features."""
        return apply_linear(self.lin, x).relu() if self.project else x

    def finish(self, near: Tensor, target: OptTensor, fresh: bool, **extra: Any) -> Tensor:
        """Add what the node itself gives."""
        out = super().finish(near, target, fresh)
        return F.normalize(out, p=2.0, dim=-1) if self.normalize else out
