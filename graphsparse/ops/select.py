"""Exact selection: the rule for how many, and which."""

import math

import torch
from torch import Tensor

from graphsparse.ops.check import check_integer, check_sparsity


def num_removed(sparsity: float, num: int) -> int:
    r"""Return how many of ``num`` entries a sparsity removes: :math:`\lfloor \mathrm{sparsity} \cdot num \rfloor`.

    Args:
        sparsity: Fraction to remove, in ``[0, 1)``.
        num: Number of entries.

    Raises:
        ValueError: If ``sparsity`` is outside ``[0, 1)``.

    Example:
        >>> num_removed(0.4, 5)
        2
    """
    return math.floor(check_sparsity(sparsity) * num)


def kth_smallest(values: Tensor, k: int, *, overwrite: bool = False) -> Tensor:
    """Return the ``k``-th smallest value (``k >= 1``) of a 1-D tensor in expected linear time.

    With ``overwrite`` the values may be reordered in place, which saves a copy.

    ``torch.kthvalue`` on CPU copies the values, keeps an int64 index beside each and is about ten times slower than
    NumPy's vectorised quick-select, so CPU tensors go through NumPy.
    """
    if values.device.type != "cpu" or values.dtype in (torch.bfloat16, torch.float16):
        return values.kthvalue(k).values
    copy = values.numpy() if overwrite else values.numpy().copy()
    copy.partition(k - 1)
    return torch.from_numpy(copy[k - 1 : k]).squeeze(0).clone()  # not a view, which would keep the whole copy


def smallest_k_mask(score: Tensor, k: int) -> Tensor:
    """Mark the ``k`` smallest scores, exactly ``k`` of them, ties broken by the lowest index.

    Args:
        score: One-dimensional scores, floating point or integer, without NaN; infinities are allowed.
        k: How many to mark, between 0 and ``score.numel()``.

    Returns:
        A bool tensor of the shape and device of ``score``, ``True`` at the ``k`` smallest.

    Raises:
        TypeError: If ``score`` is not a real-valued tensor or ``k`` is not an integer.
        ValueError: If ``score`` is not one-dimensional, holds NaN, or ``k`` is out of range.

    Example:
        >>> smallest_k_mask(torch.tensor([3.0, 1.0, 2.0, 1.0]), 1)
        tensor([False,  True, False, False])
    """
    if not isinstance(score, Tensor) or score.is_complex():
        raise TypeError(f"'score' must be a real-valued tensor (got {getattr(score, 'dtype', type(score).__name__)})")
    if score.dim() != 1:
        raise ValueError(f"'score' must be one-dimensional (got shape {list(score.shape)})")
    k = check_integer(k, "k")
    if not 0 <= k <= score.numel():
        raise ValueError(f"'k' must be between 0 and the number of scores, {score.numel()} (got {k})")
    score = score.detach()
    if score.is_floating_point() and score.isnan().any():
        raise ValueError("'score' must not hold NaN")
    return mark_smallest(score, int(k))


def mark_smallest(score: Tensor, k: int, *ties: Tensor) -> Tensor:
    """Do what :func:`smallest_k_mask` does, for scores that are known to be right; no device is waited for.

    Further scores may decide between equal ones, before the index does; then a device is waited for.
    """
    if score.dtype == torch.bool:
        score = score.to(torch.uint8)
    if k == 0:
        return torch.zeros_like(score, dtype=torch.bool)
    threshold = kth_smallest(score, k)
    mask = score < threshold
    if score.device.type != "cpu" and not ties:
        equal = score == threshold
        return mask | (equal & (equal.cumsum(0) <= k - mask.count_nonzero()))
    equal = (score == threshold).nonzero().squeeze(1)
    rest = k - int(mask.count_nonzero())
    first = equal[mark_smallest(ties[0][equal], rest, *ties[1:])] if ties else equal[:rest]
    mask[first] = True
    return mask


def drop_and_grow(kept: Tensor, size: Tensor, score: Tensor, number: int) -> Tensor:
    """Drop the smallest of what is kept, and keep as many of the rest with the largest scores in their place.

    What was just dropped may come back. Ties go to the lowest index, in dropping and in growing.

    Args:
        kept: Which entries are kept, bool of any shape.
        size: Their sizes, not negative, of the same shape.
        score: What is grown by, of the same shape.
        number: How many are dropped and grown; at most as many as are kept.

    Returns:
        Which entries are kept afterwards, as many as before.

    Raises:
        ValueError: If sizes or scores hold NaN, or ``number`` is out of range.

    Example:
        >>> kept, size = torch.tensor([True, True, False, False]), torch.tensor([0.1, 2.0, 0.0, 0.0])
        >>> drop_and_grow(kept, size, torch.tensor([0.5, 0.0, 0.2, 0.9]), 1)
        tensor([False,  True, False,  True])
    """
    if not 0 <= number <= (num_kept := int(kept.count_nonzero())):
        raise ValueError(f"'number' must be between 0 and what is kept, {num_kept} (got {number})")
    gone = smallest_k_mask(size.masked_fill(~kept, torch.inf).reshape(-1), number).view_as(kept)
    stay = kept & ~gone
    grown = smallest_k_mask(score.neg().masked_fill(stay, torch.inf).reshape(-1), number).view_as(kept)
    return stay | grown


def n_of_m_mask(values: Tensor, n: int, m: int) -> Tensor:
    """Mark the ``n`` largest of every ``m`` along the last dimension; of a rest of fewer than ``m``, its ``n`` largest.

    Args:
        values: Numbers that are not negative, without NaN.
        n: How many of a group are marked.
        m: How many make a group.

    Example:
        >>> n_of_m_mask(torch.tensor([[3.0, 1.0, 2.0, 0.0, 5.0]]), 2, 4)
        tensor([[ True, False,  True, False,  True]])
    """
    width = values.size(-1)
    # What fills up the last group is smaller than all that is there.
    full = torch.nn.functional.pad(values, (0, -width % m), value=-1.0)
    groups = full.view(*values.shape[:-1], -1, m)
    removed = groups.argsort(dim=-1, stable=True)[..., : m - n]
    mask = torch.ones_like(groups, dtype=torch.bool).scatter_(-1, removed, False)
    return mask.flatten(-2)[..., :width]
