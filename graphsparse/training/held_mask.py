"""Weights that are zero from the first step to the last."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from graphsparse.training.step_projection import Exclude, StepProjection


class HeldMask(StepProjection):
    """Keeps chosen weights at zero, from now on and after every step of an optimiser.

    Args:
        optimizer: Any torch optimiser.
        removed: For every parameter that ``exclude`` leaves, in the order of the optimiser, bool of its shape, ``True``
            where it is zero; or a function that makes them for the parameters.
        exclude: Says of a parameter whether it is left alone; by default scalars, biases and normalisation parameters.

    Raises:
        TypeError: If ``optimizer`` has the wrong type.
        ValueError: If the masks do not fit the parameters.

    Example:
        >>> model = torch.nn.Linear(2, 1)
        >>> _ = HeldMask(torch.optim.Adam(model.parameters()), [torch.tensor([[True, False]])])
        >>> int((model.weight == 0).sum())
        1
    """

    def __init__(
        self,
        optimizer: Optimizer,
        removed: Sequence[Tensor] | Callable[[Sequence[Parameter]], Sequence[Tensor]],
        *,
        exclude: Exclude | None = None,
    ) -> None:
        super().__init__(optimizer, exclude)
        masks = removed(self.parameters) if callable(removed) else removed
        wanted, got = ([list(t.shape) for t in tensors] for tensors in (self.parameters, masks))
        if got != wanted or any(mask.dtype != torch.bool for mask in masks):
            raise ValueError(f"'removed' must hold bool masks of the shapes {wanted} (got {got})")
        #: For every parameter, ``True`` where it is zero.
        self.removed: Sequence[Tensor] = [m.to(p.device) for m, p in zip(masks, self.parameters, strict=True)]
        self.project()

    def settings(self) -> dict[str, Any]:
        """Return how many scalars are held at zero, of how many that it covers."""
        return {"zeros": sum(int(mask.sum()) for mask in self.removed), **super().settings()}

    @torch.no_grad()
    def project(self) -> None:
        """Set the masked weights to zero now."""
        for parameter, removed in zip(self.parameters, self.removed, strict=True):
            parameter.masked_fill_(removed, 0)
