"""Mixing coefficients of a learned soup, and one step of their optimiser."""

from typing import Protocol

import torch
from torch import Tensor


class Coefficients(Protocol):
    """Shares of the ingredients that are learned."""

    #: Factor of the logits while it is learned; ``None`` for 1.
    scale: Tensor | None

    def shares(self) -> Tensor:
        """Return the shares, float64 ``[groups, N]``: not negative, and each row with sum 1."""
        ...

    def step(self, inner: Tensor) -> None:
        r"""Take a step of the optimiser.

        Args:
            inner: Derivatives of the loss with respect to the shares, float64 ``[groups, N]``; that with respect to
                ``scale`` lies in its ``grad``.
        """
        ...


class SoftmaxCoefficients:
    r"""Softmax over ingredients from a uniform start, by Adam with a learning rate that falls to 0 along a cosine.

    .. math:: a_j = \operatorname{softmax}(r_j), \qquad r_j = 0 \text{ at the start}

    Args:
        groups: Number of groups.
        num: Number of ingredients.
        lr: Learning rate at the start.
        epochs: Steps until it is 0.

    Example:
        >>> SoftmaxCoefficients(1, 4, lr=0.1, epochs=10).shares()
        tensor([[0.2500, 0.2500, 0.2500, 0.2500]], dtype=torch.float64)
    """

    scale: Tensor | None = None

    def __init__(self, groups: int, num: int, lr: float, epochs: int) -> None:
        self._raw = torch.zeros(groups, num, dtype=torch.float64, requires_grad=True)
        self._optimizer = torch.optim.Adam([self._raw], lr=lr)
        self._schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self._optimizer, T_max=epochs)

    def shares(self) -> Tensor:
        """Return the shares, float64 ``[groups, N]``."""
        return self._raw.detach().softmax(dim=1)

    def step(self, inner: Tensor) -> None:
        """Take a step of the optimiser."""
        self._raw.grad = through_softmax(self.shares(), inner)
        self._optimizer.step()
        self._schedule.step()


def through_softmax(shares: Tensor, inner: Tensor) -> Tensor:
    r"""Return derivatives with respect to the arguments of a softmax.

    .. math:: \frac{\partial L}{\partial r_{ji}} = a_{ji} \Big(s_{ji} - \sum_k a_{jk} s_{jk}\Big)

    Args:
        shares: Results :math:`a` of the softmax over the last dimension.
        inner: Derivatives :math:`s` with respect to them.
    """
    return shares * (inner - (shares * inner).sum(dim=-1, keepdim=True))
