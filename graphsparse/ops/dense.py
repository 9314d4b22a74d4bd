"""Dense products on CPU, by the faster of the two libraries that torch brings along."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from graphsparse.ops.traced import is_batched, is_transformed
from graphsparse.typing import onednn_linear

#: Multiply-accumulates from which on the call of oneDNN costs less than it saves.
_WORTH_IT = 1_000_000
#: Rows of which the gradient of a weight is summed at a time, so that they stay in the cache.
_BLOCK = 2048


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    r"""Return :math:`X W^T + b`, as :func:`torch.nn.functional.linear` does, and faster on some processors.

    Torch multiplies float32 matrices with MKL, which on processors that are not Intel's keeps to AVX2. oneDNN, which
    torch comes with as well, takes AVX-512 where there is one, and is used only there. One thread of
    an AMD EPYC with AVX-512, torch 2.13, in GFLOP/s, torch's own product and this one (``benchmarks/dense.py`` prints
    the table):

    ========================= ============ ======================= ========================
    rows x inputs x outputs   forward      gradient of the input   gradient of the weight
    ========================= ============ ======================= ========================
    2,708 x 448 x 448         102 / 216    89 / 163                102 / 178
    2,708 x 1,433 x 256       98 / 214     82 / 209                99 / 189
    169,343 x 128 x 256       62 / 88      71 / 116                89 / 131
    169,343 x 256 x 256       75 / 126     76 / 130                93 / 138
    169,343 x 256 x 40        50 / 85      34 / 41                 76 / 107
    ========================= ============ ======================= ========================

    ``graphsparse.backends()["onednn"]`` says which one is used here. Everything but float32 matrices on CPU that are
    large enough goes to torch, and so does what is compiled, transformed or cast automatically, and a subclass of a
    tensor as input, weight or bias (a quantised or distributed one, for example).

    Args:
        x: Input ``[N, F]``; any other shape goes to torch.
        weight: Weight ``[H, F]``.
        bias: Bias ``[H]``.

    Returns:
        ``[N, H]``, the same up to rounding.

    Example:
        >>> x, weight = torch.randn(3000, 30), torch.randn(20, 30)
        >>> torch.allclose(linear(x, weight), x @ weight.t(), rtol=1e-5, atol=1e-5)
        True
    """
    if not _is_for_onednn(x, weight, bias):
        return F.linear(x, weight, bias)
    out: Tensor = _Linear.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return out


def _is_for_onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    if is_transformed() or isinstance(onednn_linear(), str):
        return False
    operands = (x, weight) if bias is None else (x, weight, bias)
    # A subclass may stand for a matrix without holding one.
    if any(type(t) not in (Tensor, torch.nn.Parameter) for t in operands):
        return False
    if x.dim() != 2 or weight.dim() != 2 or x.size(1) != weight.size(1):
        return False
    if any(t.dtype != torch.float32 or t.layout != torch.strided or t.device.type != "cpu" for t in operands):
        return False
    if x.size(0) * weight.numel() < _WORTH_IT or torch.is_autocast_enabled("cpu"):
        return False
    return bool(torch.backends.mkldnn.enabled)


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    call: Any = onednn_linear()
    out: Tensor = call(x, weight, bias, "none", [], "")
    return out


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        # A matrix of which no gradient is wanted isn't needed for that of the other.
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight if ctx.needs_input_grad[0] else None)
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        for_bias = gradient.sum(0) if ctx.needs_input_grad[2] else None
        # A gradient of the gradient is wanted, or many gradients at once.
        if torch.is_grad_enabled() or is_transformed() or is_batched(gradient):
            for_x = gradient @ weight if ctx.needs_input_grad[0] else None
            return for_x, gradient.t() @ x if ctx.needs_input_grad[1] else None, for_bias
        gradient = gradient.contiguous()
        for_x = _product(gradient, weight.t()) if ctx.needs_input_grad[0] else None
        return for_x, _of_weight(gradient, x) if ctx.needs_input_grad[1] else None, for_bias


def _of_weight(gradient: Tensor, x: Tensor) -> Tensor:
    out: Tensor | None = None
    for rows, values in zip(torch.split(gradient, _BLOCK), torch.split(x, _BLOCK), strict=True):
        part = _product(rows.t(), values.t())
        out = part if out is None else out.add_(part)
    assert out is not None
    return out
