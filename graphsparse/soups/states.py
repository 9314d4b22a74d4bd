"""Arithmetic on state dicts: whether they fit together, mixtures and weighted sums of them, tensors with two names."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor, nn

#: A state dict. Floating tensors are mixed; of all others a soup takes those of its first ingredient.
State: TypeAlias = Mapping[str, Tensor]
#: Share of every ingredient ``[N]``, for all tensors or for each floating tensor by its name.
Weights: TypeAlias = Tensor | Mapping[str, Tensor]


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


class Mixture(dict[str, Tensor]):
    """A state dict that knows the share of every ingredient in it.

    Args:
        state: Weights and buffers.
        weights: Shares ``[N]``, or a vector of them for each floating tensor by its name.
    """

    def __init__(self, state: State, weights: Weights) -> None:
        super().__init__(state)
        self.weights = weights


@torch.no_grad()
def mix(first: State, second: State, ratio: float) -> dict[str, Tensor]:
    r"""Interpolate two state dicts.

    .. math:: W = \alpha W_1 + (1 - \alpha) W_2

    Floating tensors are mixed in their own type, half precision in float32. All others are copied from ``first``. At a
    ratio of 0 or 1, and where both values are equal, nothing is multiplied, so that even infinite values survive. Two
    names of one tensor are two names of one tensor in the mixture. Where both know their shares of the ingredients of
    a soup, the mixture does too.

    Args:
        first: State dict.
        second: State dict with the same keys and shapes.
        ratio: Share :math:`\alpha` of ``first``, in [0, 1].

    Returns:
        A state dict with tensors of its own.

    Raises:
        ValueError: If ``ratio`` is out of range, or the states do not fit each other.

    Example:
        >>> mix({"w": torch.tensor([1.0])}, {"w": torch.tensor([3.0])}, 0.75)
        {'w': tensor([1.5000])}
    """
    if not 0 <= ratio <= 1:
        raise ValueError(f"'ratio' must be in [0, 1] (got {ratio!r})")
    check_fit(second, first, "'second' does not fit 'first'")
    _check_devices(second, {name: value.device for name, value in first.items()}, "'second' does not fit 'first'")
    done: dict[tuple[int, int], Tensor] = {}
    mixed = {}
    for name, value in first.items():
        pair = (id(value), id(second[name]))
        if pair not in done:
            done[pair] = mix_tensors(value, second[name], ratio)
        mixed[name] = done[pair]
    if isinstance(first, Mixture) and isinstance(second, Mixture):
        return Mixture(mixed, _mix_weights(first, second, ratio))
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


def _mix_weights(first: Mixture, second: Mixture, ratio: float) -> Weights:
    one, other = first.weights, second.weights
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return ratio * one + (1 - ratio) * other
    return {name: ratio * _of(one, name) + (1 - ratio) * _of(other, name) for name in floating(first)}


def combine(states: States, weights: Weights) -> dict[str, Tensor]:
    r"""Return the weighted sum of state dicts, of which one is read at a time.

    .. math:: W = \sum_i \lambda_i W_i

    Sums are float64 and rounded once, so that equal ingredients give just these in float32, whatever their weights.
    Two names of one tensor in the first state dict are two names of one tensor in the sum.

    Args:
        states: State dicts with the same keys, shapes and types: a list, or a store that reads them from disk.
        weights: :math:`\lambda` ``[N]`` for all tensors, or one such vector for each floating tensor by its name.

    Returns:
        A state dict with tensors of its own; integers are those of the first state.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If there is no state, states do not fit each other, hold values that are not numbers, or there is
            not one finite weight for each of them.

    Example:
        >>> states = [{"w": torch.tensor([1.0])}, {"w": torch.tensor([3.0])}]
        >>> combine(states, torch.tensor([0.25, 0.75]))
        {'w': tensor([2.5000])}

    Source: Wortsman et al., *Model soups*, arXiv 2203.05482; shares of single tensors as in *Enhanced Soups
    for Graph Neural Networks*, arXiv 2503.11612.
    """
    check_states(states, name="states")
    check_weights(weights, floating(states[0]), len(states))
    return weighted_sum(states, weights)


@torch.no_grad()
def weighted_sum(states: States, weights: Weights) -> dict[str, Tensor]:
    """Add up state dicts that fit each other, as :func:`combine` does."""
    weights = {name: part.cpu() for name, part in weights.items()} if isinstance(weights, Mapping) else weights.cpu()
    names: dict[str, str] = {}
    total: dict[str, Tensor] = {}
    kinds: dict[str, torch.dtype] = {}
    for i in range(len(states)):
        state = states[i]
        if not names:
            first: dict[int, str] = {}
            names = {name: first.setdefault(id(value), name) for name, value in state.items()}
            kinds = {name: state[name].dtype for name in names.values()}
        for name, kind in kinds.items():
            if not kind.is_floating_point:
                total.setdefault(name, state[name].clone())
                continue
            if name not in total:
                total[name] = torch.zeros_like(state[name], dtype=torch.float64, memory_format=torch.contiguous_format)
            if share := float(_of(weights, name)[i]):  # what has no part may even be infinite
                total[name].add_(state[name], alpha=share)
        del state  # before the next one is read
    done = {name: total.pop(name).to(kind) for name, kind in kinds.items()}
    return {name: done[first_name] for name, first_name in names.items()}


def _of(weights: Weights, name: str) -> Tensor:
    return weights if isinstance(weights, Tensor) else weights[name]


def floating(state: State) -> list[str]:
    """Return the names of the tensors that are mixed."""
    return [name for name, value in state.items() if value.is_floating_point()]


def check_weights(weights: Any, names: Iterable[str], num: int) -> None:
    """Refuse what is not one finite weight for each of ``num`` states, or that for each of the floating tensors."""
    if isinstance(weights, Mapping):
        missing, more = _some(set(names) - weights.keys()), _some(weights.keys() - set(names))
        if missing or more:
            raise ValueError(f"'weights' must name the floating tensors: missing names {missing}, further names {more}")
    for label, part in _labelled(weights):
        if not isinstance(part, Tensor) or part.is_complex() or part.dtype == torch.bool:
            kind = part.dtype if isinstance(part, Tensor) else type(part).__name__
            raise TypeError(f"{label} must be a tensor of one weight for each of {num} states (got {kind})")
        if part.shape != (num,):
            raise ValueError(f"{label} must hold one weight for each of {num} states (got {list(part.shape)})")
        if not bool(part.isfinite().all()):
            raise ValueError(f"{label} must hold finite numbers (got {part.tolist()})")


def _labelled(weights: Any) -> list[tuple[str, Any]]:
    if isinstance(weights, Mapping):
        return [(f"'weights[{name!r}]'", part) for name, part in weights.items()]
    return [("'weights'", weights)]


def check_states(
    states: States, like: State | None = None, name: str = "ingredients", shorter: Collection[str] = ()
) -> None:
    """Refuse state dicts that cannot be mixed; they are read one after another.

    Args:
        states: State dicts.
        like: State dict that they must fit; the first of them when ``None``.
        name: What they are called in messages.
        shorter: Tensors that may have fewer rows than those of ``like``, as heads with fewer outputs do.
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
        if like is None:
            like = state
        if i == 0:
            like = {key: torch.empty_like(value, device="meta") for key, value in like.items()}
            where = {key: value.device for key, value in state.items()}
        heads = {key: state[key] for key in shorter if key in state and _is_shorter(state[key], like[key])}
        check_fit(state, {**like, **heads}, f"ingredient {i} does not fit {what}")
        _check_devices(state, where, f"ingredient {i} does not fit ingredient 0")
        for key, value in state.items():
            if value.is_complex():
                raise ValueError(f"'{name}' must hold real numbers (got complex ones in {key!r})")
            if value.is_floating_point() and bool(value.isnan().any()):
                raise ValueError(f"ingredient {i} holds values that are not numbers, in {key!r}")


