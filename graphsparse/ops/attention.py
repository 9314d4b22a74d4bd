"""Attention coefficients: a softmax over the edges into each node, of scores that add up from their ends."""

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.utils import scatter

from graphsparse.ops.kernels import COMPILED
from graphsparse.ops.pattern import Pattern, has_history
from graphsparse.ops.traced import is_batched, is_transformed
from graphsparse.typing import has_module


class Scores(NamedTuple):
    """What a score adds up from.

    Attributes:
        source: The part of the source, ``[num_src, H]``.
        target: The part of the destination, ``[num_dst, H]``, if there is one.
        edge: The part of the edge, ``[E, H]``, if there is one.
    """

    source: Tensor
    target: Tensor | None
    edge: Tensor | None


class Ends(NamedTuple):
    """The ends of the edges.

    Attributes:
        source: Sources ``[E]``.
        target: Destinations ``[E]``.
        num_dst: Number of destinations.
        pattern: The same as a matrix whose edge list is in this order, if there is one.
    """

    source: Tensor
    target: Tensor
    num_dst: int
    pattern: Pattern | None = None


def attention(scores: Scores, ends: Ends, weight: Tensor | None, slope: float) -> Tensor:
    r"""Return attention coefficients :math:`w_{ij} e^{s_{ij}} / \sum_k w_{ik} e^{s_{ik}}`, ``[E, H]``.

    Args:
        scores: Parts of :math:`s_{ij}`, which is a leaky ReLU of their sum.
        ends: Where the edges are.
        weight: Weights of the edges ``[E]``, not negative; ``None`` for 1. One of 0 has a gradient, that of bringing
            the edge back, unless its node has no other.
        slope: Slope of the leaky ReLU.
    """
    parts = [part for part in scores if part is not None]
    known = ends.pattern is not None and parts[0].device.type == "cpu" and has_module("numba")
    known = known and parts[0].dtype in COMPILED and all(part.dtype == parts[0].dtype for part in parts)
    if not known or has_history(weight) or is_transformed() or is_batched(*parts):
        return _by_edges(scores, ends, weight, slope)
    out: Tensor = _Attention.apply(*scores, weight, ends, slope)  # type: ignore[no-untyped-call]
    return out


def _by_edges(scores: Scores, ends: Ends, weight: Tensor | None, slope: float) -> Tensor:
    score = scores.source.index_select(0, ends.source)
    if scores.target is not None:
        score = score + scores.target.index_select(0, ends.target)
    if scores.edge is not None:
        score = score + scores.edge
    return attention_softmax(F.leaky_relu(score, slope), weight, ends.target, ends.num_dst)


class _Attention(torch.autograd.Function):
    """The coefficients by compiled loops; what is derived twice is derived edge by edge."""

    @staticmethod
    def forward(
        ctx: Any,
        source: Tensor,
        target: Tensor | None,
        edge: Tensor | None,
        weight: Tensor | None,
        ends: Ends,
        slope: float,
    ) -> Tensor:
        from graphsparse.ops import compiled

        assert ends.pattern is not None
        weight = None if weight is None else weight.detach().to(source.dtype)
        alpha = compiled.attention(ends.pattern, source, target, edge, weight, slope)
        ctx.ends, ctx.slope = ends, slope
        ctx.save_for_backward(source, target, edge, weight, alpha)
        return alpha

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        from graphsparse.ops import compiled

        source, target, edge, weight, alpha = ctx.saved_tensors
        again = torch.is_grad_enabled()
        if not again and not is_batched(grad):
            found = compiled.attention_gradients(ctx.ends.pattern, source, target, edge, ctx.slope, alpha, grad)
            return *found, None, None, None
        with torch.enable_grad():
            needed = ctx.needs_input_grad[:3]
            parts = [
                part if again or part is None else part.detach().requires_grad_() for part in (source, target, edge)
            ]
            out = _by_edges(Scores(*parts), ctx.ends, weight, ctx.slope)
            wanted = [part for part, wants in zip(parts, needed, strict=True) if wants]
            gradients = iter(torch.autograd.grad(out, wanted, grad, create_graph=again))
        return (*(next(gradients) if wants else None for wants in needed), None, None, None)


def attention_softmax(score: Tensor, edge_weight: Tensor | None, target: Tensor, num_dst: int) -> Tensor:
    r"""Return attention coefficients :math:`w_{ij} e^{s_{ij}} / \sum_k w_{ik} e^{s_{ik}}`.

    Args:
        score: Scores of the edges for each head, ``[E, H]``.
        edge_weight: Weights of the edges ``[E]``, not negative; ``None`` for 1. One of 0 has a gradient, that of
            bringing the edge back, unless its node has no other.
        target: Destinations of the edges, ``[E]``.
        num_dst: Number of destinations.
    """
    if edge_weight is None:
        largest = scatter(score.detach(), target, 0, num_dst, "max")
        share = (score - largest.index_select(0, target)).exp()
        total = scatter(share, target, 0, num_dst, "sum") + 1e-16  # as in PyG
    else:
        weight = edge_weight.view(-1, 1).to(score.dtype)
        # An edge that is no edge must not set the scale: all others could vanish beside it.
        present = score.detach().masked_fill(weight == 0, -torch.inf)
        least = score.new_full((num_dst, score.size(1)), -torch.inf)
        largest = least.scatter_reduce(0, target.view(-1, 1).expand_as(score), present, "amax")
        largest = largest.masked_fill(largest == -torch.inf, 0)
        # Beside the scale it may be larger than any number; what counts is that 0 times it is 0.
        bound = math.log(torch.finfo(score.dtype).max) / 2
        share = (score - largest.index_select(0, target)).clamp(max=bound).exp() * weight
        total = scatter(share, target, 0, num_dst, "sum")
        total = total.masked_fill(total == 0, torch.inf)
    coefficient: Tensor = share / total.index_select(0, target)
    return coefficient
