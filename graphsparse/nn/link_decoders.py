"""What makes a score of a pair of nodes out of their two vectors."""

from typing import Any

import torch
from torch import Tensor, nn

from graphsparse.ops.traced import is_transformed
from graphsparse.utils.call_model import eval_mode

#: Pairs that are scored at a time.
CHUNK = 1 << 16
#: Numbers that are gathered at a time for an inner product.
_NUMBERS = 1 << 24


class _PairwiseDot(torch.autograd.Function):
    """Inner products of rows, of which neither direction holds more than a chunk of gathered rows."""

    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor, pairs: Tensor) -> Tensor:
        ctx.save_for_backward(left, right, pairs)
        parts = [(left[u] * right[v]).sum(1) for u, v in _few(pairs, left.size(1))]
        return torch.cat(parts) if parts else left.new_empty(0)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor | None, ...]:
        left, right, pairs = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        # Made of the gradient, since that may stand for many.
        d_left = grad[0].new_zeros(left.shape) if wanted[0] else None
        d_right = grad[0].new_zeros(right.shape) if wanted[1] else None
        start = 0
        for u, v in _few(pairs, left.size(1)):
            scale = grad[0][start : start + u.numel(), None]
            start += u.numel()
            if d_left is not None:
                d_left.index_add_(0, u, right[v] * scale)
            if d_right is not None:
                d_right.index_add_(0, v, left[u] * scale)
        return d_left, d_right, None


def _few(pairs: Tensor, width: int) -> tuple[Tensor, ...]:
    """Return pairs, so many at a time as a bounded number of entries of vectors goes with."""
    return torch.split(pairs, max(1, _NUMBERS // max(width, 1)), dim=1) if pairs.size(1) else ()


def pairwise_dot(left: Tensor, right: Tensor, pairs: Tensor) -> Tensor:
    r"""Return the inner product of the two vectors of each pair, :math:`s_{uv} = \langle l_u, r_v \rangle`.

    Differentiable in both matrices. The rows of the pairs are gathered a chunk at a time in both directions, so that
    next to the scores there is no tensor with a row per pair.

    Args:
        left: Vectors ``[n, d]``.
        right: Vectors ``[m, d]``; may be ``left``.
        pairs: Rows of ``left`` and of ``right``, ``[2, P]``.

    Returns:
        Scores ``[P]``.

    Example:
        >>> h = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
        >>> pairwise_dot(h, h, torch.tensor([[0, 1], [1, 1]]))
        tensor([11., 25.])
    """
    if is_transformed():
        return (left[pairs[0]] * right[pairs[1]]).sum(1)
    score: Tensor = _PairwiseDot.apply(left, right, pairs)  # type: ignore[no-untyped-call]
    return score


class DotDecoder(nn.Module):
    r"""The inner product :math:`s_{uv} = \langle h_u, h_v \rangle`.

    Example:
        >>> DotDecoder()(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[0], [1]]))
        tensor([11.])
    """

    def forward(self, h: Tensor, pairs: Tensor) -> Tensor:
        """Return the logits ``[P]`` of pairs ``[2, P]`` of rows of ``h`` ``[n, d]``."""
        return pairwise_dot(h, h, pairs)


class BilinearDecoder(nn.Module):
    r"""The bilinear form :math:`s_{uv} = h_u^\top W h_v`, which tells :math:`(u, v)` from :math:`(v, u)`.

    Args:
        channels: Width of the vectors.

    Example:
        >>> BilinearDecoder(3)(torch.randn(4, 3), torch.tensor([[0, 1], [1, 0]])).shape
        torch.Size([2])
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, channels))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, h: Tensor, pairs: Tensor) -> Tensor:
        """Return the logits ``[P]`` of pairs ``[2, P]`` of rows of ``h`` ``[n, d]``."""
        return pairwise_dot(h @ self.weight, h, pairs)


def make_decoder(channels: int, *, directed: bool) -> nn.Module:
    """Return a fresh decoder for vectors of a width: a bilinear form where links have a direction, or a dot product."""
    return BilinearDecoder(channels) if directed else DotDecoder()


def score_in_chunks(decoder: nn.Module, h: Tensor, pairs: Tensor) -> Tensor:
    """Return the logits of many pairs in evaluation mode and without a gradient, so many at a time.

    The pairs ``[2, P]``, rows of ``h`` ``[n, d]``, may be on any device; the logits are where ``h`` is.
    """
    with eval_mode(decoder), torch.no_grad():
        parts = [decoder(h, part.to(h.device)) for part in torch.split(pairs, CHUNK, dim=1)]
    return torch.cat(parts) if parts else h.new_empty(0)