def _is_shorter(value: Tensor, like: Tensor) -> bool:
    return value.dim() == like.dim() > 0 and value.shape[1:] == like.shape[1:] and len(value) < len(like)


def check_fit(state: State, like: State, what: str) -> None:
    """Refuse a state dict with other keys, shapes or types than another one."""
    missing, more = _some(like.keys() - state.keys()), _some(state.keys() - like.keys())
    if missing or more:
        raise ValueError(f"{what}: missing keys {missing}, further keys {more}")
    for key, value in state.items():
        other = like[key]
        if value.shape != other.shape or value.dtype != other.dtype:
            raise ValueError(
                f"{what}: {key!r} has shape {list(value.shape)} and {value.dtype}, "
                f"not {list(other.shape)} and {other.dtype}"
            )


def _check_devices(state: State, where: Mapping[str, torch.device], what: str) -> None:
    for key, value in state.items():
        if value.device != where[key]:
            raise ValueError(f"{what}: {key!r} is on {value.device}, not on {where[key]}: move one of them")


def _some(names: Iterable[str]) -> list[str]:
    return sorted(names)[:3]


def tied_names(model: nn.Module) -> dict[str, str]:
    """Return for each further name of a tensor of a model its first name.

    Example:
        >>> first, second = nn.Linear(2, 2), nn.Linear(2, 2, bias=False)
        >>> second.weight = first.weight
        >>> tied_names(nn.Sequential(first, second))
        {'1.weight': '0.weight'}
    """
    first: dict[int, str] = {}
    ties = {}
    for found in (model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False)):
        for name, value in found:
            if id(value) in first:
                ties[name] = first[id(value)]
            else:
                first[id(value)] = name
    return ties


def tie(state: State, ties: Mapping[str, str]) -> dict[str, Tensor]:
    """Return a state dict in which all names of a tensor lead to the same one, as the ``ties`` of a model say.

    Files keep two copies, and calling a model with two tensors in place of one is an error.
    """
    return {name: state[ties[name]] if ties.get(name) in state else value for name, value in state.items()}
