"""Pruning of state dicts by magnitude, to an exact number of weights."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from graphsparse.soups.states.states import State
from graphsparse.training.step_projection import is_not_a_matrix, smallest_masks


def maskable_names(model: nn.Module, masked: Sequence[str] | None = None) -> list[str]:
    """Return the names of the parameters that pruning covers, in the order of the model, a tied one once.

    Args:
        model: Any module.
        masked: The names; those of all parameters with at least two dimensions when ``None``, which leaves out scalars,
            biases and normalisation, as :class:`~graphsparse.training.L0Projection` does.

    Raises:
        TypeError: If ``masked`` is no list of names.
        ValueError: If there is no such parameter, or none at all.

    Example:
        >>> maskable_names(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)))
        ['0.weight']
    """
    if isinstance(masked, str) or (masked is not None and not all(isinstance(name, str) for name in masked)):
        raise TypeError(f"'masked' must be a list of names of parameters (got {masked!r})")
    names = {id(parameter): name for name, parameter in reversed(list(model.named_parameters()))}
    if masked is None:
        chosen = {id(parameter) for parameter in model.parameters() if not is_not_a_matrix(parameter)}
    else:
        known = dict(model.named_parameters(remove_duplicate=False))
        unknown = sorted(set(masked) - known.keys())
        if unknown:
            raise ValueError(f"'masked' names {unknown[:3]}, and the model has no such parameters")
        chosen = {id(known[name]) for name in masked}
    found = [names[id(parameter)] for parameter in model.parameters() if id(parameter) in chosen]
    if not found:
        raise ValueError("there is nothing to prune: 'masked' is empty, or no parameter has two dimensions or more")
    return found


def num_nonzero(state: State, names: Sequence[str]) -> int:
    """Return how many scalars of some tensors are not zero.

    Args:
        state: State dict.
        names: Names of its tensors.

    Example:
        >>> num_nonzero({"w": torch.tensor([[0.0, 2.0]]), "b": torch.tensor([1.0])}, ["w"])
        1
    """
    return sum(int(state[name].count_nonzero()) for name in names)


@torch.no_grad()
def magnitude_masks(
    state: State, names: Sequence[str], num_kept: int, within: State | None = None
) -> dict[str, Tensor]:
    r"""Mark the scalars of largest magnitude, ranked over all tensors together.

    Of :math:`n` scalars the :math:`n - k` smallest go; of equal ones the first go first.

    Args:
        state: State dict, without values that are not numbers.
        names: Names of the tensors to rank.
        num_kept: How many scalars :math:`k` to keep.
        within: For every tensor the only scalars that may be kept, bool; all when ``None``.

    Returns:
        For every name a bool tensor, ``True`` where a scalar is kept.

    Raises:
        ValueError: If ``num_kept`` is out of range, or more than ``within`` allows.

    Example:
        >>> magnitude_masks({"w": torch.tensor([[3.0, -1.0]]), "v": torch.tensor([[0.5, -4.0]])}, ["w", "v"], 2)
        {'w': tensor([[ True, False]]), 'v': tensor([[False,  True]])}
    """
    sizes = [state[name].abs() for name in names]
    allowed = total = sum(size.numel() for size in sizes)
    if within is not None:
        # Below any magnitude: what is gone stays gone, before weights that happen to be zero.
        sizes = [torch.where(within[name], size, -1) for name, size in zip(names, sizes, strict=True)]
        allowed = num_nonzero(within, names)
    if not 0 <= num_kept <= allowed:
        raise ValueError(f"'num_kept' must be between 0 and {allowed} (got {num_kept})")
    removed = smallest_masks(sizes, lambda _: total - num_kept, "global")
    return {name: ~mask for name, mask in zip(names, removed, strict=True)}


@torch.no_grad()
def apply_masks(state: State, masks: State) -> None:
    """Set to zero, in place, what masks do not keep.

    Args:
        state: State dict; its tensors are changed.
        masks: For some of its tensors bool masks, ``True`` where a scalar is kept.

    Example:
        >>> state = {"w": torch.ones(2), "b": torch.ones(1)}
        >>> apply_masks(state, {"w": torch.tensor([True, False])})
        >>> state
        {'w': tensor([1., 0.]), 'b': tensor([1.])}
    """
    for name, mask in masks.items():
        state[name].masked_fill_(~mask, 0)
