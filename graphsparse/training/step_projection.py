"""Projections of the weights after every step of an optimiser."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import Parameter
from torch.optim import Optimizer

from graphsparse.ops.check import check_sparsity
from graphsparse.ops.select import num_removed, smallest_k_mask

Scope: TypeAlias = Literal["global", "tensor"]
#: Says of a parameter whether it is left alone.
Exclude: TypeAlias = Callable[[Tensor], bool]


def is_not_a_matrix(parameter: Tensor) -> bool:
    """Tell single numbers, biases and the scales of normalisation layers from weights: these have two dimensions."""
    return parameter.dim() < 2 or parameter.numel() == 1


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

    A new rule is a subclass with :meth:`project`, which changes ``self.parameters`` in place; ``self.optimizer`` gives
    it gradients and moments, ``self.num_steps`` the number of steps taken. A rule with a ramp says by :attr:`holds`
    when it is over, so that :func:`~graphsparse.training.fit` counts no epoch before; one that knows what it kept
    says so by :meth:`support`. What it must know to go on after a kill belongs into :meth:`state`, which is part of
    the state dict of the optimiser, and comes back with it.

    Args:
        optimizer: Any torch optimiser; its trainable parameters are projected, a tied one once.
        exclude: Says of a parameter whether it is left alone; by default scalars, biases and normalisation parameters,
            that is all with fewer than two dimensions.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If nothing is left to project.

    Example:
        >>> class Clip(StepProjection):
        ...     def project(self):
        ...         for parameter in self.parameters:
        ...             parameter.data.clamp_(-0.1, 0.1)
        >>> model = torch.nn.Linear(4, 4)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        >>> _ = Clip(optimizer)
        >>> model(torch.ones(1, 4)).sum().backward()
        >>> optimizer.step()
        >>> bool(model.weight.abs().max() <= 0.1)
        True
    """

    def __init__(self, optimizer: Optimizer, exclude: Exclude | None = None) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"'optimizer' must be a torch.optim.Optimizer (got {type(optimizer).__name__})")
        exclude = is_not_a_matrix if exclude is None else exclude
        if not callable(exclude):
            raise TypeError(f"'exclude' must be a function of a parameter (got {exclude!r})")
        self.optimizer = optimizer
        # A dictionary, because a tied parameter may be listed twice and counts once.
        listed = {id(p): p for group in optimizer.param_groups for p in group["params"]}
        #: The parameters that are projected.
        self.parameters: list[Parameter] = [p for p in listed.values() if p.requires_grad and not exclude(p)]
        if not self.parameters:
            raise ValueError("'optimizer' holds no parameter that 'exclude' leaves")
        self.num_steps = 0
        others = len(projections_of(optimizer))
        self._key = f"{KEY}.{others}" if others else KEY
        self._handles = (
            optimizer.register_step_post_hook(self._after_step),
            optimizer.register_state_dict_post_hook(self._save),
            optimizer.register_load_state_dict_pre_hook(self._load),
        )

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in self.settings().items())
        return f"{type(self).__name__}({options})"

    @property
    def holds(self) -> bool:
        """Whether the constraint is that of the end; ``False`` within a ramp."""
        return True

    def project(self) -> None:
        """Project the parameters now."""
        raise NotImplementedError

    def support(self) -> list[Tensor]:
        """Return for every parameter which entries are kept, bool of its shape; those that are not 0 by default."""
        return [parameter.detach() != 0 for parameter in self.parameters]

    def settings(self) -> dict[str, Any]:
        """Return what it was built with, as plain values, and how many scalars it covers."""
        return {"scalars": sum(parameter.numel() for parameter in self.parameters)}

    def state(self) -> dict[str, Any]:
        """Return what changes from step to step, in tensors and plain values."""
        return {"num_steps": self.num_steps}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`state` returned."""
        self.num_steps = state["num_steps"]

    def remove(self) -> None:
        """Detach from the optimiser; the parameters stay as they are."""
        for handle in self._handles:
            handle.remove()

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self.num_steps += 1
        self.project()

    def _save(self, optimizer: Optimizer, state: dict[str, Any]) -> None:
        state[self._key] = {"settings": repr(self), **self.state()}

    def _load(self, optimizer: Optimizer, state: dict[str, Any]) -> None:
        if self._key in state:
            self.load_state(state[self._key])


def projections_of(optimizer: Optimizer) -> list[StepProjection]:
    """Return the projections that are attached to an optimiser."""
    owners = [getattr(hook, "__self__", None) for hook in optimizer._optimizer_step_post_hooks.values()]
    return [owner for owner in owners if isinstance(owner, StepProjection)]


def kept_weights(model: nn.Module, projections: Sequence[StepProjection]) -> dict[str, Tensor]:
    """Return the kept entries of all parameters that projections cover, by each of a parameter's names."""
    kept: dict[int, Tensor] = {}
    for projection in projections:
        for parameter, mask in zip(projection.parameters, projection.support(), strict=True):
            both = kept.get(id(parameter))
            kept[id(parameter)] = mask.clone() if both is None else both & mask
    named = model.named_parameters(remove_duplicate=False)
    return {name: kept[id(parameter)] for name, parameter in named if id(parameter) in kept}


