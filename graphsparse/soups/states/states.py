"""Arithmetic on state dicts: whether they fit together, and their weighted sums."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

#: A state dict. Floating tensors are mixed; of all others a soup takes those of its first ingredient.
State: TypeAlias = Mapping[str, Tensor]


class States(Protocol):
    """Ingredients: anything with a length that gives a state dict for an index, such as a list or a store.

    What it gives may lie on disk and be read when it is asked for; nobody keeps more than one at a time.
    """

    def __len__(self) -> int:
        """Return the number of states."""
        ...

    def __getitem__(self, index: int, /) -> State:
        """Return a state dict."""
        ...


@torch.no_grad()
def mix(first: State, second: State, ratio: float) -> dict[str, Tensor]:
    r"""Interpolate two state dicts.

    .. math:: W = \alpha W_1 + (1 - \alpha) W_2

    Floating tensors are mixed in their own type, half precision in float32. All others are copied from ``first``. At a
    ratio of 0 or 1, and where both values are equal, nothing is multiplied, so that even infinite values survive. Two
    names of one tensor are two names of one tensor in the mixture.

    Args:
        first: State dict.
        second: State dict with the same keys and shapes.
        ratio: Share :math:`\alpha` of ``first``, in [0, 1].

    Example:
        >>> mix({"w": torch.tensor([1.0])}, {"w": torch.tensor([3.0])}, 0.75)
        {'w': tensor([1.5000])}
    """
    if not 0 <= ratio <= 1:
        raise ValueError(f"'ratio' must be in [0, 1] (got {ratio!r})")
    done: dict[tuple[int, int], Tensor] = {}
    mixed = {}
    for name, value in first.items():
        pair = (id(value), id(second[name]))
        if pair not in done:
            done[pair] = mix_tensors(value, second[name], ratio)
        mixed[name] = done[pair]
    return mixed


@torch.no_grad()
def mix_tensors(first: Tensor, second: Tensor, ratio: float) -> Tensor:
    """Interpolate two tensors as :func:`mix` does."""
    if ratio == 1 or not first.is_floating_point():
        return first.clone()
    if ratio == 0:
        return second.to(first.dtype, copy=True)
    kind = wide_type(first.dtype)
    mixed = torch.lerp(second.to(kind), first.to(kind), ratio).to(first.dtype)
    return torch.where(first == second, first, mixed)


def wide_type(dtype: torch.dtype) -> torch.dtype:
    """Return the type to add up values of a floating type in."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


@torch.no_grad()
def combine(states: States, weights: Tensor | Mapping[str, Tensor]) -> dict[str, Tensor]:
    r"""Return the weighted sum of state dicts, of which one is read at a time.

    .. math:: W = \sum_i \lambda_i W_i

    Sums are float64 and rounded once, so that equal ingredients give just these in float32, whatever their weights.
    Two names of one tensor in the first state dict are two names of one tensor in the sum.

    Args:
        states: State dicts with the same keys and shapes.
        weights: :math:`\lambda` ``[N]`` for all tensors, or one such vector for each floating tensor by its name.

    Returns:
        A state dict with tensors of its own; integers are those of the first state.

    Raises:
        ValueError: If there is another number of weights than of states.

    Example:
        >>> states = [{"w": torch.tensor([1.0])}, {"w": torch.tensor([3.0])}]
        >>> combine(states, torch.tensor([0.25, 0.75]))
        {'w': tensor([2.5000])}

    Source: Wortsman et al., *Model soups*, arXiv 2203.05482; shares of single tensors as in *Enhanced Soups
    for Graph Neural Networks*, arXiv 2503.11612.
    """
    for name, part in {"weights": weights}.items() if isinstance(weights, Tensor) else weights.items():
        if part.shape != (len(states),):
            raise ValueError(f"{name!r} must have one weight for each of {len(states)} states (got {list(part.shape)})")
    names: dict[str, str] = {}
    kinds: dict[str, torch.dtype] = {}
    total: dict[str, Tensor] = {}
    for i in range(len(states)):
        state = states[i]
        if not names:
            names = _first_names(state)
            kinds = {name: state[name].dtype for name in names.values()}
        shares = {name: float((weights if isinstance(weights, Tensor) else weights[name])[i]) for name in _mixed(kinds)}
        _add(total, state, kinds, shares)
        del state  # before the next one is read
    done = {name: total.pop(name).to(kind) for name, kind in kinds.items()}
    return {name: done[first] for name, first in names.items()}


def _mixed(kinds: Mapping[str, torch.dtype]) -> list[str]:
    return [name for name, kind in kinds.items() if kind.is_floating_point]


def _add(total: dict[str, Tensor], state: State, kinds: Mapping[str, torch.dtype], shares: Mapping[str, float]) -> None:
    """Add shares of the floating tensors of a state; of others the first is kept."""
    for name in kinds:
        value = state[name]
        if name not in shares:
            total.setdefault(name, value.clone())
            continue
        if name not in total:
            total[name] = torch.zeros_like(value, dtype=torch.float64, memory_format=torch.contiguous_format)
        if shares[name]:  # what has no part may even be infinite
            total[name].add_(value, alpha=shares[name])


def _first_names(state: State) -> dict[str, str]:
    """Return for each name the first one of the same tensor."""
    first: dict[int, str] = {}
    return {name: first.setdefault(id(value), name) for name, value in state.items()}


def check_states(states: States, like: State | None = None, name: str = "ingredients") -> None:
    """Refuse state dicts that cannot be mixed.

    Args:
        states: State dicts; they are read one after another.
        like: State dict that they must fit; the first of them when ``None``.
        name: What they are called in messages.

    Raises:
        TypeError: If there is no list of them, or one is no dictionary of tensors.
        ValueError: If there is none, keys, shapes or types differ, or a value is complex or not a number; the message
            names the ingredient and the tensor.
    """
    if isinstance(states, Mapping | Tensor) or not hasattr(states, "__len__") or not hasattr(states, "__getitem__"):
        raise TypeError(f"'{name}' must be a list or a store of state dicts (got {type(states).__name__})")
    if len(states) == 0:
        raise ValueError(f"'{name}' must hold at least one state dict (got none)")
    what = "the model" if like is not None else "ingredient 0"
    for i in range(len(states)):
        state = states[i]
        if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
            raise TypeError(f"'{name}' must be state dicts of tensors (ingredient {i} is {type(state).__name__})")
        like = state if like is None else like
        missing, more = _some(like.keys() - state.keys()), _some(state.keys() - like.keys())
        if missing or more:
            raise ValueError(f"ingredient {i} does not fit {what}: missing keys {missing}, further keys {more}")
        for key, value in state.items():
            other = like[key]
            if value.shape != other.shape or value.dtype != other.dtype:
                raise ValueError(
                    f"ingredient {i} does not fit {what}: {key!r} has shape {list(value.shape)} and {value.dtype}, "
                    f"not {list(other.shape)} and {other.dtype}"
                )
            if value.is_complex():
                raise ValueError(f"'{name}' must hold real numbers (got complex ones in {key!r})")
            if value.is_floating_point() and bool(value.isnan().any()):
                raise ValueError(f"ingredient {i} holds values that are not numbers, in {key!r}")
        if i == 0 and what == "ingredient 0":
            like = {name: torch.empty_like(value, device="meta") for name, value in state.items()}


def _some(names: Iterable[str]) -> Sequence[str]:
    return sorted(names)[:3]
