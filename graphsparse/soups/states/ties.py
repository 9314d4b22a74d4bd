"""Tensors that a model holds under several names."""

from torch import Tensor, nn

from graphsparse.soups.states.states import State


def tied_names(model: nn.Module) -> dict[str, str]:
    """Return for each further name of a tensor of a model its first name.

    Args:
        model: Any module.

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


def tie(state: State, ties: dict[str, str]) -> dict[str, Tensor]:
    """Return a state dict in which all names of a tensor lead to the same one.

    Files keep two copies, and calling a model with two tensors in place of one is an error.

    Args:
        state: State dict; it stays as it is.
        ties: What :func:`tied_names` found.
    """
    return {name: state[ties[name]] if ties.get(name) in state else value for name, value in state.items()}
