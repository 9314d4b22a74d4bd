"""Projection on the l0 ball: the largest weights stay, any weight may come back."""

import warnings
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from graphsparse.ops.check import check_sparsity
from graphsparse.ops.select import mark_smallest, num_removed
from graphsparse.training.step_projection import (
    Exclude,
    Scope,
    StepProjection,
    check_scope,
    set_to_zero,
    smallest_masks,
)

#: Steps after which what they have left is looked at, where that means to wait for a device.
_LOOK_EVERY = 100


class L0Projection(StepProjection):
    r"""Sets the smallest weights to zero after every step of an optimiser.

    With :math:`D` scalars covered and :math:`k = \lfloor \mathrm{sparsity} \cdot D \rfloor`, the Euclidean projection
    on :math:`\{\theta : \|\theta\|_0 \le D - k\}` keeps the :math:`D - k` largest magnitudes. Gradients and the state
    of the optimiser stay dense, so a weight that was set to zero can come back. It attaches itself to the optimiser and
    works in any training loop. On a GPU no step waits for it: what a step has left is looked at every 100 steps there,
    and when the kept weights or a state dict are asked for.

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
        FloatingPointError: In a step that leaves a weight that is not a number, on a GPU when that is looked at.

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
        self._left: dict[str, list[Tensor]] = {}
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
        return 0 if self.total_steps is None or self.target == 0 else self.total_steps

    def support(self) -> list[Tensor]:
        """Return what the last projection kept; what is not 0 before the first."""
        self._look()
        return super().support() if self._removed is None else [~mask for mask in self._removed]

    def state(self) -> dict[str, Any]:
        """Return the number of steps, the zeros of the last projection, and whether they stay where they are."""
        self._look()
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
            self._note("nan", [parameter.isnan().any() for parameter in self.parameters])
            sizes = [parameter.abs() for parameter in self.parameters]
            # Marked without a look for NaN, which was taken above.
            self._removed = smallest_masks(
                sizes, lambda num: num_removed(self.sparsity, num), self.scope, mark_smallest
            )
            self._is_frozen = self.freeze_after is not None and self.num_steps >= self.freeze_after
        set_to_zero(self.parameters, self._removed)
        self._note("empty", [mask.all() for mask in self._removed])
        if self.num_steps % _LOOK_EVERY == 0:
            self._look()

    def _note(self, kind: str, found: list[Tensor]) -> None:
        """Add to what steps have left, one flag for each parameter; on the CPU it is looked at now."""
        before = self._left.get(kind, found)
        self._left[kind] = [old | new for old, new in zip(before, found, strict=True)]
        if all(flag.device.type == "cpu" for flag in found):
            self._look()

    def _look(self) -> None:
        """Read what steps have left since the last look, with one wait for a device."""
        left, self._left = self._left, {}
        flags = [flag for kind in left.values() for flag in kind]
        if not flags:
            return
        numbers = torch.stack([flag.to(flags[0].device) for flag in flags]).view(len(left), -1).tolist()
        found = dict(zip(left, numbers, strict=True))
        if any(found.get("nan", ())):
            raise FloatingPointError(f"a weight is not a number after {self.num_steps} steps")
        for i, empty in enumerate(found.get("empty", ())):
            if empty and i not in self._wiped_out:
                self._wiped_out.add(i)
                shape = list(self.parameters[i].shape)
                warnings.warn(f"L0Projection set a whole tensor of shape {shape} to zero", stacklevel=3)
