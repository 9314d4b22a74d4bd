"""GraphSAGE without a tensor of messages, with weights."""

from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor
from torch_geometric.nn import MessagePassing
from torch_geometric.nn import conv as pyg
from torch_geometric.nn.aggr import Aggregation
from torch_geometric.typing import Adj, OptPairTensor, OptTensor, Size

from graphsparse.nn.features import constant_features, to_dense
from graphsparse.nn.gather_scatter import aggregate
from graphsparse.nn.graph import (
    end_nodes,
    fused_reduction,
    to_adjacency,
    to_edge_list,
    weighted_reduction,
)
from graphsparse.nn.linear import apply_linear
from graphsparse.nn.propagate import add, propagate_and_transform
from graphsparse.ops import Adjacency


class SAGEConv(pyg.SAGEConv):  # type: ignore[misc]
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

    SUPPORTS_ADJACENCY = True
    # PyG makes code for these from those of the class it comes from, which may be made code that explains nothing.
    propagate = MessagePassing.propagate
    # PyG looks these up in the source of the class by its name, which is also that of the class it comes from.
    propagate_type: ClassVar[dict[str, Any]] = {"x": OptPairTensor}
    reuse_constant: bool = True

    def __init__(
        self,
        in_channels: int | tuple[int, int],
        out_channels: int,
        aggr: str | list[str] | Aggregation | None = "mean",
        normalize: bool = False,
        root_weight: bool = True,
        project: bool = False,
        bias: bool = True,
        *,
        reuse_constant: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(in_channels, out_channels, aggr, normalize, root_weight, project, bias, **kwargs)
        self.reuse_constant = reuse_constant

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
        source, target = x if isinstance(x, (tuple, list)) else (x, x)
        reduce = fused_reduction(self, SAGEConv, source)
        if reduce is None:
            return self._edge_by_edge(x, edge_index, size, edge_weight)
        ends = end_nodes(edge_index, source, target, size, self.flow)
        adj = to_adjacency(edge_index, edge_weight, ends, flow=self.flow, sparse_tensor_values=False)
        features = constant_features(source, self.reuse_constant)
        if target is not None and self.root_weight:
            target = features if target is source else constant_features(target, self.reuse_constant)
        if self.project:
            features = apply_linear(self.lin, features).relu()
        out, fresh = propagate_and_transform(adj, features, self.lin_l, reduce, self.reuse_constant)
        return self._add_root(out, target, fresh)

    def _add_root(self, out: Tensor, target: Tensor | None, fresh: bool = False) -> Tensor:
        if self.root_weight and target is not None:
            out = add(out, apply_linear(self.lin_r, target), fresh)
        return F.normalize(out, p=2.0, dim=-1) if self.normalize else out

    def _edge_by_edge(
        self, x: Tensor | OptPairTensor, edge_index: Adj | Adjacency, size: Size, edge_weight: OptTensor
    ) -> Tensor:
        x = to_dense(x)
        edges, weight, size = to_edge_list(edge_index, edge_weight, size, self.flow)
        if weight is None:
            out: Tensor = super().forward(x, edges, size)
            return out
        source, target = x if isinstance(x, tuple) else (x, x)
        reduce = weighted_reduction(self, SAGEConv, edges, source)
        num_dst = end_nodes(edge_index, source, target, size, self.flow)[1]
        projected = self.lin(source).relu() if self.project else source
        aggregated = aggregate(projected, edges, weight, num_dst, reduce, flow=self.flow)
        return self._add_root(self.lin_l(aggregated), target)
