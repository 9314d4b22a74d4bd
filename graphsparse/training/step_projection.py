"""Projections of the weights after every step of an optimiser."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import Parameter
from torch.optim import Optimizer

from graphsparse.ops.check import check_sparsity
from graphsparse.ops.ratios import kept_counts
from graphsparse.ops.select import num_removed, smallest_k_mask

Scope: TypeAlias = Literal["global", "tensor"]
#: Says of a parameter whether it is left alone.
Exclude: TypeAlias = Callable[[Tensor], bool]


def is_not_a_matrix(parameter: Tensor) -> bool:
    """Tell single numbers, biases and the scales of normalisation layers from weights: these have two dimensions."""
    return parameter.dim() < 2 or parameter.numel() == 1


def smallest_masks(
    values: Sequence[Tensor],
    count: Callable[[int], int],
    scope: Scope,
    select: Callable[[Tensor, int], Tensor] = smallest_k_mask,
) -> list[Tensor]:
    """Mark the smallest entries of several tensors, ranked together or tensor by tensor.

    Args:
        values: The tensors.
        count: How many of ``n`` entries to mark.
        scope: ``"global"`` ranks all entries together, ``"tensor"`` those of each tensor.
        select: Marks so many of a flat tensor.

    Returns:
        A bool tensor for every tensor, ``True`` at its marked entries; ties go to the first.
    """
    if scope == "tensor":
        return [select(v.reshape(-1), count(v.numel())).view(v.shape) for v in values]
    flat = torch.cat([v.reshape(-1) for v in values])
    parts = torch.split(select(flat, count(flat.numel())), [v.numel() for v in values])
    return [part.view(v.shape) for part, v in zip(parts, values, strict=True)]


@torch.no_grad()
def set_to_zero(parameters: Sequence[Parameter], masks: Sequence[Tensor]) -> None:
    """Set the marked entries to zero, or refuse parameters that have got other shapes than their masks."""
    for parameter, mask in zip(parameters, masks, strict=True):
        if parameter.shape != mask.shape:
            raise ValueError(
                f"a parameter has the shape {list(parameter.shape)} now, but its mask {list(mask.shape)}: attach a new "
                "projection after parameters were exchanged"
            )
        parameter.masked_fill_(mask.to(parameter.device), 0)


#: Where the state of the first projection of an optimiser is kept in its state dict, and its projections in `defaults`.
KEY = "step_projection"
#: Hooks of an optimiser, which PyTorch leaves out of copies.
_HOOKS = ("_optimizer_step_post_hooks", "_optimizer_state_dict_post_hooks", "_optimizer_load_state_dict_pre_hooks")


class StepProjection:
    """Calls :meth:`project` after every step of an optimiser, whoever runs the training loop.

    A new rule is a subclass with :meth:`project`, which changes ``self.parameters`` in place; ``self.optimizer`` gives
    it gradients and moments, ``self.num_steps`` the number of steps taken. A rule with a ramp says by :attr:`holds`
    when it is over, so that :func:`~graphsparse.training.fit` counts no epoch before; one that knows what it kept
    says so by :meth:`support`. What it must know to go on after a kill belongs into :meth:`state`, which is part of
    the state dict of the optimiser, and comes back with it.

    A copy of the optimiser, by ``copy.deepcopy`` or ``pickle``, has a copy of the projection. A step is an error where
    the optimiser has got a further parameter to project, or where no projected one has a gradient, as after the
    parameters of a model were exchanged: no weight is left unprojected without a word.

    Args:
        optimizer: Any torch optimiser; its trainable parameters are projected, a tied one once.
        exclude: Says of a parameter whether it is left alone; by default scalars, biases and normalisation parameters,
            that is all with fewer than two dimensions.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If nothing is left to project; in a step, if the parameters are no longer those of the optimiser.

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
        self.optimizer, self._exclude = optimizer, exclude
        #: The parameters that are projected.
        self.parameters: list[Parameter] = self._covered()
        if not self.parameters:
            raise ValueError("'optimizer' holds no parameter that 'exclude' leaves")
        self.num_steps = 0
        others = len(projections_of(optimizer))
        self._key = f"{KEY}.{others}" if others else KEY
        # Hooks are left out when an optimiser is copied or pickled; its defaults are not, and carry the projections.
        optimizer.defaults[KEY] = [*optimizer.defaults.get(KEY, []), self]
        self._attach()

    def _attach(self) -> None:
        self._handles = (
            self.optimizer.register_step_post_hook(self._after_step),
            self.optimizer.register_state_dict_post_hook(self._save),
            self.optimizer.register_load_state_dict_pre_hook(self._load),
        )

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_handles"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        for name in _HOOKS:  # a copy of the optimiser that holds this one has nothing yet
            self.optimizer.__dict__.setdefault(name, OrderedDict())
        self._attach()

    def _covered(self) -> list[Parameter]:
        """Return what the optimiser holds to project, a tied parameter once."""
        listed = {id(p): p for group in self.optimizer.param_groups for p in group["params"]}
        return [p for p in listed.values() if p.requires_grad and not self._exclude(p)]

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in self.settings().items())
        return f"{type(self).__name__}({options})"

    @property
    def holds(self) -> bool:
        """Whether the constraint is that of the end; ``False`` within a ramp."""
        return True

    @property
    def ramp_steps(self) -> int:
        """Number of steps before which it cannot hold; 0 where that is not known."""
        return 0

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
        listed = self.optimizer.defaults
        listed[KEY] = [other for other in listed.get(KEY, []) if other is not self]
        if not listed[KEY]:
            del listed[KEY]

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        own = {id(parameter) for parameter in self.parameters}
        further = [list(parameter.shape) for parameter in self._covered() if id(parameter) not in own]
        if further:
            raise ValueError(
                f"'optimizer' trains parameters that {type(self).__name__} does not project, of the shapes {further}: "
                "remove() it and attach a new one after the last add_param_group"
            )
        trained = [parameter for parameter in self.parameters if parameter.requires_grad]
        if trained and all(parameter.grad is None for parameter in trained):
            raise ValueError(
                f"no parameter that {type(self).__name__} projects has a gradient: parameters of the model that were "
                "exchanged, as by load_state_dict(assign=True), need a new optimiser and a new projection"
            )
        self.num_steps += 1
        self.project()

    def _save(self, optimizer: Optimizer, state: dict[str, Any]) -> None:
        for group in state["param_groups"]:
            group.pop(KEY, None)  # of the defaults, which a group that was added has taken over
        state[self._key] = {"settings": repr(self), **self.state()}

    def _load(self, optimizer: Optimizer, state: dict[str, Any]) -> None:
        if self._key in state:
            self.load_state(state[self._key])


