"""Statistics of batch normalisation that belong to mixed weights."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch_geometric.data import Data

from graphsparse.soups.states.states import State


def running_norms(model: nn.Module) -> dict[str, nn.Module]:
    """Return the batch normalisations of a model that keep running statistics, by name.

    Example:
        >>> list(running_norms(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))))
        ['1']
    """
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    }


def estimate_statistics(
    model: nn.Module, state: State, batches: Iterable[Data], call: Callable[[nn.Module, State, Data], Tensor]
) -> dict[str, Tensor]:
    """Return a state dict with running statistics estimated anew.

    They are the plain mean over the batches, each passed through once with the weights of the state; dropout is off.

    Args:
        model: A private copy of the model, in evaluation mode, which it is in again afterwards.
        state: State dict.
        batches: The graph, or a fixed list of batches.
        call: Calls the model with a state on a batch.
    """
    norms = running_norms(model)
    state = dict(state)
    for name, module in norms.items():
        prefix = f"{name}." if name else ""
        for key, value in module.named_buffers(recurse=False):
            fresh = torch.ones_like(value) if key == "running_var" else torch.zeros_like(value)
            state[prefix + key] = fresh  # written to by the calls below, so none that others hold
    momenta = [module.momentum for module in norms.values()]
    try:
        for module in norms.values():
            module.momentum = None  # type: ignore[assignment] # a cumulative mean
            module.training = True
        for batch in batches:
            call(model, state, batch)
    finally:
        for module, momentum in zip(norms.values(), momenta, strict=True):
            module.momentum = momentum
            module.training = False
    return state
