"""A mask that moves while a model is trained: small weights are dropped, and as many others grown."""

import math
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from graphsparse.ops.check import check_count, check_integer, check_share
from graphsparse.ops.select import drop_and_grow
from graphsparse.training.step_projection import Exclude, FixedMask

#: By what weights are grown.
Growth: TypeAlias = Literal["gradient", "random"]
#: What becomes of the optimiser's moments of a weight that is grown.
Moments: TypeAlias = Literal["reset", "keep"]


class DropAndGrow(FixedMask):
    r"""Keeps a given number of weights of each tensor, and exchanges the smallest of them for others now and then.

    It begins as :class:`FixedMask` does. After step :math:`t`, every :math:`\Delta t` steps and before step
    :math:`t_{end}`, in each tensor with :math:`k` kept weights

    .. math:: n = \lfloor \tfrac{\alpha}{2} (1 + \cos(\pi t / t_{end})) \, k \rfloor

    kept weights of smallest magnitude are dropped, and of all that are not kept then the :math:`n` of largest score are
    grown. A dropped weight may come back, and keeps its value. What is grown starts from 0, in its moments, too: it is
    kept although it is 0, and :meth:`support` says so. The counts are exact after every step.

    A rule with another score is a subclass with :meth:`grow_score`.

    Args:
        optimizer: Any torch optimiser; its parameters are masked.
        sparsity: Fraction of the covered scalars to keep at zero, in ``[0, 1)``.
        end: :math:`t_{end}`, in steps.
        growth: Grow by the magnitude of the gradient (``"gradient"``, RigL) or by chance (``"random"``, SET).
        every: :math:`\Delta t`, in steps; 0 never moves the mask.
        fraction: :math:`\alpha`, the fraction of the kept weights that is exchanged at first, in ``[0, 1]``.
        scope: How many of each tensor are kept, see :class:`FixedMask`.
        accumulate: Mean magnitude of so many gradients, those of the last steps, for the score: with batches, one
            gradient says little.
        moments: ``"reset"`` sets what the optimiser remembers of a grown weight to 0, ``"keep"`` leaves it.
        exclude: Says of a parameter whether it is left alone and not counted; by default scalars, biases and
            normalisation parameters.
        seed: Seed of the first mask, and of growth by chance.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If one is out of range, or nothing is left to mask; in a step, if a score has another shape.
        FloatingPointError: In a step that moves the mask, if a weight or a score is not a number.

    Example:
        >>> model = torch.nn.Linear(10, 10)
        >>> optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        >>> mask = DropAndGrow(optimizer, 0.6, end=30, every=5)
        >>> for _ in range(20):
        ...     optimizer.zero_grad()
        ...     model(torch.randn(8, 10)).square().sum().backward()
        ...     optimizer.step()
        >>> int(mask.support()[0].sum()), mask.explored > 0.4
        (40, True)

    Source: Mocanu et al., Nature Communications 9, 2018 (SET); Evci et al., *Rigging the Lottery*, arXiv 1911.11134,
    Section 3 (RigL); Liu et al., *Do We Actually Need Dense Over-Parameterization?*, arXiv 2102.02887, Section 3 (what
    is explored).
    """

    def __init__(
        self,
        optimizer: Optimizer,
        sparsity: float,
        *,
        end: int,
        growth: Growth = "gradient",
        every: int = 10,
        fraction: float = 0.3,
        scope: Literal["erk", "tensor", "global"] = "erk",
        accumulate: int = 1,
        moments: Moments = "reset",
        exclude: Exclude | None = None,
        seed: int = 0,
    ) -> None:
        check_move(growth, every, fraction, accumulate, moments)
        self.growth, self.every, self.fraction, self.end = growth, every, fraction, check_count(end, "end", 0)
        self.accumulate, self.moments, self.seed = accumulate, moments, check_integer(seed, "seed")
        self._slopes: list[Tensor] = []
        super().__init__(optimizer, sparsity, scope=scope, exclude=exclude, seed=seed)
        #: For every parameter, ``True`` where it was ever kept.
        self.fired: list[Tensor] = list(self.kept)

    @property
    def explored(self) -> float:
        """Fraction of the covered scalars that were ever kept."""
        return sum(int(mask.sum()) for mask in self.fired) / sum(mask.numel() for mask in self.fired)

    def settings(self) -> dict[str, Any]:
        """Return what it was built with, as plain values, and how many scalars it covers."""
        names = ("growth", "every", "fraction", "end", "accumulate", "moments", "seed")
        return {**{name: getattr(self, name) for name in names}, **super().settings()}

    def state(self) -> dict[str, Any]:
        """Return the number of steps, what is kept and was ever kept, and the gradients of the last steps."""
        return {**super().state(), "kept": list(self.kept), "fired": self.fired, "slopes": self._slopes}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`state` returned."""
        super().load_state(state)
        self.kept, self.fired, self._slopes = (
            [one.to(p.device) for one, p in zip(state[name], self.parameters[: len(state[name])], strict=True)]
            for name in ("kept", "fired", "slopes")
        )

    def grow_score(self, parameter: Parameter) -> Tensor:
        """Return a score for every entry of a parameter; the largest of those that are not kept are grown."""
        index = next(i for i, other in enumerate(self.parameters) if other is parameter)
        if self.growth == "gradient":
            return self._slopes[index] / self.accumulate
        # A stream for every move and tensor: where a training goes on, nothing but the number of steps is needed.
        mixed = (self.seed * 1_000_003 + self.num_steps) * 1_000_003 + index
        generator = torch.Generator().manual_seed((mixed + 1) * 0x9E3779B97F4A7C15 % 2**63)
        return torch.rand(parameter.shape, generator=generator, dtype=torch.float64).to(parameter.device)

    def _checked_score(self, parameter: Parameter) -> Tensor:
        score = self.grow_score(parameter)
        if not isinstance(score, Tensor) or score.shape != parameter.shape:
            got = list(score.shape) if isinstance(score, Tensor) else type(score).__name__
            raise ValueError(f"'grow_score' must return a score for each weight, {list(parameter.shape)} (got {got})")
        if bool((parameter.isnan() | score.isnan()).any()):
            raise FloatingPointError(f"a weight, or the score of one, is not a number after {self.num_steps} steps")
        return score

    @torch.no_grad()
    def project(self) -> None:
        """Move the masks if it is time, and set the masked weights to zero."""
        if self.every > 0 and 0 < self.num_steps < self.end:
            until = -self.num_steps % self.every
            if self.growth == "gradient" and until < self.accumulate:
                new = [_magnitude(parameter.grad, parameter) for parameter in self.parameters]
                self._slopes = [a + b for a, b in zip(self._slopes, new, strict=True)] if self._slopes else new
            if until == 0:
                self._move()
                self._slopes = []
        super().project()

    def _move(self) -> None:
        share = self.fraction / 2 * (1 + math.cos(math.pi * self.num_steps / self.end))
        moved = []
        for parameter, old in zip(self.parameters, self.kept, strict=True):
            number = math.floor(share * int(old.sum()))
            new = drop_and_grow(old, parameter.abs(), self._checked_score(parameter), number)
            grown = new & ~old
            parameter.masked_fill_(grown, 0)
            moments = self.optimizer.state.get(parameter, {}) if self.moments == "reset" else {}
            for name, value in moments.items():
                if isinstance(value, Tensor) and value.shape == parameter.shape and name != "step":
                    value.masked_fill_(grown, 0)
            moved.append(new)
        self.kept = moved
        self.fired = [before | now for before, now in zip(self.fired, moved, strict=True)]


def check_move(growth: str, every: int, fraction: float, accumulate: int = 1, moments: str = "reset") -> None:
    """Refuse options of a moving mask that are out of range."""
    if growth not in ("gradient", "random"):
        raise ValueError(f"'growth' must be 'gradient' or 'random' (got {growth!r})")
    check_count(every, "every", 0)
    check_share(fraction, "fraction")
    check_count(accumulate, "accumulate")
    if every > 0 and accumulate > every:
        raise ValueError(f"'accumulate' must be at most 'every', which is {every} (got {accumulate})")
    if moments not in ("reset", "keep"):
        raise ValueError(f"'moments' must be 'reset' or 'keep' (got {moments!r})")


def _magnitude(gradient: Tensor | None, parameter: Tensor) -> Tensor:
    """Return the magnitude of a gradient, 0 where a step had none."""
    return torch.zeros_like(parameter) if gradient is None else gradient.abs()
