"""Mixing coefficients of a learned soup as its authors released them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from graphsparse.ops.check import check_count
from graphsparse.soups.recipes.coefficients import through_softmax
from graphsparse.soups.workers.jitter import check_option

INITS = ("ones", "xavier_uniform", "xavier_normal")


@dataclass(frozen=True)
class Es2025:
    """Options of a learned soup as its authors released it, as far as it does not share them with ours.

    Args:
        weight_decay: Of SGD, on the coefficients and the output scale.
        restart_every: Steps between two warm restarts.
        init: ``ones``, ``xavier_uniform`` or ``xavier_normal``.

    Raises:
        TypeError: If ``restart_every`` is no integer, or ``weight_decay`` no number.
        ValueError: If ``init`` is unknown, ``restart_every`` below 1, or ``weight_decay`` negative or not finite.

    Example:
        >>> Es2025(restart_every=3)
        Es2025(weight_decay=0.0, restart_every=3, init='ones')

    Source: the code that came with *Enhanced Soups for Graph Neural Networks*, arXiv 2503.11612.
    """

    weight_decay: float = 0.0
    restart_every: int = 4
    init: str = "ones"

    def __post_init__(self) -> None:
        """Check the options."""
        check_option("weight_decay", self.weight_decay)
        check_count(self.restart_every, "restart_every")
        if self.init not in INITS:
            raise ValueError(f"'init' must be one of {INITS} (got {self.init!r})")


def as_es2025(compat: str | Es2025 | None) -> Es2025 | None:
    """Return the options that a name stands for.

    Args:
        compat: ``es2025``, options, or ``None``.

    Raises:
        ValueError: If it is something else.
    """
    if compat is None or isinstance(compat, Es2025):
        return compat
    if compat != "es2025":
        raise ValueError(f"'compat' must be None, 'es2025' or Es2025(...) (got {compat!r})")
    return Es2025()


class Es2025Coefficients:
    r"""A softmax of a softmax, an output scale, and SGD with warm restarts.

    .. math:: a_j = \operatorname{softmax}(r_j), \qquad r_j = \operatorname{softmax}(\text{init}_j) \text{ at the start}

    The softmax in the start values keeps them in (0, 1), so that it begins next to the uniform soup whatever ``init``
    says. Gradients carry a factor of about :math:`1 / N`, which is why its learning rates are in the order of
    :math:`N` or more.

    Args:
        groups: Number of groups.
        num: Number of ingredients.
        lr: Learning rate of plain SGD; from there it falls to 0 along a cosine again and again.
        options: Weight decay, length of that cosine in steps, and start values.
        seed: Of the start values.

    Example:
        >>> Es2025Coefficients(1, 4, 10.0, Es2025()).shares()
        tensor([[0.2500, 0.2500, 0.2500, 0.2500]], dtype=torch.float64)

    Source: *Enhanced Soups for Graph Neural Networks*, arXiv 2503.11612, and its code.
    """

    scale: Tensor | None

    def __init__(self, groups: int, num: int, lr: float, options: Es2025, seed: int = 0) -> None:
        start = torch.ones(groups, num, dtype=torch.float64)
        generator = torch.Generator().manual_seed(seed)
        if options.init == "xavier_uniform":
            torch.nn.init.xavier_uniform_(start, generator=generator)
        elif options.init == "xavier_normal":
            torch.nn.init.xavier_normal_(start, generator=generator)
        self._raw = start.softmax(dim=1).requires_grad_()
        scale = torch.ones((), dtype=torch.float64, requires_grad=True)
        self.scale = scale
        self._optimizer = torch.optim.SGD([self._raw, scale], lr=lr, weight_decay=options.weight_decay)
        schedules = torch.optim.lr_scheduler
        self._schedule = schedules.CosineAnnealingWarmRestarts(self._optimizer, T_0=options.restart_every)

    def shares(self) -> Tensor:
        """Return the shares, float64 ``[groups, N]``."""
        return self._raw.detach().softmax(dim=1)

    def step(self, inner: Tensor) -> None:
        """Take a step of the optimiser."""
        self._raw.grad = through_softmax(self.shares(), inner)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._schedule.step()
