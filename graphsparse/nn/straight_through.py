"""Frozen weights times a mask whose gradient goes straight to the scores, all tensors in flat vectors."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from graphsparse.nn.parameter_roles import ParameterRole


class MaskedTensor(NamedTuple):
    """Where one tensor lies in the flat weights and the flat scores.

    Args:
        shape: Sizes of the tensor.
        weight: First of its weights.
        score: First of its scores.
        columns: Whether there is one score per column of the last dimension, in place of one per entry.
    """

    shape: tuple[int, ...]
    weight: int
    score: int
    columns: bool

    def of_weights(self, flat: Tensor) -> Tensor:
        """Return the view of the flat weights that belongs to the tensor."""
        return flat[self.weight : self.weight + self.numel].view(self.shape)

    def of_scores(self, flat: Tensor) -> Tensor:
        """Return the view of the flat scores, of the tensor's shape or ``[columns]``."""
        part = flat[self.score : self.score + self.num_scores]
        return part if self.columns else part.view(self.shape)

    @property
    def numel(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)

    @property
    def num_scores(self) -> int:
        """Number of scores."""
        return self.shape[-1] if self.columns else self.numel


def lay_out(entries: Sequence[ParameterRole]) -> tuple[dict[str, MaskedTensor], dict[str, MaskedTensor]]:
    """Place frozen tensors one after another: those with a mask, and those without, by their first names.

    Example:
        >>> from graphsparse.nn.parameter_roles import parameter_roles
        >>> masked, _ = lay_out(parameter_roles(torch.nn.Linear(3, 2, bias=False)))
        >>> masked["weight"].shape
        (2, 3)
    """
    masked: dict[str, MaskedTensor] = {}
    dense: dict[str, MaskedTensor] = {}
    weight = score = 0
    for entry in entries:
        place = MaskedTensor(tuple(entry.parameter.shape), weight, score, entry.role == "columns")
        weight += place.numel
        if entry.role == "dense":
            dense[entry.names[0]] = place
        else:
            masked[entry.names[0]] = place
            score += place.num_scores
    return masked, dense


Layout: TypeAlias = tuple[MaskedTensor, ...]


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, scores: Tensor, frozen: Tensor, counts: Tensor, layout: Layout, coats: int, absolute: bool
    ) -> tuple[Tensor, ...]:
        ctx.layout, ctx.coats, ctx.num, ctx.dtype = layout, coats, scores.numel(), scores.dtype
        # The mask is not needed, and the sign of the scores only where their absolute value is ranked. Both are held,
        # not saved: each reentrant checkpoint goes backward by itself, and what is saved is gone after the first.
        ctx.frozen, ctx.signs = frozen, scores.detach().sign().to(torch.int8) if absolute else None
        ctx.set_materialize_grads(False)
        # A product with uint8 is forty times faster on CPU than one with bool.
        return tuple(entry.of_weights(frozen) * entry.of_scores(counts) for entry in layout)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        frozen = ctx.frozen
        flat = torch.empty(ctx.num, dtype=ctx.dtype, device=frozen.device)
        for entry, gradient in zip(ctx.layout, gradients, strict=True):
            part = entry.of_scores(flat)
            if gradient is None:
                part.zero_()
                continue
            gradient = gradient.to_dense()  # an embedding may send a sparse one; others are not copied
            weights = entry.of_weights(frozen)
            if entry.columns:
                part.copy_((gradient * weights).reshape(-1, part.numel()).sum(0))
            else:
                part.copy_(gradient).mul_(weights)
        if ctx.coats > 1:
            flat.mul_(ctx.coats)
        if ctx.signs is not None:
            flat.mul_(ctx.signs)
        return flat, None, None, None, None, None


def straight_through(
    scores: Tensor,
    frozen: Tensor,
    counts: Tensor,
    layout: Sequence[MaskedTensor],
    *,
    coats: int = 1,
    absolute: bool = False,
) -> tuple[Tensor, ...]:
    r"""Return frozen weights times the number of coats that keep them, with a gradient for the scores.

    .. math::
        \tilde W = W \odot M, \qquad
        \frac{\partial L}{\partial S} := N \, \frac{\partial L}{\partial \tilde W} \odot W \;
        [\odot \, \mathrm{sign}(S)]

    as if each of the :math:`N` masks were the identity of the scores, or of their absolute values. Weights that are
    masked out get a gradient as well, and so may return.

    Args:
        scores: Flat scores ``[n]``.
        frozen: Flat frozen weights; they get no gradient.
        counts: uint8 ``[n]``: how many coats keep a score.
        layout: Where the tensors lie.
        coats: Number of coats.
        absolute: Whether the absolute values of the scores were ranked.

    Returns:
        One tensor for every entry of ``layout``.

    Example:
        >>> layout = [MaskedTensor(shape=(1, 2), weight=0, score=0, columns=False)]
        >>> scores = torch.tensor([0.1, 0.2], requires_grad=True)
        >>> counts = torch.tensor([0, 1], dtype=torch.uint8)
        >>> (weight,) = straight_through(scores, torch.tensor([3.0, 5.0]), counts, layout)
        >>> weight.sum().backward()
        >>> weight.tolist(), scores.grad.tolist()
        ([[0.0, 5.0]], [3.0, 5.0])

    Source: Ramanujan et al., arXiv 1911.13299, Section 3.
    """
    weights: tuple[Tensor, ...] = _StraightThrough.apply(  # type: ignore[no-untyped-call]
        scores, frozen, counts, tuple(layout), coats, absolute
    )
    return weights
