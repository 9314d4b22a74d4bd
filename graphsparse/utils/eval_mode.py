"""Change the mode of a model, training or evaluation, for a while."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def keep_mode(model: nn.Module) -> Iterator[None]:
    """Give the model and each of its parts the mode back that it had before, training or evaluation.

    Args:
        model: Any module; a part of it may be in another mode than the whole, such as a frozen batch normalisation.

    Example:
        >>> model = nn.Dropout()
        >>> with keep_mode(model):
        ...     model = model.eval()
        >>> model.training
        True
    """
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        model.train(modes[0][1])  # a module may do more than set a flag when its mode changes
        for module, mode in modes:
            module.training = mode


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Put the model in evaluation mode inside the block, and every part of it back into its own mode afterwards.

    Args:
        model: Any module.

    Example:
        >>> model = nn.Dropout()
        >>> with eval_mode(model):
        ...     model.training
        False
        >>> model.training
        True
    """
    with keep_mode(model):
        model.eval()
        yield
