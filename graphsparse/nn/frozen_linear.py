"""A linear layer whose weight is held in another form, for inference only."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphsparse.nn.features import LinearInput


class FrozenLinear(nn.Module):
    r"""What the linear layers for inference have in common: :math:`\mathbf{x} \mathbf{W}^T + \mathbf{b}`.

    Everything it holds is a buffer: it moves with the model and is saved with it, but no optimiser sees it. Gradients
    reach the input and go on from there. A subclass holds the weight and says how to multiply by it.

    Args:
        weight: The weight, floating point ``[H, F]``. It is copied.
        bias: The bias ``[H]``, or ``None``. It is copied.

    Raises:
        TypeError: If the weight is no dense floating point tensor.
        ValueError: If it is no matrix, or the bias does not fit it.

    Example:
        >>> import torch
        >>> class AsItIs(FrozenLinear):
        ...     def hold(self, weight):
        ...         self.register_buffer("held", weight.clone())
        ...
        ...     def dense_weight(self):
        ...         return self.held
        ...
        ...     def multiply(self, x):
        ...         return x @ self.held.t()
        >>> AsItIs(torch.eye(2), torch.ones(2))(torch.tensor([1.0, 2.0]))
        tensor([2., 3.])
    """

    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        if not isinstance(weight, Tensor) or not weight.is_floating_point() or weight.layout != torch.strided:
            kind = f"{weight.dtype}, {weight.layout}" if isinstance(weight, Tensor) else type(weight).__name__
            raise TypeError(f"'weight' must be a dense floating point tensor (got {kind})")
        if weight.dim() != 2:
            raise ValueError(f"'weight' must be a matrix [outputs, inputs] (got shape {list(weight.shape)})")
        if bias is not None and bias.shape != weight.shape[:1]:
            raise ValueError(f"'bias' must have one entry per output, [{len(weight)}] (got {list(bias.shape)})")
        self.out_features, self.in_features = weight.shape
        self.hold(weight.detach())
        self.register_buffer("bias", None if bias is None else bias.detach().clone())
        self.training = False

    def hold(self, weight: Tensor) -> None:
        """Keep a weight, in buffers."""
        raise NotImplementedError

    def dense_weight(self) -> Tensor:
        """Return the weight as a dense tensor ``[H, F]``."""
        raise NotImplementedError

    def multiply(self, x: Tensor) -> Tensor:
        """Return the product of a matrix ``[N, F]`` and the transposed weight, as ``[N, H]`` that may be changed."""
        raise NotImplementedError

    def multiply_sparse(self, x: Tensor) -> Tensor:
        """Do as :meth:`multiply` for an input that is sparse: it meets few rows of a weight, so that may be dense."""
        return F.linear(x, self.dense_weight())

    @property
    def weight(self) -> Tensor:
        """The weight as a dense tensor, made anew at every call, for code that looks at the weight of a layer."""
        return self.dense_weight()

    def forward(self, x: Tensor) -> Tensor:
        """Run the layer.

        Args:
            x: Input ``[*, F]``.

        Raises:
            RuntimeError: If the layer is in training mode.
            ValueError: If the input has another width.
        """
        if self.training:
            raise RuntimeError(
                f"{type(self).__name__} is for inference: its weight cannot be trained. Call eval(), or train the "
                "model that it was made from"
            )
        if x.dim() == 0 or x.size(-1) != self.in_features:
            raise ValueError(f"'x' must have {self.in_features} columns (got shape {list(x.shape)})")
        if isinstance(x, LinearInput) or x.layout != torch.strided:
            out = self.multiply_sparse(x)
        else:
            out = self.multiply(x if x.dim() == 2 else x.reshape(-1, self.in_features))
        if self.bias is not None:
            out = out.add_(self.bias)
        return out if x.dim() == 2 else out.view(*x.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        """Say the sizes."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
