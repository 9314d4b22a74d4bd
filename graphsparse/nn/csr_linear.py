"""A linear layer whose weight is held in compressed rows."""

import torch
from torch import Tensor

from graphsparse.nn.frozen_linear import FrozenLinear
from graphsparse.ops import Adjacency, spmm
from graphsparse.ops.pattern import Pattern

#: Rows of the input that are multiplied at a time on CPU. They are transposed for it, and should stay in the cache.
_BLOCK = 512


class CSRLinear(FrozenLinear):
    r"""A linear layer that holds only the entries of its weight that are not zero, and multiplies only by these.

    The product is :math:`(\mathbf{W} \mathbf{x}^T)^T`, by :func:`graphsparse.ops.spmm`, in blocks of rows of the input
    that stay in the cache while they are transposed. An entry takes 8 bytes in float32, and 4 in a dense weight, which
    saves memory from a sparsity of one half on. Milliseconds for an input of 2708 rows, one thread of an AMD EPYC
    that was also at other work, torch 2.13 (``benchmarks/untrained_inference.py`` prints the table):

    =========== ======= ========== =========================== ==== =========
    weight      density dense, MKL dense, ops.linear           here torch CSR
    =========== ======= ========== =========================== ==== =========
    448 x 448   10 %    15.4       9.4                         9.5  36.8
    448 x 448   5 %     15.9       9.4                         5.8  21.8
    448 x 448   2 %     15.4       9.5                         2.7  11.5
    448 x 448   1 %     15.4       9.3                         2.6  2.7
    1024 x 1024 10 %    86.2       40.6                        37.8 181.8
    1024 x 1024 5 %     88.4       40.2                        24.1 100.2
    1024 x 1024 2 %     90.0       44.9                        16.7 47.3
    1024 x 1024 1 %     89.4       42.4                        11.7 31.1
    =========== ======= ========== =========================== ==== =========

    Made from a layer of a model by :func:`~graphsparse.nn.inference_form`. It is for inference: gradients reach the
    input, but there are none for the weight, and it refuses to run in training mode. An entry that is zero is left out
    even where the input is infinite, which gives NaN in a dense product. An input that is known to be sparse is
    multiplied by the weight as a dense matrix, made for the call: that is the faster.

    Args:
        weight: The weight, floating point ``[H, F]``.
        bias: The bias ``[H]``, or ``None``.

    Example:
        >>> layer = CSRLinear(torch.tensor([[0.0, 2.0], [0.0, 0.0]]), torch.tensor([1.0, 0.0]))
        >>> layer(torch.tensor([[5.0, 3.0]])), layer.value
        (tensor([[7., 0.]]), tensor([2.]))
    """

    rowptr: Tensor
    col: Tensor
    value: Tensor

    def hold(self, weight: Tensor) -> None:
        """Keep the entries that are not zero."""
        matrix = Adjacency.from_torch_csr(weight.to_sparse_csr())
        assert matrix.value is not None
        self.register_buffer("rowptr", matrix.rowptr)
        self.register_buffer("col", matrix.col)
        self.register_buffer("value", matrix.value)

    def _matrix(self) -> Adjacency:
        return Adjacency(Pattern(self.rowptr, self.col, self.in_features), self.value)

    def dense_weight(self) -> Tensor:
        """Return the weight as a dense tensor ``[H, F]``."""
        return self._matrix().to_torch_csr().to_dense()

    def multiply(self, x: Tensor) -> Tensor:
        """Return the product with the transposed weight."""
        matrix = self._matrix()
        if x.device.type != "cpu" or (torch.is_grad_enabled() and x.requires_grad):
            return spmm(matrix, x.t()).t().contiguous()
        out = x.new_empty(x.size(0), self.out_features)
        for start in range(0, x.size(0), _BLOCK):
            out[start : start + _BLOCK] = spmm(matrix, x[start : start + _BLOCK].t()).t()
        return out

    def extra_repr(self) -> str:
        """Say the sizes, and how many entries are left."""
        return f"{super().extra_repr()}, nonzero={self.value.numel()}"
