"""A projection of the weights after every step of an optimiser."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from graphsparse.ops.select import smallest_k_mask

Scope: TypeAlias = Literal["global", "tensor"]
#: Says of a parameter whether it is left alone.
Exclude: TypeAlias = Callable[[Tensor], bool]


def is_not_a_matrix(parameter: Tensor) -> bool:
    """Tell scalars, biases and the scales of normalisation layers from weights: they have fewer than two dimensions."""
    return parameter.dim() < 2


def smallest_masks(values: Sequence[Tensor], count: Callable[[int], int], scope: Scope) -> list[Tensor]:
    """Mark the smallest entries of several tensors, ranked together or tensor by tensor.

    Args:
        values: The tensors.
        count: How many of ``n`` entries to mark.
        scope: ``"global"`` ranks all entries together, ``"tensor"`` those of each tensor.

    Returns:
        A bool tensor for every tensor, ``True`` at its marked entries; ties go to the first.
    """
    if scope == "tensor":
        return [smallest_k_mask(v.reshape(-1), count(v.numel())).view(v.shape) for v in values]
    flat = torch.cat([v.reshape(-1) for v in values])
    parts = torch.split(smallest_k_mask(flat, count(flat.numel())), [v.numel() for v in values])
    return [part.view(v.shape) for part, v in zip(parts, values, strict=True)]


#: Where the state of the first projection of an optimiser is kept in its state dict.
KEY = "step_projection"


class StepProjection:
    """Calls :meth:`project` after every step of an optimiser, whoever runs the training loop.

    What it must know to go on, such as the number of steps, is part of the state dict of the optimiser, and comes back
    with it.

    Args:
        optimizer: Any torch optimiser; its trainable parameters are projected, a tied one once.
        exclude: Says of a parameter whether it is left alone; by default scalars, biases and normalisation parameters,
            that is all with fewer than two dimensions.
    """

    def __init__(self, optimizer: Optimizer, exclude: Exclude | None = None) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"'optimizer' must be a torch.optim.Optimizer (got {type(optimizer).__name__})")
        exclude = is_not_a_matrix if exclude is None else exclude
        if not callable(exclude):
            raise TypeError(f"'exclude' must be a function of a parameter (got {exclude!r})")
        # A dictionary, because a tied parameter may be listed twice and counts once.
        listed = {id(p): p for group in optimizer.param_groups for p in group["params"]}
        #: The parameters that are projected.
        self.parameters: list[Parameter] = [p for p in listed.values() if p.requires_grad and not exclude(p)]
        if not self.parameters:
            raise ValueError("'optimizer' holds no parameter that 'exclude' leaves")
        self.num_steps = 0
        others = sum(key.startswith(KEY) for key in optimizer.state_dict())
        self._key = f"{KEY}.{others}" if others else KEY
        self._handles = (
            optimizer.register_step_post_hook(self._after_step),
            optimizer.register_state_dict_post_hook(self._save),
            optimizer.register_load_state_dict_pre_hook(self._load),
        )

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in self.settings().items())
        return f"{type(self).__name__}({options})"

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self.num_steps += 1
        self.project()

    def _save(self, optimizer: Optimizer, state: dict[str, Any]) -> None:
        state[self._key] = {"settings": repr(self), **self.state()}

    def _load(self, optimizer: Optimizer, state: dict[str, Any]) -> None:
        if self._key in state:
            self.load_state(state[self._key])

    def settings(self) -> dict[str, Any]:
        """Return what it was built with, as plain values, and how many scalars it covers."""
        return {"scalars": sum(parameter.numel() for parameter in self.parameters)}

    def state(self) -> dict[str, Any]:
        """Return what changes from step to step."""
        return {"num_steps": self.num_steps}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`state` returned."""
        self.num_steps = state["num_steps"]

    def project(self) -> None:
        """Project the parameters now."""
        raise NotImplementedError

    def remove(self) -> None:
        """Detach from the optimiser; the parameters stay as they are."""
        for handle in self._handles:
            handle.remove()


def check_scope(scope: str) -> None:
    """Refuse an unknown scope."""
    if scope not in ("global", "tensor"):
        raise ValueError(f"'scope' must be 'global' or 'tensor' (got {scope!r})")
