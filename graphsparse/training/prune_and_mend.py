"""A mask of one pruning, whose mistakes are mended while a model is trained on."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from graphsparse.ops.check import check_count, check_number, check_sparsity
from graphsparse.ops.ratios import kept_counts
from graphsparse.ops.select import drop_and_grow, smallest_k_mask
from graphsparse.training.step_projection import Exclude, HeldMask


class PruneAndMend(HeldMask):
    r"""Sets the smallest weights to zero once, and then exchanges a falling part of what is kept for others.

    After step :math:`t_0` the smallest weights are removed, the same share of each tensor. Then, every
    :math:`\Delta t` steps, in each tensor with :math:`k` kept weights

    .. math:: \lfloor \tfrac{\alpha}{2} (1 + \cos(\pi (t - t_0) / (t_{end} - t_0))) \, k \rfloor

    of the smallest are dropped, and as many with the largest sum of gradients over the last steps are grown. What was
    just dropped may come back, with its value. What an optimiser remembers of a grown weight is set to 0. The counts
    are exact after every step, and no epoch before :math:`t_0` is ever the best.

    Args:
        optimizer: Any torch optimiser.
        sparsity: Fraction of the covered scalars to remove, in ``[0, 1)``.
        end: :math:`t_{end}`, in steps, after which nothing moves.
        start: :math:`t_0`, in steps; with 0 the initial weights are pruned.
        every: :math:`\Delta t`.
        gradients: How many gradients are added up, those of the last steps.
        fraction: :math:`\alpha`, in ``[0, 1]``.
        bonus: What is added to the size of the sum of a parameter, from what of it is kept: ``(kept) -> tensor``.
        grow_at: Value of what is grown: ``"zero"``, or ``"mean"`` of what is kept.
        exclude: Says of a parameter whether it is left alone and not counted; by default scalars, biases and
            normalisation parameters.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If one is out of range, or nothing is left to mask.

    Example:
        >>> model = torch.nn.Linear(10, 10)
        >>> optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        >>> mask = PruneAndMend(optimizer, 0.6, start=3, end=30, every=5)
        >>> for _ in range(20):
        ...     optimizer.zero_grad()
        ...     model(torch.randn(8, 10)).square().sum().backward()
        ...     optimizer.step()
        >>> int(mask.support()[0].sum())
        40

    Source: the code of *Fast Graph Lottery Tickets* (one-shot pruning and gradual denoising).
    """

    def __init__(
        self,
        optimizer: Optimizer,
        sparsity: float,
        *,
        end: int,
        start: int = 0,
        every: int = 10,
        gradients: int = 1,
        fraction: float = 0.3,
        bonus: Callable[[Tensor], Tensor] | None = None,
        grow_at: Literal["zero", "mean"] = "zero",
        exclude: Exclude | None = None,
    ) -> None:
        self.sparsity, self.fraction = check_sparsity(sparsity), check_number(fraction, "fraction", least=0, most=1)
        self.start, self.end = check_count(start, "start", least=0), check_count(end, "end", least=0)
        self.every, self.gradients = check_count(every, "every"), check_count(gradients, "gradients")
        if gradients > every:
            raise ValueError(f"'gradients' must be at most 'every', which is {every} (got {gradients})")
        if grow_at not in ("zero", "mean"):
            raise ValueError(f"'grow_at' must be 'zero' or 'mean' (got {grow_at!r})")
        self.bonus, self.grow_at = bonus, grow_at
        self._sums: list[Tensor] = []
        super().__init__(optimizer, self._first, exclude=exclude)

    @property
    def holds(self) -> bool:
        """Whether what is kept is as sparse as it shall be."""
        return self.num_steps >= self.start

    @property
    def ramp_steps(self) -> int:
        """Number of steps before that."""
        return self.start

    def settings(self) -> dict[str, Any]:
        """Return what it was built with, as plain values, and how many scalars it covers."""
        names = ("sparsity", "start", "end", "every", "gradients", "fraction", "grow_at")
        return {**{name: getattr(self, name) for name in names}, **super().settings()}

    def state(self) -> dict[str, Any]:
        """Return the number of steps, what is kept, and the sums of gradients."""
        return {**super().state(), "kept": list(self.kept), "sums": list(self._sums)}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`state` returned."""
        super().load_state(state)
        self.kept, self._sums = (
            [one.to(p.device) for one, p in zip(state[name], self.parameters[: len(state[name])], strict=True)]
            for name in ("kept", "sums")
        )

    @torch.no_grad()
    def project(self) -> None:
        """Prune or exchange, where it is time, and set to 0 what is not kept."""
        after = self.num_steps - self.start
        if after == 0 and self.start > 0:
            self.kept = self._pruned(self.parameters)
        elif after > 0 and self.num_steps < self.end:
            if -after % self.every < self.gradients:
                new = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in self.parameters]
                self._sums = [a + b for a, b in zip(self._sums, new, strict=True)] if self._sums else new
            if after % self.every == 0:
                share = self.fraction / 2 * (1 + math.cos(math.pi * after / (self.end - self.start)))
                self.kept = [self._mended(i, share) for i in range(len(self.parameters))]
                self._sums = []
        super().project()

    def _first(self, parameters: Sequence[Parameter]) -> list[Tensor]:
        return [torch.ones_like(p, dtype=torch.bool) for p in parameters] if self.start else self._pruned(parameters)

    def _pruned(self, parameters: Sequence[Parameter]) -> list[Tensor]:
        counts = kept_counts([parameter.shape for parameter in parameters], self.sparsity, "uniform")
        sizes = [parameter.detach().abs() for parameter in parameters]
        rows = zip(sizes, counts, strict=True)
        return [~smallest_k_mask(size.view(-1), size.numel() - k).view_as(size) for size, k in rows]

    def _mended(self, i: int, share: float) -> Tensor:
        parameter, kept, score = self.parameters[i], self.kept[i], self._sums[i].abs()
        if self.bonus is not None:
            score = score + self.bonus(kept)
        new = drop_and_grow(kept, parameter.abs(), score, math.floor(share * int(kept.count_nonzero())))
        grown = new & ~kept
        parameter[grown] = 0.0 if self.grow_at == "zero" else parameter[kept].mean()
        for moment in self.optimizer.state.get(parameter, {}).values():
            if isinstance(moment, Tensor) and moment.shape == parameter.shape:
                moment.masked_fill_(grown, 0)
        return new
