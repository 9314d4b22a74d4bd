"""The n largest of every m weights are kept."""

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from graphsparse.ops.check import check_count
from graphsparse.ops.select import n_of_m_mask
from graphsparse.training.step_projection import Exclude, StepProjection, set_to_zero


class NMProjection(StepProjection):
    r"""Keeps the largest ``n`` of every ``m`` weights along the last dimension after every step of an optimiser.

    The last dimension of a linear layer's weight is that of its inputs. Gradients and moments stay dense, so a weight
    that was set to zero can come back. Where ``m`` does not divide the length, the ``n`` largest of the rest are kept:
    a little less than :math:`1 - n/m` is removed then.

    Args:
        optimizer: Any torch optimiser; its parameters are projected.
        n: How many of a group are kept.
        m: How many make a group.
        exclude: Says of a parameter whether it is left alone; by default scalars, biases and normalisation parameters.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If ``n`` is not from 1 to ``m``, or nothing is left to project.

    Example:
        >>> model = torch.nn.Linear(8, 4)
        >>> optimizer = torch.optim.Adam(model.parameters())
        >>> _ = NMProjection(optimizer, 2, 4)
        >>> model(torch.ones(1, 8)).sum().backward()
        >>> optimizer.step()
        >>> (model.weight != 0).view(4, 2, 4).sum(-1).unique()
        tensor([2])

    Source: Mishra et al., *Accelerating Sparse Deep Neural Networks*, arXiv 2104.08378, Section 3.
    """

    def __init__(self, optimizer: Optimizer, n: int = 2, m: int = 4, *, exclude: Exclude | None = None) -> None:
        self.n, self.m = check_group(n, m)
        super().__init__(optimizer, exclude)

    def settings(self) -> dict[str, Any]:
        """Return what it was built with, as plain values, and how many scalars it covers."""
        return {"n": self.n, "m": self.m, **super().settings()}

    def support(self) -> list[Tensor]:
        """Return the largest of every group, 0 or not."""
        return [n_of_m_mask(parameter.detach().abs(), self.n, self.m) for parameter in self.parameters]

    @torch.no_grad()
    def project(self) -> None:
        """Set all but the largest of every group to zero now."""
        set_to_zero(self.parameters, [~kept for kept in self.support()])


def check_group(n: int, m: int) -> tuple[int, int]:
    """Return the numbers of n:m, or raise an error."""
    check_count(n, "n")
    if check_count(m, "m") < n:
        raise ValueError(f"'n' must be at most 'm', which is {m} (got {n})")
    return n, m
