"""Graph isomorphism network without a tensor of messages, with weights."""

from collections.abc import Callable
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.nn import MessagePassing
from torch_geometric.nn import conv as pyg
from torch_geometric.typing import Adj, OptPairTensor, OptTensor, Size

from graphsparse.nn.features import LinearInput, constant_features, to_dense
from graphsparse.nn.gather_scatter import aggregate
from graphsparse.nn.graph import (
    end_nodes,
    fused_reduction,
    to_adjacency,
    to_edge_list,
    weighted_reduction,
)
from graphsparse.nn.propagate import add, propagate
from graphsparse.ops import Adjacency, spmm
from graphsparse.ops.remember import remember


class GINConv(pyg.GINConv):  # type: ignore[misc]
    r"""The graph isomorphism operator with weighted edges, computed as one sparse product.

    .. math::
        \mathbf{x}'_i = h\left( (1 + \epsilon) \, \mathbf{x}_i + \sum_j w_{ij} \mathbf{x}_j \right)

    Arguments, weights and results are those of :class:`torch_geometric.nn.GINConv`. What differs:

    * no tensor of messages is held for ``aggr`` sum, mean, min and max;
    * ``edge_index`` may be an :class:`~graphsparse.ops.Adjacency` too; any other form is converted once, and kept for
      as long as the same, unchanged tensor comes in;
    * it takes ``edge_weight``, and **an edge of weight 0 is the same as no edge**: see
      :func:`~graphsparse.ops.spmm`. The values of an ``Adjacency`` or of a torch ``adj_t`` are weights, those of a
      ``SparseTensor`` are ignored, as PyG does. Weights other than 0 and 1 cost GIN its injectivity;
    * features that need no gradient and come unchanged for the second time are constants: their sum over the
      neighbours is computed once. Sparse ones (torch or torch-sparse) are summed as such, and stay sparse in the first
      linear layer of ``nn`` if what comes out is sparse enough.

    Args:
        nn: The network :math:`h`, from ``[N, in_channels]`` to ``[N, out_channels]``.
        eps: First value of :math:`\epsilon`.
        train_eps: Learn :math:`\epsilon`.
        reuse_constant: Keep what is computed from constant features. It takes memory for one more copy of them.
        kwargs: Arguments of :class:`torch_geometric.nn.MessagePassing`.

    Example:
        >>> from graphsparse.testing import toy_edge_index
        >>> import torch
        >>> GINConv(torch.nn.Linear(4, 2))(torch.randn(5, 4), toy_edge_index()).shape
        torch.Size([5, 2])

    Source: Xu et al., arXiv 1810.00826, equation 4.1.
    """

    SUPPORTS_ADJACENCY = True
    # PyG makes code for these from those of the class it comes from, which may be made code that explains nothing.
    propagate = MessagePassing.propagate
    # PyG looks these up in the source of the class by its name, which is also that of the class it comes from.
    propagate_type: ClassVar[dict[str, Any]] = {"x": OptPairTensor}
    reuse_constant: bool = True

    def __init__(
        self,
        nn: Callable[..., Any],
        eps: float = 0.0,
        train_eps: bool = False,
        *,
        reuse_constant: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(nn, eps, train_eps, **kwargs)
        self.reuse_constant = reuse_constant

    def reset_parameters(self) -> None:
        """Draw new weights, and give epsilon its first value."""
        super().reset_parameters()
        with torch.no_grad():  # PyG's own way is not counted as a change
            self.eps.fill_(self.initial_eps)

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
        reduce = fused_reduction(self, GINConv, source)
        if reduce is None:
            return self._edge_by_edge(x, edge_index, size, edge_weight)
        ends = end_nodes(edge_index, source, target, size, self.flow)
        adj = to_adjacency(edge_index, edge_weight, ends, flow=self.flow, sparse_tensor_values=False)
        scale = self._root_scale()
        features = constant_features(source, self.reuse_constant)
        if target is not None:
            target = features if target is source else constant_features(target, self.reuse_constant)
        if isinstance(features, LinearInput) and reduce in ("sum", "mean"):
            out: Tensor = self.nn(_sum(adj, features, target, reduce, scale))
            return out
        aggregated, fresh = propagate(adj, features, reduce, self.reuse_constant)
        if target is not None:
            aggregated = _add_root(aggregated, to_dense(target), scale, fresh)
        elif not fresh:
            aggregated = aggregated.clone()  # who knows what the network does to it
        result: Tensor = self.nn(aggregated)
        return result

    def _root_scale(self) -> Tensor | float:
        r"""Return :math:`1 + \epsilon`, as a number where it is not learned: that saves a tensor of its products."""
        if self.eps.requires_grad:
            scale: Tensor = 1 + self.eps
            return scale
        if self.eps.device.type == "cpu":
            return 1 + float(self.eps)
        # Reading a number from a GPU waits for all that was asked of it before.
        return remember([self.eps], "number", lambda: 1 + float(self.eps))

    def _edge_by_edge(
        self, x: Tensor | OptPairTensor, edge_index: Adj | Adjacency, size: Size, edge_weight: OptTensor
    ) -> Tensor:
        x = to_dense(x)
        edges, weight, size = to_edge_list(edge_index, edge_weight, size, self.flow)
        if weight is None:
            out: Tensor = super().forward(x, edges, size)
            return out
        source, target = x if isinstance(x, tuple) else (x, x)
        reduce = weighted_reduction(self, GINConv, edges, source)
        num_dst = end_nodes(edge_index, source, target, size, self.flow)[1]
        aggregated = aggregate(source, edges, weight, num_dst, reduce, flow=self.flow)
        result: Tensor = self.nn(aggregated if target is None else aggregated + (1 + self.eps) * target)
        return result


def _add_root(out: Tensor, root: Tensor, scale: Tensor | float, fresh: bool) -> Tensor:
    return add(out, root, fresh, scale) if isinstance(scale, float) else add(out, scale * root, fresh)


def _sum(adj: Adjacency, source: LinearInput, target: OptTensor, reduce: str, scale: Tensor | float) -> LinearInput:
    """Return the sum over the neighbours and the node itself, which is as sparse as its parts only before it is taken.

    So a linear layer is applied to the features, and its results are summed.
    """

    def multiply(weight: Tensor) -> Tensor:
        out = spmm(adj, F.linear(source, weight.t()), reduce)
        return out if target is None else _add_root(out, F.linear(target, weight.t()), scale, False)

    def dense() -> Tensor:
        out = spmm(adj, source.to_dense(), reduce)
        return out if target is None else _add_root(out, to_dense(target), scale, False)

    return LinearInput(source, (adj.num_dst, source.size(1)), multiply, dense)