class HeldMask(StepProjection):
    """Keeps chosen weights at zero, from now on and after every step of an optimiser.

    Args:
        optimizer: Any torch optimiser.
        kept: For every parameter that ``exclude`` leaves, in the order of the optimiser, bool of its shape, ``False``
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
        kept: Sequence[Tensor] | Callable[[Sequence[Parameter]], Sequence[Tensor]],
        *,
        exclude: Exclude | None = None,
    ) -> None:
        super().__init__(optimizer, exclude)
        masks = kept(self.parameters) if callable(kept) else kept
        wanted, got = ([list(t.shape) for t in tensors] for tensors in (self.parameters, masks))
        if got != wanted or any(mask.dtype != torch.bool for mask in masks):
            self.remove()
            raise ValueError(f"'kept' must hold bool masks of the shapes {wanted} (got {got})")
        #: For every parameter, ``False`` where it is zero.
        self.kept: Sequence[Tensor] = [m.to(p.device) for m, p in zip(masks, self.parameters, strict=True)]
        self.project()

    def settings(self) -> dict[str, Any]:
        """Return how many scalars are held at zero, of how many that it covers."""
        return {"zeros": sum(int((~mask).sum()) for mask in self.kept), **super().settings()}

    def support(self) -> list[Tensor]:
        """Return the masks."""
        return list(self.kept)

    @torch.no_grad()
    def project(self) -> None:
        """Set the masked weights to zero now."""
        for parameter, kept in zip(self.parameters, self.kept, strict=True):
            parameter.masked_fill_(~kept, 0)


class FixedMask(HeldMask):
    r"""Keeps a random choice of weights at zero, from now on and after every step of an optimiser.

    :math:`\lfloor \mathrm{sparsity} \cdot D \rfloor` of the :math:`D` covered scalars are drawn uniformly without
    replacement. With one seed, those drawn at one sparsity are also drawn at every higher one.

    Args:
        optimizer: Any torch optimiser; its parameters are masked.
        sparsity: Fraction of the covered scalars to keep at zero, in ``[0, 1)``.
        scope: Draw from all scalars together (``"global"``) or the same fraction of every tensor (``"tensor"``).
        exclude: Says of a parameter whether it is left alone and not counted; by default scalars, biases and
            normalisation parameters.
        seed: Seed of the draw.

    Raises:
        TypeError: If ``optimizer`` or ``sparsity`` has the wrong type.
        ValueError: If an argument is out of range or nothing is left to mask.

    Example:
        >>> model = torch.nn.Linear(10, 10)
        >>> mask = FixedMask(torch.optim.Adam(model.parameters()), sparsity=0.6)
        >>> int((model.weight == 0).sum())
        60

    Source: the random baseline of Chen et al., arXiv 2102.06790, Section 4.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        sparsity: float,
        *,
        scope: Scope = "tensor",
        exclude: Exclude | None = None,
        seed: int = 0,
    ) -> None:
        check_sparsity(sparsity)
        check_scope(scope)

        def draw(parameters: Sequence[Parameter]) -> Sequence[Tensor]:
            # Initial weights are often drawn with the same seed; the same stream would tie the choice to their values.
            generator = torch.Generator().manual_seed((seed + 1) * 0x9E3779B97F4A7C15 % 2**63)
            draws = [torch.rand(p.shape, generator=generator, dtype=torch.float64) for p in parameters]
            return [~mask for mask in smallest_masks(draws, lambda num: num_removed(sparsity, num), scope)]

        super().__init__(optimizer, draw, exclude=exclude)


def check_scope(scope: str) -> None:
    """Refuse an unknown scope."""
    if scope not in ("global", "tensor"):
        raise ValueError(f"'scope' must be 'global' or 'tensor' (got {scope!r})")
