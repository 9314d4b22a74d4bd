"""Accuracy of node classification."""

import torch
from torch import Tensor


def accuracy(logits: Tensor, y: Tensor, mask: Tensor | None = None) -> float:
    """Return the fraction of nodes whose largest logit is that of their class.

    Args:
        logits: ``[N, C]``; of equal logits the first counts.
        y: Classes ``[N]``.
        mask: Nodes to count, bool ``[N]``; all when ``None``.

    Returns:
        A fraction between 0 and 1.

    Raises:
        TypeError: If ``mask`` is not a bool tensor.
        ValueError: If the shapes do not fit, or no node is counted.

    Example:
        >>> accuracy(torch.tensor([[0.1, 0.9], [0.8, 0.2]]), torch.tensor([1, 1]))
        0.5
    """
    logits, y = counted(logits, y, mask)
    return int(torch.count_nonzero(logits.argmax(dim=1) == y)) / y.numel()


def counted(logits: Tensor, y: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return logits and classes of the nodes of a mask.

    Raises:
        TypeError: If ``mask`` is not a bool tensor.
        ValueError: If the shapes do not fit, or no node is counted.

    Example:
        >>> counted(torch.eye(2), torch.tensor([0, 1]), torch.tensor([False, True]))
        (tensor([[0., 1.]]), tensor([1]))
    """
    wrong = logits.dim() != 2 or logits.size(1) == 0 or y.shape != logits.shape[:1]
    if wrong or (mask is not None and mask.shape != y.shape):
        shapes = [list(t.shape) for t in (logits, y, mask) if t is not None]
        raise ValueError(f"'logits', 'y' and 'mask' must be [N, C] with C > 0, [N] and [N] (got {shapes})")
    if mask is not None and mask.dtype != torch.bool:  # numbers would pick nodes instead of marking them
        raise TypeError(f"'mask' must be a bool tensor (got {mask.dtype})")
    if mask is not None:
        logits, y = logits[mask], y[mask]
    if y.numel() == 0:
        raise ValueError("'mask' marks no node")
    return logits, y
