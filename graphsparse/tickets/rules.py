"""Rules that say which weights are kept while a model is trained."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

from torch.optim import Optimizer

from graphsparse.ops.check import check_number, check_share
from graphsparse.training import DropAndGrow, FixedMask, L0Projection, NMProjection
from graphsparse.training.drop_and_grow import Moments, check_move
from graphsparse.training.nm_projection import check_group
from graphsparse.training.step_projection import check_scope

#: How many weights of each tensor are kept.
Ratio: TypeAlias = Literal["erk", "uniform", "global"]


@dataclass(frozen=True)
class L0:
    """The largest weights are kept after every step, and any weight may come back: the projection of TEDDY.

    Args:
        scope: Rank the weights of all tensors together (``"global"``) or tensor by tensor (``"tensor"``).

    Raises:
        ValueError: If the scope is unknown.

    Example:
        >>> L0()
        L0(scope='global')

    Source: Seo et al., *TEDDY*, arXiv 2402.01261, Section 4; see :class:`~graphsparse.training.L0Projection`.
    """

    scope: Literal["global", "tensor"] = "global"
    nested: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_scope(self.scope)

    def __call__(self, optimizer: Optimizer, sparsity: float, *, steps: int | None, seed: int) -> L0Projection:
        """Attach the projection to an optimiser."""
        return L0Projection(optimizer, sparsity, scope=self.scope)


@dataclass(frozen=True)
class Fixed:
    """Weights that are drawn by chance are 0 from the first step to the last.

    Args:
        ratio: How many weights of each tensor are kept: ``"erk"`` more of small ones, by Erdos-Renyi ratios;
            ``"uniform"`` the same share of all, which leaves next to nothing of a small last layer; ``"global"`` as it
            comes when drawing from all of them together. The number of all together is exact with each.

    Raises:
        ValueError: If the ratio is unknown.

    Example:
        >>> Fixed()
        Fixed(ratio='erk')

    Source: the random baseline of Chen et al., *A Unified Lottery Ticket Hypothesis for Graph Neural Networks*,
    arXiv 2102.06790, Section 4; the ratios of Evci et al., *Rigging the lottery*, arXiv 1911.11134, Section 3; see
    :class:`~graphsparse.training.FixedMask`.
    """

    ratio: Ratio = "erk"
    nested: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_ratio(self.ratio)

    def __call__(self, optimizer: Optimizer, sparsity: float, *, steps: int | None, seed: int) -> FixedMask:
        """Attach the mask to an optimiser."""
        return FixedMask(optimizer, sparsity, scope=_scope(self.ratio), seed=seed)


@dataclass(frozen=True)
class Gradual:
    r"""The smallest weights are set to 0, ever more of them, until the sparsity is reached; these stay 0 (GMP).

    After step :math:`t` the sparsity is :math:`s (1 - (1 - t/T)^3)`, and no epoch before step :math:`T` becomes the
    ticket. Until then any weight may come back.

    Args:
        end: :math:`T`, as a fraction of all steps of the training.
        scope: Rank the weights of all tensors together (``"global"``) or tensor by tensor (``"tensor"``).

    Raises:
        TypeError: If ``end`` is no number.
        ValueError: If an option is out of range; when a training begins, if its number of steps is not known.

    Example:
        >>> Gradual(end=0.75)
        Gradual(end=0.75, scope='global')

    Source: Zhu and Gupta, *To prune, or not to prune*, arXiv 1710.01878, Section 3; see
    :class:`~graphsparse.training.L0Projection`.
    """

    end: float = 0.5
    scope: Literal["global", "tensor"] = "global"
    nested: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_number(self.end, "end", least=0, most=1, strictly=True)
        check_scope(self.scope)

    def __call__(self, optimizer: Optimizer, sparsity: float, *, steps: int | None, seed: int) -> L0Projection:
        """Attach the projection to an optimiser."""
        ramp = max(1, _part(self.end, steps))
        return L0Projection(
            optimizer, sparsity, scope=self.scope, schedule="cubic", total_steps=ramp, freeze_after=ramp
        )


@dataclass(frozen=True)
class _Exchange:
    """Some kept weights are exchanged for others now and then."""

    every: int = 10
    fraction: float = 0.3
    end: float = 0.75
    ratio: Ratio = "erk"
    nested: ClassVar[bool] = False

    def _growth(self) -> dict[str, Any]:
        """Return how weights are chosen that grow."""
        return {"growth": "random"}

    def __post_init__(self) -> None:
        check_move(every=self.every, fraction=self.fraction, **self._growth())
        check_share(self.end, "end")
        check_ratio(self.ratio)

    def __call__(self, optimizer: Optimizer, sparsity: float, *, steps: int | None, seed: int) -> DropAndGrow:
        """Attach the mask to an optimiser."""
        return DropAndGrow(
            optimizer,
            sparsity,
            end=_part(self.end, steps),
            every=self.every,
            fraction=self.fraction,
            scope=_scope(self.ratio),
            seed=seed,
            **self._growth(),
        )


@dataclass(frozen=True)
class SET(_Exchange):
    """The smallest of the kept weights are exchanged for others now and then, which are drawn by chance.

    Args:
        every: Steps from one exchange to the next; 0 for none, which is :class:`Fixed`.
        fraction: Fraction of the kept weights that is exchanged at first; it falls to 0 like a cosine.
        end: When the last exchange has been, as a fraction of all steps of the training.
        ratio: How many weights of each tensor are kept, as for :class:`Fixed`.

    Raises:
        TypeError: If an option has the wrong type.
        ValueError: If one is out of range; when a training begins, if its number of steps is not known.

    Example:
        >>> SET(every=20)
        SET(every=20, fraction=0.3, end=0.75, ratio='erk')

    Source: Mocanu et al., *Scalable training of artificial neural networks with adaptive sparse connectivity*, Nature
    Communications 9, 2018; see :class:`~graphsparse.training.DropAndGrow`.
    """


@dataclass(frozen=True)
class RigL(_Exchange):
    """The smallest of the kept weights are exchanged for those where the gradient is largest.

    Args:
        every: Steps from one exchange to the next; 0 for none, which is :class:`Fixed`.
        fraction: Fraction of the kept weights that is exchanged at first; it falls to 0 like a cosine.
        end: When the last exchange has been, as a fraction of all steps of the training.
        ratio: How many weights of each tensor are kept, as for :class:`Fixed`.
        accumulate: Mean of so many gradients' magnitudes, where batches are small; at most ``every``.
        moments: ``"reset"`` starts the optimiser's moments of what is grown from 0, ``"keep"`` leaves them.

    Raises:
        TypeError: If an option has the wrong type.
        ValueError: If one is out of range; when a training begins, if its number of steps is not known.

    Example:
        >>> RigL(every=20, accumulate=5)
        RigL(every=20, fraction=0.3, end=0.75, ratio='erk', accumulate=5, moments='reset')

    Source: Evci et al., *Rigging the Lottery*, arXiv 1911.11134, Section 3; longer ``every`` explore more: Liu et al.,
    arXiv 2102.02887; see :class:`~graphsparse.training.DropAndGrow`.
    """

    accumulate: int = 1
    moments: Moments = "reset"

    def _growth(self) -> dict[str, Any]:
        return {"growth": "gradient", "accumulate": self.accumulate, "moments": self.moments}


@dataclass(frozen=True)
class NM:
    """The ``n`` largest of every ``m`` weights along the inputs of a layer are kept after every step.

    ``weight_sparsity`` must be :math:`1 - n/m`. Where ``m`` does not divide the number of inputs, a little less is
    removed; the metrics of the ticket say how much.

    Args:
        n: How many of a group are kept.
        m: How many make a group.

    Raises:
        TypeError: If they are no integers.
        ValueError: If ``n`` is not from 1 to ``m``; when a training begins, if the sparsity is another.

    Example:
        >>> NM(2, 4)
        NM(n=2, m=4)

    Source: Mishra et al., *Accelerating Sparse Deep Neural Networks*, arXiv 2104.08378, Section 3; see
    :class:`~graphsparse.training.NMProjection`.
    """

    n: int = 2
    m: int = 4
    nested: ClassVar[bool] = False
    #: Whether exactly as much is removed as was asked for.
    exact: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_group(self.n, self.m)

    def __call__(self, optimizer: Optimizer, sparsity: float, *, steps: int | None, seed: int) -> NMProjection:
        """Attach the projection to an optimiser."""
        wanted = 1 - self.n / self.m
        if abs(sparsity - wanted) > 1e-9:
            raise ValueError(f"'weight_sparsity' must be {wanted:g} for {self} (got {sparsity})")
        return NMProjection(optimizer, self.n, self.m)


def check_ratio(ratio: str) -> None:
    """Refuse an unknown ratio."""
    if ratio not in ("erk", "uniform", "global"):
        raise ValueError(f"'ratio' must be 'erk', 'uniform' or 'global' (got {ratio!r})")


def _scope(ratio: Ratio) -> Literal["erk", "tensor", "global"]:
    return "tensor" if ratio == "uniform" else ratio


def _part(share: float, steps: int | None) -> int:
    """Return a fraction of the steps of a training, rounded."""
    if steps is None:
        raise ValueError("'weights' is a rule that needs the number of steps, and the loader of the task has no length")
    return round(share * steps)
