"""Projection on the l0 ball: the largest weights stay, any weight may come back."""

import warnings
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from graphsparse.ops.check import check_sparsity
from graphsparse.ops.select import num_removed
from graphsparse.training.step_projection import (
    Exclude,
    Scope,
    StepProjection,
    check_scope,
    set_to_zero,
    smallest_masks,
)


class L0Projection(StepProjection):
    r"""Sets the smallest weights to zero after every step of an optimiser.

    With :math:`D` scalars covered and :math:`k = \lfloor \mathrm{sparsity} \cdot D \rfloor`, the Euclidean projection
    on :math:`\{\theta : \|\theta\|_0 \le D - k\}` keeps the :math:`D - k` largest magnitudes. Gradients and the state
    of the optimiser stay dense, so a weight that was set to zero can come back. It attaches itself to the optimiser and
    works in any training loop.

    Args:
        optimizer: Any torch optimiser; its parameters are projected.
        sparsity: Fraction of the covered scalars that is zero after every step, in ``[0, 1)``.
        scope: Rank all scalars together (``"global"``) or tensor by tensor (``"tensor"``).
        exclude: Says of a parameter whether it is left alone and not counted; by default scalars, biases and
            normalisation parameters. ``lambda p: False`` covers everything, as the released code does.
        schedule: ``"constant"``, or ``"cubic"``: :math:`s (1 - (1 - t/T)^3)` after step :math:`t`.
        total_steps: :math:`T`, after which the cubic schedule has reached ``sparsity``.
        freeze_after: Number of steps after which the zeros stay where they are; never when ``None``. A cubic schedule
            must have ended by then.

    Raises:
        TypeError: If ``optimizer`` or ``sparsity`` has the wrong type.
        ValueError: If an argument is out of range or nothing is left to project.
        FloatingPointError: In a step that leaves a weight that is not a number.

    Warns:
        UserWarning: Once for every tensor that becomes zero as a whole, as small last layers may with ``"global"``.

    Example:
        >>> model = torch.nn.Linear(10, 10)
        >>> optimizer = torch.optim.Adam(model.parameters())
        >>> projection = L0Projection(optimizer, sparsity=0.6)
        >>> model(torch.ones(1, 10)).sum().backward()
        >>> optimizer.step()
        >>> int((model.weight == 0).sum())
        60

    Source: Seo et al., *TEDDY*, arXiv 2402.01261, Section 4 (projected gradient descent on the l0 ball).
    """

    def __init__(
        self,
        optimizer: Optimizer,
        sparsity: float,
        *,
        scope: Scope = "global",
        exclude: Exclude | None = None,
        schedule: Literal["constant", "cubic"] = "constant",
        total_steps: int | None = None,
        freeze_after: int | None = None,
    ) -> None:
        self.target = check_sparsity(sparsity)
        check_scope(scope)
        if schedule not in ("constant", "cubic"):
            raise ValueError(f"'schedule' must be 'constant' or 'cubic' (got {schedule!r})")
        if schedule == "cubic" and (total_steps is None or total_steps < 1):
            raise ValueError(f"'total_steps' must be at least 1 for the cubic schedule (got {total_steps})")
        if freeze_after is not None and freeze_after < 1:
            raise ValueError(f"'freeze_after' must be at least 1 (got {freeze_after})")
        if schedule == "cubic" and freeze_after is not None and freeze_after < (total_steps or 0):
            raise ValueError(
                f"'freeze_after' ({freeze_after}) must not be below 'total_steps' ({total_steps}): "
                "'sparsity' would never be reached"
            )
        self.scope = scope
        self.total_steps = total_steps if schedule == "cubic" else None
        self.freeze_after = freeze_after
        self._removed: list[Tensor] | None = None
        self._is_frozen = False
        self._wiped_out: set[int] = set()
        super().__init__(optimizer, exclude)

    def settings(self) -> dict[str, Any]:
        """Return what it was built with, as plain values, and how many scalars it covers."""
        names = ("scope", "total_steps", "freeze_after")
        return {"sparsity": self.target, **{name: getattr(self, name) for name in names}, **super().settings()}

    @property
    def holds(self) -> bool:
        """Whether the schedule has reached its sparsity."""
        return self.num_steps >= self.ramp_steps

    @property
    def ramp_steps(self) -> int:
        """Number of steps before which the schedule has not reached its sparsity."""
        return self.total_steps or 0

    def support(self) -> list[Tensor]:
        """Return what the last projection kept; what is not 0 before the first."""
        return super().support() if self._removed is None else [~mask for mask in self._removed]

    def state(self) -> dict[str, Any]:
        """Return the number of steps, the zeros of the last projection, and whether they stay where they are."""
        return {**super().state(), "removed": self._removed, "is_frozen": self._is_frozen}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`state` returned."""
        super().load_state(state)
        removed, self._is_frozen = state["removed"], state["is_frozen"]
        if removed is not None:
            removed = [mask.to(parameter.device) for mask, parameter in zip(removed, self.parameters, strict=True)]
        self._removed = removed

    @property
    def sparsity(self) -> float:
        """Fraction that the schedule asks for after the steps taken so far."""
        if self.total_steps is None or self.holds:
            return self.target
        return self.target * (1 - (1 - self.num_steps / self.total_steps) ** 3)

    @torch.no_grad()
    def project(self) -> None:
        """Set the smallest weights to zero now."""
        if not self._is_frozen or self._removed is None:
            if any(parameter.isnan().any() for parameter in self.parameters):
                raise FloatingPointError(f"a weight is not a number after {self.num_steps} steps")
            sizes = [parameter.abs() for parameter in self.parameters]
            self._removed = smallest_masks(sizes, lambda num: num_removed(self.sparsity, num), self.scope)
            self._is_frozen = self.freeze_after is not None and self.num_steps >= self.freeze_after
        set_to_zero(self.parameters, self._removed)
        for i, (parameter, mask) in enumerate(zip(self.parameters, self._removed, strict=True)):
            if i not in self._wiped_out and mask.all():
                self._wiped_out.add(i)
                shape = list(parameter.shape)
                warnings.warn(f"L0Projection set a whole tensor of shape {shape} to zero", stacklevel=2)
