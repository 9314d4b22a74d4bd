r"""From one flat vector of scores to the number of coats that keep each entry: exact counts, one compare pass.

Removing a sparsity :math:`k` of :math:`n` scores removes the :math:`\lfloor k n \rfloor` smallest, ties broken by the
lowest index, as everywhere in this package.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from graphsparse.ops.select import kth_smallest, num_removed

#: What is ranked: the score itself or its absolute value.
Transform: TypeAlias = Literal["identity", "abs"]

TRANSFORMS = ("identity", "abs")
_GROUP = re.compile(r"(\d+):(\d+)")


def parse_group(scope: str) -> tuple[int, int] | None:
    """Return ``(n, m)`` of a scope ``"n:m"``, and ``None`` for ``"global"`` and ``"layer"``.

    Args:
        scope: A scope.

    Raises:
        TypeError: If ``scope`` is not a string.
        ValueError: If it is none of these, or not ``1 <= n <= m``.

    Example:
        >>> parse_group("2:4")
        (2, 4)
    """
    if not isinstance(scope, str):
        raise TypeError(f"'scope' must be a string (got {type(scope).__name__})")
    if scope in ("global", "layer"):
        return None
    match = _GROUP.fullmatch(scope)
    if match is None:
        raise ValueError(f"'scope' must be 'global', 'layer' or 'n:m' such as '2:4' (got {scope!r})")
    n, m = int(match[1]), int(match[2])
    if not 1 <= n <= m:
        raise ValueError(f"'scope' n:m keeps n of every m, with 1 <= n <= m (got {scope!r})")
    return n, m


@dataclass(frozen=True)
class ThresholdPlan:
    """What is compared with what: the tensors within the flat scores, and the rule.

    Args:
        sizes: Number of scores of every tensor, in their order.
        widths: Length of the last dimension of every tensor, the input dimension of a matrix.
        sparsities: Final sparsity of every coat, not falling.
        scope: ``"global"`` for one threshold, ``"layer"`` for one per tensor, ``"n:m"`` to keep the ``n`` largest of
            every ``m`` along the last dimension. Of a rest of fewer than ``m``, the ``n`` largest are kept.
        transform: Rank scores (``"identity"``) or their absolute values (``"abs"``).

    Raises:
        ValueError: If the scope or the transform is unknown, or ``n:m`` has more than one coat.
    """

    sizes: tuple[int, ...]
    widths: tuple[int, ...]
    sparsities: tuple[float, ...]
    scope: str = "global"
    transform: Transform = "identity"

    def __post_init__(self) -> None:
        """Check the rule."""
        if self.transform not in TRANSFORMS:
            raise ValueError(f"'transform' must be one of {TRANSFORMS} (got {self.transform!r})")
        if parse_group(self.scope) is not None and len(self.sparsities) > 1:
            raise ValueError(f"'coats' must be 1 for the scope {self.scope!r} (got {len(self.sparsities)})")


#: Largest removed key, for every coat; ``None`` where nothing is removed.
_Found: TypeAlias = list[Tensor | None]


def _count(
    scores: Tensor, plan: ThresholdPlan, factor: float, scratch: Tensor, hint: list[_Found] | None
) -> tuple[Tensor, list[_Found]]:
    """Count coats, and return the thresholds of every part that is ranked by itself."""
    keys = torch.abs(scores, out=scratch) if plan.transform == "abs" else scores
    group = parse_group(plan.scope)
    if group is not None:
        return _count_groups(keys, plan, group, factor), []
    counts = torch.zeros(scores.shape, dtype=torch.uint8, device=scores.device)
    found: list[_Found] = []
    start = 0
    for index, size in enumerate((scores.numel(),) if plan.scope == "global" else plan.sizes):
        part = slice(start, start + size)
        removed = [_num_removed(sparsity * factor, size) for sparsity in plan.sparsities]
        kept = None if hint is None else _kept_as_before(keys[part], removed, hint[index])
        if hint is not None and kept is not None:
            thresholds = hint[index]
        else:
            thresholds = _thresholds(keys[part], removed, scratch[part])
            if keys is scratch:
                torch.abs(scores[part], out=keys[part])  # the selection has reordered them
            kept = [_kept(keys[part], num, value) for num, value in zip(removed, thresholds, strict=True)]
        for mask in kept:
            counts[part].add_(mask.view(torch.uint8))
        found.append(thresholds)
        start += size
    return counts, found


def _num_removed(sparsity: float, num: int) -> int:
    return num if sparsity >= 1 else num_removed(sparsity, num)


def _thresholds(keys: Tensor, removed: Sequence[int], scratch: Tensor) -> _Found:
    """Select the largest removed key for every number of removed ones, which must not fall."""
    if scratch.data_ptr() != keys.data_ptr():
        scratch.copy_(keys)
    found: _Found = []
    done = 0
    for num in removed:
        if num > done:
            # What a selection leaves behind it is at least as large: the next one needs to look at nothing else. Only
            # the selection on CPU reorders.
            on_cpu = scratch.device.type == "cpu" and scratch.dtype not in (torch.bfloat16, torch.float16)
            skip = done if on_cpu else 0
            found.append(kth_smallest(scratch[skip:], num - skip, overwrite=True))
            done = num
        else:
            found.append(found[-1] if num else None)
    return found


def _kept(keys: Tensor, num: int, threshold: Tensor | None) -> Tensor:
    """Mark all but the ``num`` smallest keys, of which ``threshold`` is the largest."""
    if threshold is None:
        return torch.ones_like(keys, dtype=torch.bool)
    if keys.device.type != "cpu":
        return _kept_without_sync(keys, num, threshold)
    kept = keys > threshold
    if int(kept.count_nonzero()) + num == keys.numel():
        return kept
    if threshold.isnan() or keys.isnan().any():
        raise ValueError("the scores hold NaN; a smaller learning rate may help")
    ties = (keys == threshold).nonzero().squeeze(1)
    # Ties are removed from the lowest index on, the last ones stay.
    kept[ties[ties.numel() - (keys.numel() - num - int(kept.count_nonzero())) :]] = True
    return kept


def _kept_as_before(keys: Tensor, removed: Sequence[int], thresholds: _Found) -> list[Tensor] | None:
    """Compare with earlier thresholds; ``None`` if they do not leave out exactly as many as they should."""
    masks = []
    for num, threshold in zip(removed, thresholds, strict=True):
        masks.append(torch.ones_like(keys, dtype=torch.bool) if threshold is None else keys > threshold)
        if int(masks[-1].count_nonzero()) + num != keys.numel():
            return None
    return masks


def _kept_without_sync(keys: Tensor, num: int, threshold: Tensor) -> Tensor:
    """Do the same with a running count of the ties instead of a look at how many there are."""
    ties = keys == threshold
    left = num - (keys < threshold).sum()
    return (keys > threshold) | (ties & (ties.cumsum(0, dtype=torch.int32) > left))


def _count_groups(keys: Tensor, plan: ThresholdPlan, group: tuple[int, int], factor: float) -> Tensor:
    n, m = group
    removed = int(factor * (m - n))
    kept = torch.empty(keys.shape, dtype=torch.bool, device=keys.device)
    start = 0
    for size, width in zip(plan.sizes, plan.widths, strict=True):
        rows = keys[start : start + size].view(-1, width)
        out = kept[start : start + size].view(-1, width)
        whole = width - width % m
        if whole:
            groups = rows[:, :whole].view(-1, whole // m, m)
            out[:, :whole].view(-1, whole // m, m).copy_(_rank(groups) >= removed)
        if whole < width:
            out[:, whole:] = _rank(rows[:, whole:]) >= removed - (m - (width - whole))
        start += size
    return kept.view(torch.uint8)


def _rank(groups: Tensor) -> Tensor:
    """Rank in the last dimension from 0, ties by the lowest index; pairs are faster than a sort of so few."""
    size = groups.size(-1)
    columns = groups.unbind(-1)
    rank = torch.zeros(groups.shape, dtype=torch.int16, device=groups.device)
    for i in range(size):
        for j in range(size):
            if j != i:
                rank[..., i] += columns[j] <= columns[i] if j < i else columns[j] < columns[i]
    return rank


class Thresholds:
    """Counts coats with memory: for unchanged scores the thresholds of the last call are used again.

    That the version counter of the tensor has not moved is only a hint, as fused optimisers do not move it. The
    comparison with the old thresholds then shows whether they still leave out exactly as many scores as they should,
    and if so, the result is right whatever has happened. On an accelerator, where reading that number would wait for
    the device, thresholds are selected every time.

    Args:
        plan: Tensors and rule.

    Example:
        >>> thresholds = Thresholds(ThresholdPlan(sizes=(3,), widths=(3,), sparsities=(0.4,)))
        >>> thresholds.counts(torch.tensor([0.3, 0.1, 0.2]))
        tensor([1, 0, 1], dtype=torch.uint8)
    """

    def __init__(self, plan: ThresholdPlan) -> None:
        self.plan = plan
        self._key: tuple[Any, ...] | None = None
        self._found: list[_Found] | None = None
        self._scratch: Tensor | None = None

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def counts(self, scores: Tensor, factor: float = 1.0) -> Tensor:
        """Return how many coats keep each score, uint8 ``[n]``; on an accelerator nothing waits for the device.

        Args:
            scores: Flat scores, floating point ``[n]``, without NaN.
            factor: Fraction of the final sparsities that holds now, between 0 and 1.

        Raises:
            ValueError: If the scores hold NaN (seen on CPU only).
        """
        # A tensor made in inference mode could not be used in training afterwards.
        with torch.inference_mode(False), torch.no_grad():
            key = (scores.data_ptr(), scores._version, scores.device, scores.dtype, factor)
            hint = self._found if key == self._key and scores.device.type == "cpu" else None
            scores = scores.detach()
            if self._scratch is None or self._scratch.device != scores.device or self._scratch.dtype != scores.dtype:
                self._scratch = torch.empty_like(scores)
            counts, self._found = _count(scores, self.plan, factor, self._scratch, hint)
            self._key = key
            return counts

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is kept: a copy has other scores."""
        return {"plan": self.plan}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Start with nothing kept."""
        self.__init__(state["plan"])  # type: ignore[misc]
