"""A further term of the loss."""

from collections.abc import Callable
from typing import Any, TypeAlias

from torch import Tensor

#: A further term of the loss, from the logits of a batch, the batch and the epoch.
ExtraLoss: TypeAlias = Callable[[Tensor, Any, int], Tensor]


def add_extra_loss(loss: Tensor, extra_loss: ExtraLoss | None, logits: Tensor, batch: Any, epoch: int) -> Tensor:
    """Return the loss plus the further term, if there is one.

    Args:
        loss: Scalar.
        extra_loss: The further term.
        logits: Logits of the batch.
        batch: The batch.
        epoch: The epoch, from 0.

    Raises:
        ValueError: If the further term is no scalar tensor.

    Example:
        >>> import torch
        >>> add_extra_loss(torch.tensor(1.0), lambda logits, batch, epoch: logits.sum(), torch.ones(2, 3), None, 0)
        tensor(7.)
    """
    if extra_loss is None:
        return loss
    extra = extra_loss(logits, batch, epoch)
    if not isinstance(extra, Tensor) or extra.dim() != 0:
        raise ValueError(f"'extra_loss' must return a scalar tensor (got {extra!r})")
    return loss + extra
