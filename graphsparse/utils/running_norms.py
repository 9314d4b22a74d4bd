"""Normalisations that keep running statistics, and how these are estimated anew."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn


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


def take_means(module: Any, buffers: dict[str, Tensor], stack: ExitStack) -> None:
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


@contextmanager
def fresh_statistics(model: nn.Module) -> Iterator[None]:
    """Have the normalisations of a model in evaluation mode forget their statistics, and take means over calls within.

    Example:
        >>> import torch
        >>> model, x = nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2)).eval(), torch.randn(10, 4)
        >>> with torch.no_grad(), fresh_statistics(model):
        ...     _ = model(x)
        >>> torch.allclose(model[1].running_mean, model[0](x).mean(0))
        True
    """
    with ExitStack() as stack:
        for module in running_norms(model).values():
            buffers = dict(module.named_buffers(recurse=False))
            for key, value in buffers.items():
                value.fill_(1 if key == "running_var" else 0)
            take_means(module, buffers, stack)
        yield
