"""A model without its weights, which are put in for each call."""

import copy
import weakref
from collections.abc import Collection, Iterable, Mapping

import torch
from torch import nn


def put_parameters(model: nn.Module, parameters: Mapping[str, nn.Parameter | None]) -> None:
    """Set parameters by their names where they are registered, without the checks of an assignment.

    Args:
        model: The model.
        parameters: Parameters, or ``None`` for none, by their names.

    Example:
        >>> model = nn.Linear(2, 2)
        >>> put_parameters(model, {"weight": None})
        >>> [name for name, _ in model.named_parameters()]
        ['bias']
    """
    for name, parameter in parameters.items():
        owner, _, local = name.rpartition(".")
        model.get_submodule(owner)._parameters[local] = parameter


def copy_without(model: nn.Module, names: Collection[str]) -> nn.Module:
    """Copy a model, but not these parameters: the copy has ``None`` in their places.

    Args:
        model: Any model. It is left as it is.
        names: Names of the parameters to leave out, all of them where one has several.

    Example:
        >>> copy_without(nn.Linear(2, 2), ["weight"]).weight is None
        True
    """
    # A copy of each of these would only be thrown away.
    memo = {id(model.get_parameter(name)): nn.Parameter(torch.empty(0)) for name in names}
    new = copy.deepcopy(model, memo)
    put_parameters(new, dict.fromkeys(names))
    return new


def recurrent_layers(model: nn.Module) -> list[nn.RNNBase]:
    """Return the layers that remember their weights besides their parameters.

    Args:
        model: Any model.

    Example:
        >>> recurrent_layers(nn.Sequential(nn.Linear(2, 2), nn.GRU(2, 2)))
        [GRU(2, 2)]
    """
    return [module for module in model.modules() if isinstance(module, nn.RNNBase)]


def forget_weights(layers: Iterable[nn.RNNBase]) -> None:
    """Make recurrent layers look for their weights again, and let go of those they had.

    Args:
        layers: The layers.

    Example:
        >>> layer = nn.GRU(2, 2)
        >>> forget_weights([layer])
        >>> layer(torch.ones(1, 2))[0].shape
        torch.Size([1, 2])
    """
    for layer in layers:
        nothing = nn.Parameter(torch.empty(0))
        layer._flat_weights = [nothing] * len(layer._flat_weights_names)
        layer._flat_weight_refs = [weakref.ref(nothing)] * len(layer._flat_weights_names)