def projections_of(optimizer: Optimizer) -> list[StepProjection]:
    """Return the projections that are attached to an optimiser, also to a copy of one."""
    owners = [getattr(hook, "__self__", None) for hook in optimizer._optimizer_step_post_hooks.values()]
    return [owner for owner in owners if isinstance(owner, StepProjection)]


def kept_weights(model: nn.Module, projections: Sequence[StepProjection]) -> dict[str, Tensor]:
    """Return the kept entries of all parameters that projections cover, by each of a parameter's names."""
    kept: dict[int, Tensor] = {}
    for projection in projections:
        for parameter, mask in zip(projection.parameters, projection.support(), strict=True):
            both = kept.get(id(parameter))
            kept[id(parameter)] = mask.clone() if both is None else both & mask
    return {name: kept[id(model.get_parameter(name))] for name in projected_names(model, projections)}


def projected_names(model: nn.Module, projections: Sequence[StepProjection]) -> list[str]:
    """Return all names of the parameters that projections cover."""
    covered = {id(parameter) for projection in projections for parameter in projection.parameters}
    return [name for name, p in model.named_parameters(remove_duplicate=False) if id(p) in covered]


def check_not_parametrized(model: nn.Module, projections: Sequence[StepProjection]) -> None:
    """Refuse a projected parameter that a layer does not use as it is: zeros in it may be no zeros of the weight."""
    hidden = [name for name in projected_names(model, projections) if ".parametrizations." in f".{name}"]
    if hidden:
        raise ValueError(
            f"'model' computes a weight from {hidden[0]!r} (torch.nn.utils.parametrize), which cannot be projected: "
            "torch.nn.utils.parametrize.remove_parametrizations() undoes it; or leave it out by 'exclude'"
        )


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
        set_to_zero(self.parameters, [~kept for kept in self.kept])


class FixedMask(HeldMask):
    r"""Keeps a random choice of weights at zero, from now on and after every step of an optimiser.

    Exactly :math:`\lfloor \mathrm{sparsity} \cdot D \rfloor` of the :math:`D` covered scalars are drawn without
    replacement. With one seed, those drawn at one sparsity are also drawn at every higher one.

    How many of each tensor matters more than which: with the same share of every tensor little is left of small ones,
    such as the last layer of a GNN, and at high sparsities nothing is learned. By default the density of a tensor is
    that of an Erdos-Renyi graph between its ends, :math:`\min(1, \varepsilon \sum_j d_j / \prod_j d_j)` with its sizes
    :math:`d_j`.

    Args:
        optimizer: Any torch optimiser; its parameters are masked.
        sparsity: Fraction of the covered scalars to keep at zero, in ``[0, 1)``.
        scope: Draw from every tensor so many as Erdos-Renyi ratios say (``"erk"``) or the same share (``"tensor"``), or
            from all scalars together (``"global"``).
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

    Source: the random baseline of Chen et al., arXiv 2102.06790, Section 4; Erdos-Renyi ratios: Evci et al., *Rigging
    the lottery*, arXiv 1911.11134, Section 3.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        sparsity: float,
        *,
        scope: Literal["erk", "tensor", "global"] = "erk",
        exclude: Exclude | None = None,
        seed: int = 0,
    ) -> None:
        check_sparsity(sparsity)
        if scope not in ("erk", "tensor", "global"):
            raise ValueError(f"'scope' must be 'erk', 'tensor' or 'global' (got {scope!r})")

        def draw(parameters: Sequence[Parameter]) -> Sequence[Tensor]:
            # Initial weights are often drawn with the same seed; the same stream would tie the choice to their values.
            generator = torch.Generator().manual_seed((seed + 1) * 0x9E3779B97F4A7C15 % 2**63)
            draws = [torch.rand(p.shape, generator=generator, dtype=torch.float64) for p in parameters]
            if scope == "global":
                return [~mask for mask in smallest_masks(draws, lambda num: num_removed(sparsity, num), scope)]
            kept = kept_counts([p.shape for p in parameters], sparsity, "erk" if scope == "erk" else "uniform")
            return [~smallest_k_mask(d.view(-1), d.numel() - k).view(d.shape) for d, k in zip(draws, kept, strict=True)]

        super().__init__(optimizer, draw, exclude=exclude)


def check_scope(scope: str) -> None:
    """Refuse an unknown scope."""
    if scope not in ("global", "tensor"):
        raise ValueError(f"'scope' must be 'global' or 'tensor' (got {scope!r})")
