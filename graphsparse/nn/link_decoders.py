"""What makes a score of a pair of nodes out of their two vectors."""

from typing import Any

import torch
from torch import Tensor, nn

from graphsparse.utils.eval_mode import eval_mode

#: Pairs that are scored at a time.
CHUNK = 1 << 16
#: Numbers that are gathered at a time for an inner product.
_NUMBERS = 1 << 24


class LinkDecoder(nn.Module):
    """Scores pairs of nodes, higher = more likely a link; without ``directed`` the order in a pair does not matter."""

    def forward(self, h: Tensor, pairs: Tensor) -> Tensor:
        """Return the logits ``[P]`` of pairs ``[2, P]`` of rows of ``h`` ``[n, d]``."""
        raise NotImplementedError


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
        d_left = torch.zeros_like(left) if wanted[0] else None
        d_right = torch.zeros_like(right) if wanted[1] else None
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
    score: Tensor = _PairwiseDot.apply(left, right, pairs)  # type: ignore[no-untyped-call]
    return score


class DotDecoder(LinkDecoder):
    r"""The inner product :math:`s_{uv} = \langle h_u, h_v \rangle`.

    Example:
        >>> DotDecoder()(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[0], [1]]))
        tensor([11.])
    """

    def forward(self, h: Tensor, pairs: Tensor) -> Tensor:
        """Return the logits ``[P]``."""
        return pairwise_dot(h, h, pairs)


class BilinearDecoder(LinkDecoder):
    r"""The bilinear form :math:`s_{uv} = h_u^\top W h_v`, with :math:`W + W^\top` over 2 unless it is directed.

    Args:
        channels: Width of the vectors.
        directed: Whether :math:`s_{uv}` may differ from :math:`s_{vu}`.

    Example:
        >>> decoder, h = BilinearDecoder(3), torch.randn(4, 3)
        >>> forth, back = decoder(h, torch.tensor([[0, 1], [1, 0]]))
        >>> bool((forth - back).abs() < 1e-6)
        True
    """

    def __init__(self, channels: int, *, directed: bool = False) -> None:
        super().__init__()
        self.directed = directed
        self.weight = nn.Parameter(torch.empty(channels, channels))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, h: Tensor, pairs: Tensor) -> Tensor:
        """Return the logits ``[P]``."""
        weight = self.weight if self.directed else (self.weight + self.weight.t()) / 2
        return pairwise_dot(h @ weight, h, pairs)


class ProductMLPDecoder(LinkDecoder):
    r"""A network on the product of the entries, :math:`s_{uv} = \mathrm{MLP}(h_u \odot h_v)`; always symmetric.

    Args:
        channels: Width of the vectors, and of the hidden layer.

    Example:
        >>> ProductMLPDecoder(3)(torch.randn(4, 3), torch.tensor([[0, 1], [2, 3]])).shape
        torch.Size([2])
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.hidden, self.last = nn.Linear(channels, channels), nn.Linear(channels, 1)

    def forward(self, h: Tensor, pairs: Tensor) -> Tensor:
        """Return the logits ``[P]``."""
        score: Tensor = self.last(self.hidden(h[pairs[0]] * h[pairs[1]]).relu()).squeeze(1)
        return score


class ConcatMLPDecoder(LinkDecoder):
    r"""A network on both vectors, :math:`s_{uv} = \frac12 (\mathrm{MLP}(h_u \| h_v) + \mathrm{MLP}(h_v \| h_u))`.

    The first layer is linear in the concatenation, so it is applied to the nodes and not to the pairs.

    Args:
        channels: Width of the vectors, and of the hidden layer.
        directed: Leave the second term out.

    Example:
        >>> decoder, h = ConcatMLPDecoder(3), torch.randn(4, 3)
        >>> forth, back = decoder(h, torch.tensor([[0, 1], [1, 0]]))
        >>> bool((forth - back).abs() < 1e-6)
        True
    """

    def __init__(self, channels: int, *, directed: bool = False) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(channels, channels), nn.Linear(channels, channels, bias=False)
        self.last, self.directed = nn.Linear(channels, 1), directed

    def forward(self, h: Tensor, pairs: Tensor) -> Tensor:
        """Return the logits ``[P]``."""
        first, second = self.first(h), self.second(h)
        u, v = pairs
        score = self._score(first[u] + second[v])
        return score if self.directed else (score + self._score(first[v] + second[u])) / 2

    def _score(self, hidden: Tensor) -> Tensor:
        score: Tensor = self.last(hidden.relu()).squeeze(1)
        return score


#: Names of the decoders.
DECODERS = ("dot", "bilinear", "mlp", "concat")


def check_decoder(name: str, directed: bool = False) -> None:
    """Refuse a name that is none, and a symmetric decoder where the direction of a link is to be told.

    Raises:
        ValueError: If there is no decoder of this name, or it cannot tell directions and has to.
    """
    if name not in DECODERS:
        raise ValueError(f"'decoder' must be one of {DECODERS} (got {name!r})")
    if directed and name in ("dot", "mlp"):
        raise ValueError(
            f"'decoder' must be 'bilinear' or 'concat' for directed links: {name!r} gives (u, v) and (v, u) one score"
        )


def make_decoder(name: str, channels: int, *, directed: bool = False) -> LinkDecoder:
    """Return a fresh decoder.

    Args:
        name: ``"dot"``, ``"bilinear"``, ``"mlp"`` (a network on the product) or ``"concat"`` (one on both vectors).
        channels: Width of the vectors.
        directed: Whether the order in a pair matters.

    Raises:
        ValueError: If there is no decoder of this name, or it cannot tell directions and has to.

    Example:
        >>> make_decoder("bilinear", 8)
        BilinearDecoder()
    """
    check_decoder(name, directed)
    if name == "dot":
        return DotDecoder()
    if name == "bilinear":
        return BilinearDecoder(channels, directed=directed)
    return ProductMLPDecoder(channels) if name == "mlp" else ConcatMLPDecoder(channels, directed=directed)


def score_in_chunks(decoder: nn.Module, h: Tensor, pairs: Tensor, chunk_size: int = CHUNK) -> Tensor:
    """Return the logits of many pairs in evaluation mode and without a gradient, so many at a time.

    Args:
        decoder: Called as ``decoder(h, pairs)``.
        h: Vectors ``[n, d]``.
        pairs: Rows of it, ``[2, P]``, on any device.
        chunk_size: Most pairs at a time.

    Returns:
        Logits ``[P]`` on the device of ``h``.

    Example:
        >>> h, pairs = torch.randn(4, 3), torch.tensor([[0, 1, 2], [3, 2, 0]])
        >>> torch.equal(score_in_chunks(DotDecoder(), h, pairs, chunk_size=2), DotDecoder()(h, pairs))
        True
    """
    with eval_mode(decoder), torch.no_grad():
        parts = [decoder(h, part.to(h.device)) for part in torch.split(pairs, chunk_size, dim=1)]
    return torch.cat(parts) if parts else h.new_empty(0)
