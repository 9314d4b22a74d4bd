"""How far apart the directions of the nodes' representations are: 0 where a deep network has smoothed them all away."""

import torch
from torch import Tensor

from graphsparse.ops.blocks import row_blocks
from graphsparse.utils.counter_random import CounterRandom, mix64


def mean_average_distance(x: Tensor) -> float:
    r"""Return the mean average distance (MAD) between the rows of ``x``: 0 where all point in one direction, at most 2.

    .. math::
        \mathrm{MAD} = \operatorname{mean}_{i:\, D_i \neq 0} D_i, \quad
        D_i = \operatorname{mean}_{j:\, D_{ij} \neq 0} D_{ij}, \quad D_{ij} = 1 - \cos(x_i, x_j),

    over all pairs. Distances that are zero do not count, those of a row to itself among them: of two clusters far apart
    every node sees the other cluster only.

    It takes :math:`O(Nd)`. With unit rows :math:`u_i`, their mean :math:`\bar u` and the number :math:`g_i` of
    rows that point where row :math:`i` does, itself included,

    .. math::
        D_i = \frac{\sum_j D_{ij}}{N - g_i}, \qquad
        \sum_j D_{ij} = \tfrac12 \Big( N \lVert u_i - \bar u \rVert^2 + \sum_j \lVert u_j - \bar u \rVert^2 \Big),

    which equals the definition for any rows. Where all directions differ (:math:`g_i = 1`) and no row is zero it is
    :math:`(N^2 - \lVert \sum_i u_i \rVert^2) / (N (N - 1))`, but does not lose its digits when the rows are nearly
    parallel. Two rows have distance zero if their unit rows, computed in float64, agree in every component once
    rounded to float32; rows that point in different directions and still agree are less than
    :math:`10^{-14}` apart. A row of zeros has distance 1 to every other row, zero or not.

    Sums are in float64. Beside its input a call holds a few numbers per node.

    Args:
        x: Representations ``[N, d]``, floating point.

    Returns:
        A number between 0 and 2; 0 where no distance is left, as for a single node.

    Raises:
        TypeError: If ``x`` is not a dense floating point tensor.
        ValueError: If ``x`` is not ``[N, d]`` with at least one node and one column, or holds NaN or infinity.

    Example:
        >>> x = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0], [-1.0, 0.0]])
        >>> round(mean_average_distance(x[:3]), 4), round(mean_average_distance(x), 4)
        (1.0, 1.4167)

    Source: Chen et al., *Measuring and relieving the over-smoothing problem for graph neural networks from the
    topological view*, AAAI 2020, Section 3.
    """
    _check(x)
    total, count = _all_pairs(x.detach())
    distance = total[count > 0] / count[count > 0]
    distance = distance[distance > 0]
    # A sum of squares may pass 2 by a rounding.
    return min(float(distance.mean()), 2.0) if distance.numel() else 0.0


def _check(x: Tensor) -> None:
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.layout != torch.strided:
        kind = f"{x.dtype}, layout {x.layout}" if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"'x' must be a dense floating point tensor (got {kind})")
    if x.dim() != 2 or x.numel() == 0:
        raise ValueError(f"'x' must be [N, d] with at least one node and one column (got {list(x.shape)})")
    if not x.isfinite().all():
        raise ValueError("'x' holds NaN or infinity")


def _unit(rows: Tensor) -> Tensor:
    """Return rows of length 1 in float64; rows of zeros stay."""
    rows = rows.double()
    largest = rows.abs().amax(1, keepdim=True)
    # Of what is divided by its largest entry no square overflows, and the sum of squares is at least 1.
    rows = rows / largest.masked_fill_(largest == 0, 1)
    length: Tensor = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows / length.clamp_(min=1)


def _all_pairs(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sum and the number of the non-zero distances of every row."""
    num, width = x.shape
    mean = torch.zeros(width, dtype=torch.float64, device=x.device)
    present = torch.zeros(num, dtype=torch.bool, device=x.device)
    direction = torch.empty(num, dtype=torch.int64, device=x.device)
    factor = CounterRandom(0, "direction").words(2 * width, device=x.device).view(2, width)
    factor = (factor[0] << 32) + factor[1]
    for where in row_blocks(num, width):
        unit = _unit(x[where])
        mean += unit.sum(0)
        present[where] = unit.any(1)
        direction[where] = _hash(unit.float(), factor)
    num_present = int(present.count_nonzero())
    mean /= max(num_present, 1)
    spread = torch.empty(num, dtype=torch.float64, device=x.device)
    for where in row_blocks(num, width):
        spread[where] = (_unit(x[where]) - mean).square_().sum(1)
    spread[~present] = 0
    # Rows of zeros lie outside the centred sum: each is 1 away from all others.
    total = (num_present * spread + spread.sum()) / 2 + (num - num_present)
    total[~present] = num - 1
    _, group, size = torch.unique(direction, return_inverse=True, return_counts=True)
    same = torch.where(present, size[group], 1)
    return total, num - same


def _hash(rows: Tensor, factor: Tensor) -> Tensor:
    """Return 64 bits per float32 row, equal for equal rows.

    Of 2.4 million different rows two share them with a probability of about 2e-7, and then a count is wrong by one.
    """
    bits = (rows + 0.0).view(torch.int32)  # -0.0 and 0.0 are one number
    return (mix64(bits.long()) * factor).sum(1)
