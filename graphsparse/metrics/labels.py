"""Which nodes or graphs have a label."""

from torch import Tensor

#: What stands for no label among classes: in data of OGB, and in the losses of PyTorch.
NO_CLASS = (-1, -100)


def is_labelled(y: Tensor) -> Tensor:
    """Say of each row of labels, ``[n]`` or ``[n, T]``, whether it holds any, bool ``[n]``.

    Of integers, -1 and -100 are none, of floating point numbers NaN.

    Example:
        >>> import torch
        >>> is_labelled(torch.tensor([2, -1, 0, -100])), is_labelled(torch.tensor([[1.0, torch.nan], [torch.nan] * 2]))
        (tensor([ True, False,  True, False]), tensor([ True, False]))
    """
    known = ~y.isnan() if y.is_floating_point() else (y != NO_CLASS[0]) & (y != NO_CLASS[1])
    return known.reshape(y.size(0), -1).any(1)


def check_classes(y: Tensor, name: str, num_classes: int | None = None) -> None:
    """Refuse integers that are no classes, or not all below a number of them; those that stand for no label count not.

    Args:
        y: Integers.
        name: What they are called in messages.
        num_classes: The number of classes, where it is known.
    """
    known = y[is_labelled(y)]
    if known.numel() == 0:
        raise ValueError(f"{name} hold no label: all are -1 or -100")
    low, high = int(known.min()), int(known.max())
    if low < 0:
        raise ValueError(f"{name} run from {low} to {high}: a class is an integer from 0, and -1 or -100 none at all")
    if num_classes is not None and high >= num_classes:
        raise ValueError(
            f"{name} run from {low} to {high}, but the model returns {num_classes} classes: either the labels are out "
            "of range or the model has the wrong width"
        )
    if low == high == 1 and bool((y == -1).any()):
        raise ValueError(
            f"{name} are 1 and -1 alone: -1 stands for no label here, so that one class would be left; "
            "write 0 and 1 for two classes"
        )
