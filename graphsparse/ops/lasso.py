"""The lasso on a Gram matrix: which of many terms of a sum are needed for it."""

import numpy as np
import torch
from torch import Tensor


def lasso(gram: Tensor, penalty: float, start: Tensor | None = None, *, sweeps: int = 1000) -> Tensor:
    r"""Return factors of terms whose sum stays close to the sum of all, most of them 0 under a high penalty.

    .. math::
        \min_b \; (1 - b)^\top G \, (1 - b) + \lambda \, \lVert b \rVert_1

    which for :math:`G_{uv} = \langle t_u, t_v \rangle` is the squared distance of :math:`\sum_u b_u t_u` from
    :math:`\sum_u t_u`. It is solved by coordinate descent, each factor exactly in its turn; factors of terms that are 0
    are 0.

    Args:
        gram: Inner products of the terms, symmetric and positive semi-definite ``[k, k]``.
        penalty: The penalty :math:`\lambda \ge 0`.
        start: Factors to begin with ``[k]``; 0 by default.
        sweeps: Most turns.

    Returns:
        The factors, float64 ``[k]``.

    Example:
        >>> lasso(torch.tensor([[1.0, 0.0], [0.0, 4.0]]), 2.0)
        tensor([0.0000, 0.7500], dtype=torch.float64)
    """
    matrix = gram.detach().double().cpu().numpy()
    b = np.zeros(len(matrix)) if start is None else start.double().numpy().copy()
    size, half = matrix.diagonal(), penalty / 2
    above = half * (1 + 1e-9)  # a copy of a term that is in has exactly half left, but for rounding
    left = matrix @ (1 - b)  # half of the negative gradient of the distance
    for _ in range(sweeps):
        moved = 0.0
        for u in np.flatnonzero((size > 0) & ((b != 0) | (np.abs(left) > above))):
            wanted = left[u] + size[u] * b[u]
            step = np.sign(wanted) * (abs(wanted) - half if abs(wanted) > above else 0.0) / size[u] - b[u]
            if step != 0:
                b[u] += step
                left -= step * matrix[u]
                moved = max(moved, abs(step))
        if moved < 1e-9:
            break
    return torch.from_numpy(b)


def lasso_order(gram: Tensor, steps: int = 100) -> Tensor:
    """Return the place of each term in the order in which it is taken in while the penalty of :func:`lasso` falls.

    Terms that are taken in between the same two penalties go by the size of their factors; those that never are come
    last, in their order.

    Args:
        gram: Inner products of the terms ``[k, k]``.
        steps: Number of penalties, evenly spaced on the logarithmic scale from the highest that takes in any term down
            to a ten-thousandth of it.

    Returns:
        Int64 ``[k]``, 0 for the first.

    Example:
        >>> lasso_order(torch.diag(torch.tensor([1.0, 4.0, 0.0, 2.0])))
        tensor([2, 0, 3, 1])
    """
    size = len(gram)
    b, place, taken = torch.zeros(size, dtype=torch.float64), torch.full((size,), size), 0
    highest = 2 * float(gram.double().sum(1).abs().max())
    for penalty in highest * np.logspace(0, -4, steps):
        b = lasso(gram, float(penalty), b, sweeps=30)
        new = ((b != 0) & (place == size)).nonzero().squeeze(1)
        new = new[b[new].abs().argsort(descending=True, stable=True)]
        place[new] = torch.arange(taken, taken + len(new))
        taken += len(new)
        if taken == size:
            break
    never = (place == size).nonzero().squeeze(1)
    place[never] = torch.arange(taken, size)
    return place


def least_squares(gram: Tensor, weight: Tensor, kept: Tensor) -> Tensor:
    r"""Return the weight for some of the inputs of a linear map whose output is closest to that for all of them.

    .. math::
        \min_{V} \; \lVert X W - X_S V \rVert^2 \qquad V = (X_S^\top X_S)^{-1} X_S^\top X \, W

    Args:
        gram: :math:`X^\top X` of the inputs ``[k, k]``.
        weight: The weight for all inputs ``[k, outputs]``.
        kept: The inputs that are left, bool ``[k]``.

    Returns:
        The weight, 0 for the other inputs, ``[k, outputs]``.

    Example:
        >>> gram = torch.tensor([[1.0, 1.0], [1.0, 1.0]])  # two inputs that are equal
        >>> least_squares(gram, torch.tensor([[2.0], [3.0]]), torch.tensor([True, False]))
        tensor([[5.], [0.]])
    """
    if kept.all():
        return weight
    found = torch.zeros_like(weight)
    found[kept] = torch.linalg.pinv(gram[kept][:, kept], hermitian=True, rtol=1e-10) @ gram[kept] @ weight
    return found
