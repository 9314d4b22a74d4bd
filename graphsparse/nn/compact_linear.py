"""A linear layer without the inputs that it ignores and the outputs that it leaves at their bias."""

import torch.nn.functional as F
from torch import Tensor

from graphsparse.nn.frozen_linear import FrozenLinear
from graphsparse.ops import linear


class CompactLinear(FrozenLinear):
    r"""A linear layer that holds its weight without the rows and columns that are zero as a whole.

    The columns of the input that count are gathered, multiplied by the small dense weight, and the result is put in
    its place among the outputs that are only their bias. Nothing is assumed about the layers before and after it.
    How many rows and columns there are to leave out depends on the ticket: few at a sparsity of 0.9, most at 0.99.

    Made from a layer of a model by :func:`~graphsparse.nn.inference_form`. It is for inference: gradients reach the
    input, but there are none for the weight, and it refuses to run in training mode.

    Args:
        weight: The weight, floating point ``[H, F]``.
        bias: The bias ``[H]``, or ``None``.

    Example:
        >>> import torch
        >>> layer = CompactLinear(torch.tensor([[0.0, 2.0], [0.0, 0.0]]), torch.tensor([1.0, 0.0]))
        >>> layer(torch.tensor([[5.0, 3.0]])), layer.small
        (tensor([[7., 0.]]), tensor([[2.]]))
    """

    small: Tensor
    rows: Tensor | None
    columns: Tensor | None

    def hold(self, weight: Tensor) -> None:
        """Keep the rows and columns that are not zero."""
        rows, columns = live_rows(weight), live_rows(weight.t())
        if rows is not None:
            weight = weight.index_select(0, rows)
        self.register_buffer("small", weight.clone() if columns is None else weight.index_select(1, columns))
        self.register_buffer("rows", rows)
        self.register_buffer("columns", columns)

    def dense_weight(self) -> Tensor:
        """Return the weight as a dense tensor ``[H, F]``."""
        weight = self._wide()
        return weight if self.rows is None else self._placed(weight.t()).t().contiguous()

    def multiply(self, x: Tensor) -> Tensor:
        """Return the product with the transposed weight."""
        return self._placed(linear(x if self.columns is None else x.index_select(1, self.columns), self.small))

    def multiply_sparse(self, x: Tensor) -> Tensor:
        """Return the product of a sparse matrix with the transposed weight."""
        return self._placed(F.linear(x, self._wide()))

    def _wide(self) -> Tensor:
        """Return the rows that are left with all of their columns."""
        if self.columns is None:
            return self.small
        return self.small.new_zeros(self.small.size(0), self.in_features).index_copy_(1, self.columns, self.small)

    def _placed(self, out: Tensor) -> Tensor:
        """Put the outputs that are left in their places among all."""
        if self.rows is None:
            return out
        return out.new_zeros(out.size(0), self.out_features).index_copy_(1, self.rows, out)

    def extra_repr(self) -> str:
        """Say the sizes, and those that are left."""
        return f"{super().extra_repr()}, live={self.small.size(1)} -> {self.small.size(0)}"


def live_rows(weight: Tensor) -> Tensor | None:
    """Return the rows of a matrix that are not zero as a whole, int64; ``None`` if those are all.

    Args:
        weight: The matrix.

    Example:
        >>> import torch
        >>> live_rows(torch.tensor([[0.0, 0.0], [0.0, 1.0]])), live_rows(torch.ones(2, 2))
        (tensor([1]), None)
    """
    live = (weight != 0).any(1)
    return None if bool(live.all()) else live.nonzero().squeeze(1)
