"""Graph isomorphism network without a tensor of messages, with weights."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.nn import conv as pyg
from torch_geometric.typing import Adj, OptPairTensor, OptTensor, Size

from graphsparse.nn.features import LinearInput, to_dense
from graphsparse.nn.fused import FusedConv
from graphsparse.nn.propagate import add
from graphsparse.ops import Adjacency, spmm
from graphsparse.ops.traced import is_transformed


class GINConv(FusedConv, pyg.GINConv):  # type: ignore[misc]
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

    replaces = pyg.GINConv
    has_root = True

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
        return self.run(x, edge_index, edge_weight, size)

    def gather(self, operator: Adjacency, x: Tensor) -> tuple[Tensor, bool]:
        """Return the sum of the neighbours, sparse features in a form that the network takes."""
        if not isinstance(x, LinearInput) or self.reduction not in ("sum", "mean"):
            return super().gather(operator, x)
        reduce = self.reduction
        shape = (operator.num_dst, x.size(1))
        # The sum is as sparse as its parts only before it is taken: a linear layer is applied to the features.
        found = LinearInput(
            x,
            shape,
            lambda weight: spmm(operator, F.linear(x, weight.t()), reduce),
            lambda: spmm(operator, x.to_dense(), reduce),
        )
        return found, False

    def finish(self, near: Tensor, target: OptTensor, fresh: bool, **extra: Any) -> Tensor:
        """Add the node itself, and run the network."""
        scale = self._root_scale(near.dtype)
        if isinstance(near, LinearInput):
            near = near if target is None else _with_root(near, target, scale)
        elif target is not None:
            near = _add_root(near, to_dense(target), scale, fresh)
        elif not fresh:
            near = near.clone()  # who knows what the network does to it
        out: Tensor = self.nn(near)
        return out

    def _root_scale(self, dtype: torch.dtype) -> Tensor | float:
        r"""Return :math:`1 + \epsilon`, as a number where it is not learned: that saves a tensor of its products."""
        # A wider tensor, unlike a number, makes the sum wider, too; reading a number from a GPU would wait for all that
        # was asked of it before.
        wider = torch.promote_types(self.eps.dtype, dtype) != dtype
        if self.eps.requires_grad or is_transformed() or wider or self.eps.device.type != "cpu":
            scale: Tensor = 1 + self.eps
            return scale
        return 1 + float(self.eps)


def _add_root(out: Tensor, root: Tensor, scale: Tensor | float, fresh: bool) -> Tensor:
    return add(out, root, fresh, scale) if isinstance(scale, float) else add(out, scale * root, fresh)


def _with_root(near: LinearInput, target: Tensor, scale: Tensor | float) -> LinearInput:
    def multiply(weight: Tensor) -> Tensor:
        return _add_root(F.linear(near, weight.t()), F.linear(target, weight.t()), scale, False)

    return LinearInput(
        near, (near.size(0), near.size(1)), multiply, lambda: _add_root(near.to_dense(), to_dense(target), scale, False)
    )
