"""GCNII without a tensor of messages."""

from typing import Any

import torch
from torch import Tensor
from torch_geometric.nn import conv as pyg
from torch_geometric.typing import Adj, OptTensor

from graphsparse.nn.features import to_dense
from graphsparse.nn.gcn_conv import NormalisedConv
from graphsparse.nn.propagate import add
from graphsparse.ops import Adjacency


class GCN2Conv(NormalisedConv, pyg.GCN2Conv):  # type: ignore[misc]
    r"""The graph convolution of GCNII with initial residual and identity mapping, computed as one sparse product.

    .. math::
        \mathbf{X}' = \left( (1 - \alpha) \hat{\mathbf{P}} \mathbf{X} + \alpha \mathbf{X}^{(0)} \right)
        \left( (1 - \beta) \mathbf{I} + \beta \mathbf{\Theta} \right), \qquad
        \hat{\mathbf{P}} = \hat{\mathbf{D}}^{-1/2} (\mathbf{A} + \mathbf{I}) \hat{\mathbf{D}}^{-1/2}

    Arguments, weights and results are those of :class:`torch_geometric.nn.GCN2Conv`. What differs is what differs in
    :class:`~graphsparse.nn.GCNConv`: no tensor of messages is held; ``edge_index`` may be an
    :class:`~graphsparse.ops.Adjacency`, and any other form is converted and normalised once; **an edge of weight 0 is
    the same as no edge**, self-loops included; features that need no gradient and come unchanged for the second time
    are multiplied by the graph once. Where messages are looked at one by one, the layer computes as PyG's does.

    Args:
        channels: Width of input and output.
        alpha: Strength of the initial residual.
        theta: Strength of the identity mapping, :math:`\beta = \log(\theta / \ell + 1)`; ``None`` for
            :math:`\beta = 1`.
        layer: The depth :math:`\ell` of the layer, from 1; with ``theta``.
        shared_weights: ``False`` for a weight of its own for the initial features (GCNII*).
        cached: Keep the normalised graph of the first call, whatever comes later.
        add_self_loops: Add the self-loops that are missing.
        normalize: Normalise the graph.
        reuse_constant: Keep what is computed from constant features. It takes memory for one more copy of them.
        kwargs: Arguments of :class:`torch_geometric.nn.MessagePassing`.

    Example:
        >>> from graphsparse.testing import toy_edge_index
        >>> x = torch.randn(5, 4)
        >>> GCN2Conv(4, alpha=0.1, theta=0.5, layer=1)(x, x, toy_edge_index()).shape
        torch.Size([5, 4])

    Source: Chen et al., arXiv 2007.02133, equation 5.
    """

    replaces = pyg.GCN2Conv

    def forward(self, x: Tensor, x_0: Tensor, edge_index: Adj | Adjacency, edge_weight: OptTensor = None) -> Tensor:
        """Run the layer.

        Args:
            x: Features ``[N, F]``.
            x_0: Initial features ``[N, F]``; rows beyond the first ``N`` are left out.
            edge_index: The graph: ``[2, E]``, ``EdgeIndex``, ``SparseTensor``, torch sparse ``adj_t``, or
                ``Adjacency``.
            edge_weight: Weights of the edges, ``[E]``; not with a matrix, which holds its own values.

        Raises:
            ValueError: If ``x`` is a pair, or does not fit the graph or ``x_0``, or weights come with a matrix, or are
                compiled for an ``aggr`` other than a sum.
        """
        return self.run(x, edge_index, edge_weight, x_0=to_dense(x_0))

    def run(  # type: ignore[override]
        self, x: Any, edge_index: Adj | Adjacency, edge_weight: OptTensor = None, *, x_0: Tensor
    ) -> Tensor:
        """Run the layer, for its ``forward``."""
        if not isinstance(x, (tuple, list)):
            x = to_dense(x)
            if x_0.dim() != 2 or x_0.size(0) < x.size(0) or x_0.size(1) != x.size(-1):
                raise ValueError(f"'x_0' must have the shape of 'x', {list(x.shape)} (got {list(x_0.shape)})")
        return super().run(x, edge_index, edge_weight, x_0=x_0)

    def finish(self, near: Tensor, target: OptTensor, fresh: bool, *, x_0: Tensor) -> Tensor:  # type: ignore[override]
        """Add the initial residual, and map both."""
        near = near.mul_(1 - self.alpha) if fresh else near * (1 - self.alpha)
        x_0 = x_0[: near.size(0)]
        if self.weight2 is None:
            return self._mapped(add(near, x_0, True, self.alpha), self.weight1)
        return self._mapped(near, self.weight1) + self._mapped(self.alpha * x_0, self.weight2)

    def _mapped(self, x: Tensor, weight: Tensor) -> Tensor:
        """Multiply by a weight and the identity."""
        return torch.addmm(x, x, weight, beta=1.0 - self.beta, alpha=self.beta)
