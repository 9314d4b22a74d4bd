"""Running statistics of normalisations that belong to mixed weights."""

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from graphsparse.soups.states import State


def running_norms(model: nn.Module) -> dict[str, nn.Module]:
    """Return the normalisations of a model that keep running statistics, of batches or instances, by name.

    They are known by their buffers ``running_mean`` and ``running_var`` and their ``momentum``.

    Example:
        >>> list(running_norms(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))))
        ['1']
    """
    names = ("running_mean", "running_var")
    return {
        name: module
        for name, module in model.named_modules()
        if hasattr(module, "momentum") and all(isinstance(getattr(module, key, None), Tensor) for key in names)
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
    state = dict(state)
    with ExitStack() as stack:
        for name, module in running_norms(model).items():
            prefix = f"{name}." if name else ""
            fresh = {}
            for key, value in module.named_buffers(recurse=False):
                fresh[key] = torch.ones_like(value) if key == "running_var" else torch.zeros_like(value)
                state[prefix + key] = fresh[key]  # written to by the calls below, so none that others hold
            _take_means(module, fresh, stack)
        for batch in batches:
            call(model, state, batch)
    return state


def _take_means(module: Any, buffers: dict[str, Tensor], stack: ExitStack) -> None:
    """Have a normalisation collect the mean over its calls, until the stack is unwound."""
    calls = 0

    def before(*_: object) -> None:
        # Not None, which stands for a cumulative mean in some normalisations only.
        nonlocal calls
        calls += 1
        module.momentum = 1 / calls

    def after(*_: object) -> None:
        for key, value in buffers.items():
            if (found := getattr(module, key)) is not value:  # some put a new tensor in its place
                value.copy_(found)

    def restore(momentum: float | None) -> None:
        module.momentum, module.training = momentum, False

    stack.callback(restore, module.momentum)
    stack.callback(module.register_forward_pre_hook(before).remove)
    stack.callback(module.register_forward_hook(after).remove)
    module.training = True
