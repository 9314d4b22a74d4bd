r"""Methods that add up task vectors: how far each network has moved from the weights that all started from.

All of them return :math:`\theta_0 + \lambda \, \tau` with some mean :math:`\tau` of the task vectors
:math:`\delta_i = \theta_i - \theta_0`, vectors of all parameters, of which one is in memory at a time. They were
made for networks that were fine-tuned from one that was trained before, and so did not move far.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import reduce

import torch
from torch import Tensor

from graphsparse.ops import num_removed
from graphsparse.ops.check import check_number, check_sparsity
from graphsparse.soups.merging.merge import MergeRun, merge_method
from graphsparse.soups.states import State
from graphsparse.utils.counter_random import CounterRandom


@merge_method("task_arithmetic", needs=("base",), start="shared", source="Ilharco et al., arXiv 2212.04089")
def task_arithmetic(run: MergeRun, *, scale: float = 1.0) -> State:
    r"""Add the mean of the task vectors, :math:`\theta_0 + \frac{\lambda}{N} \sum_i \delta_i`.

    Args:
        run: Networks and their start.
        scale: :math:`\lambda`: 1 gives the mean of the networks, ``N`` the sum of all task vectors.
    """
    return _moved(run, _mean(run, _task_vectors(run)), scale)


@merge_method("ties", needs=("base",), start="shared", source="Yadav et al., arXiv 2306.01708")
def ties(run: MergeRun, *, sparsity: float = 0.8, scale: float = 1.0) -> State:
    r"""Trim each task vector, elect a sign for each parameter, and average what agrees with it.

    .. math::
        \tau_p = \operatorname{mean} \{ \hat\delta_{ip} : \operatorname{sgn} \hat\delta_{ip} =
        \operatorname{sgn} \textstyle\sum_j \hat\delta_{jp} \}

    with :math:`\hat\delta_i` the task vector without its smallest entries; where the sum is 0, :math:`\tau_p` is, too.

    Args:
        run: Networks and their start.
        sparsity: Fraction of a whole task vector that is trimmed, exactly so many, ties by lowest index.
        scale: :math:`\lambda`.
    """
    up, down = torch.zeros(2, *run.vector(run.base).shape, dtype=torch.float64)
    ups, downs = torch.zeros(2, len(up), dtype=torch.int32)
    for delta in _task_vectors(run):
        kept = _trimmed(delta, num_removed(sparsity, len(delta)))
        up += kept.clamp(min=0)
        down += kept.clamp(max=0)
        ups += kept > 0
        downs += kept < 0
    total = up + down
    return _moved(run, torch.where(total > 0, up / ups, torch.where(total < 0, down / downs, 0)), scale)


@merge_method("dare", needs=("base",), start="shared", source="Yu et al., arXiv 2311.03099")
def dare(run: MergeRun, *, sparsity: float = 0.5, scale: float = 1.0) -> State:
    r"""Drop random entries of the task vectors and enlarge the others, :math:`\delta_i \odot m_i / (1 - p)`; average.

    With :math:`m_i` 1 with probability :math:`1 - p` and else 0, so that the expectation is the mean of the networks.

    Args:
        run: Networks and their start.
        sparsity: The probability :math:`p` to be dropped.
        scale: :math:`\lambda`.
    """
    check_sparsity(sparsity)
    return _moved(run, _mean(run, _thinned(run, lambda delta: torch.full_like(delta, 1 - sparsity))), scale)


@merge_method("della", needs=("base",), start="shared", source="Deep et al., arXiv 2406.11617")
def della(run: MergeRun, *, sparsity: float = 0.5, spread: float = 0.2, scale: float = 1.0) -> State:
    r"""Drop entries of the task vectors as ``dare`` does, small ones more likely than large ones.

    In a row of :math:`m` entries that with the :math:`r`-th smallest size, from 0, is kept with probability
    :math:`1 - p - \epsilon + 2 \epsilon r / (m - 1)`, and divided by that. Vectors are one row. Signs are not elected.

    Args:
        run: Networks and their start.
        sparsity: The mean probability :math:`p` to be dropped.
        spread: :math:`\epsilon`, by which probabilities differ from their mean at most.
        scale: :math:`\lambda`.
    """
    check_sparsity(sparsity)
    check_number(spread, "spread", least=0)
    if spread > sparsity or spread >= 1 - sparsity:
        raise ValueError(
            f"'spread' must leave all probabilities to be dropped in [0, 1): {sparsity:g} +- 'spread' (got {spread:g})"
        )

    def density(delta: Tensor) -> Tensor:
        kept = torch.full_like(delta, 1 - sparsity)
        for size, part in zip(run.split(delta.abs()).values(), run.split(kept).values(), strict=True):
            size = size.reshape(-1, size.size(-1) if size.dim() else 1)
            rank = size.argsort(dim=1, stable=True).argsort(dim=1)
            if (last := size.size(1) - 1) > 0:
                part += (spread * (2 * rank / last - 1)).view_as(part)
        return kept

    return _moved(run, _mean(run, _thinned(run, density)), scale)


@merge_method("breadcrumbs", needs=("base",), start="shared", source="Davari and Belilovsky, arXiv 2312.06795")
def breadcrumbs(run: MergeRun, *, sparsity: float = 0.1, outliers: float = 0.01, scale: float = 1.0) -> State:
    """Drop the largest and the smallest entries of each task vector, and average.

    Args:
        run: Networks and their start.
        sparsity: Fraction of a whole task vector that is dropped in all, rounded down, ties by lowest index.
        outliers: Fraction that is dropped as the largest; the rest of what is dropped are the smallest.
        scale: What the mean is multiplied by.
    """
    check_sparsity(sparsity)
    check_sparsity(outliers, "outliers")
    if outliers > sparsity:
        raise ValueError(f"'outliers' must be at most 'sparsity', which is {sparsity:g} (got {outliers:g})")

    def dropped(delta: Tensor) -> Tensor:
        largest = num_removed(outliers, len(delta))
        return _trimmed(delta, num_removed(sparsity, len(delta)) - largest, largest)

    return _moved(run, _mean(run, map(dropped, _task_vectors(run))), scale)


@merge_method("model_stock", needs=("base",), start="shared", source="Jang et al., arXiv 2403.19522")
def model_stock(run: MergeRun) -> State:
    r"""Go from the start towards the mean of the networks, tensor by tensor, the farther the more they agree.

    .. math::
        \theta = \theta_0 + \frac{t}{N} \sum_i \delta_i, \qquad t = \frac{N c}{1 + (N - 1) c}, \qquad
        c = \max\left(0, \operatorname{mean}_{i \neq j} \cos \angle(\delta_i, \delta_j)\right)

    One network stays itself.
    """
    size = len(run)
    total, units = torch.zeros(2, *run.vector(run.base).shape, dtype=torch.float64)
    moved = dict.fromkeys(run.parameters, 0)
    for delta in _task_vectors(run):
        total += delta
        for (name, part), unit in zip(run.split(delta).items(), run.split(units).values(), strict=True):
            if length := float(part.norm()):
                unit += part / length
                moved[name] += 1
    for (name, part), unit in zip(run.split(total).items(), run.split(units).values(), strict=True):
        # The cosines of all pairs, from the length of the sum of unit vectors.
        pairs = float(unit.square().sum()) - moved[name]
        cosine = max(0.0, pairs / (size * (size - 1))) if size > 1 else 1.0
        part *= size * cosine / (1 + (size - 1) * cosine)
    return _moved(run, total / size, 1.0)


def _task_vectors(run: MergeRun) -> Iterator[Tensor]:
    """Yield for one network after the other how far it has moved, float64 ``[P]``."""
    base = run.vector(run.base)
    for state in run:
        yield run.vector(state).sub_(base)


def _moved(run: MergeRun, delta: Tensor, scale: float) -> State:
    check_number(scale, "scale")
    return run.with_parameters(run.vector(run.base) + scale * delta)


def _mean(run: MergeRun, deltas: Iterable[Tensor]) -> Tensor:
    """Return the mean of vectors that nobody else holds, one for each network."""
    return reduce(Tensor.add_, deltas) / len(run)


def _trimmed(delta: Tensor, smallest: int, largest: int = 0) -> Tensor:
    """Return a vector with 0 in place of so many of its smallest and largest entries, ties by lowest index."""
    order = delta.abs().argsort(stable=True)
    kept = order[smallest : len(delta) - largest]
    return torch.zeros_like(delta).index_copy_(0, kept, delta[kept])


def _thinned(run: MergeRun, density: Callable[[Tensor], Tensor]) -> Iterator[Tensor]:
    """Yield task vectors of which each entry is kept with its own probability and divided by that."""
    for i, delta in enumerate(_task_vectors(run)):
        kept = density(delta)
        drawn = CounterRandom(run.seed, f"kept of network {i}").uniform(len(delta))
        yield torch.where(drawn < kept, delta / kept, 0)
