"""Normalised edge values, differentiable in the values they come from."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from graphsparse.ops.kernels import product
from graphsparse.ops.pattern import Pattern
from graphsparse.ops.sort import index_dtype
from graphsparse.ops.traced import is_transformed


class _RowSum(torch.autograd.Function):
    """Sum of the values of each row."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, pattern: Pattern) -> Tensor:
        ctx.pattern = pattern
        ones = torch.ones(pattern.num_cols, 1, dtype=value.dtype, device=value.device)
        return product(pattern, value, ones, "torch").squeeze(1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return spread(ctx.pattern, grad), None


def spread(pattern: Pattern, node_value: Tensor) -> Tensor:
    """Return the number of its row for each entry, ``[E]``."""
    return node_value.repeat_interleave(pattern.rowptr.diff(), output_size=pattern.num_entries)


def row_sum(pattern: Pattern, value: Tensor | None, dtype: torch.dtype | None = None) -> Tensor:
    """Return the sum of the values of each row, ``[num_rows]``; without values the number of entries."""
    if value is None:
        return pattern.rowptr.diff().to(dtype or torch.get_default_dtype())
    if is_transformed():
        return value.new_zeros(pattern.num_rows).index_add(0, pattern.row(), value)
    total: Tensor = _RowSum.apply(value, pattern)  # type: ignore[no-untyped-call]
    return total


def inverse(total: Tensor, power: float = 1.0) -> Tensor:
    """Return ``total ** -power``, with 0 where the total is 0, and no gradient there."""
    empty = total == 0
    return total.masked_fill(empty, 1).pow(-power).masked_fill(empty, 0)


def gcn_value(pattern: Pattern, value: Tensor | None, dtype: torch.dtype | None = None) -> Tensor:
    """Return ``value / sqrt(degree[row] * degree[col])`` where a degree is the sum over a row."""
    scale = inverse(row_sum(pattern, value, dtype), 0.5)
    # This order of the products makes entries that mirror each other equal to the last bit.
    both = spread(pattern, scale) * scale.index_select(0, pattern.col)
    return both if value is None else value * both


class Looped(NamedTuple):
    """A pattern in which every node has exactly one self-loop.

    In the order of the edge list all other edges come first, then the self-loops by node, as
    ``torch_geometric.utils.add_remaining_self_loops`` has them.

    Attributes:
        pattern: The new pattern.
        source: For each new entry the old one that it stands for, or ``E + i`` for a self-loop that node ``i`` did not
            have. Of several the last one counts.
        place: Where the self-loop of each node is in the new pattern, ``[num_nodes]``.
        old: The self-loops of the old pattern.
    """

    pattern: Pattern
    source: Tensor
    place: Tensor
    old: Tensor


def with_loops(pattern: Pattern, value: Tensor | None, fill: float) -> tuple[Pattern, Tensor | None]:
    """Give every node exactly one self-loop, with the value ``fill`` where it had none of a value other than 0."""
    looped: Looped = pattern.keep("loops", lambda: remaining_loops(pattern))
    if value is None:
        return looped.pattern, None
    source = looped.source
    removed = value.detach().index_select(0, looped.old) == 0
    if value.device.type != "cpu" or removed.any():  # a device is not waited for to find out
        last = _last_loop(pattern, looped.old, removed)
        source = source.index_copy(0, looped.place, last.to(source.dtype))
    loops = value.new_full((pattern.num_rows,), fill)
    return looped.pattern, torch.cat([value, loops]).index_select(0, source)


def remaining_loops(pattern: Pattern) -> Looped:
    """Give every node exactly one self-loop, by prefix sums; a device is waited for once, for the number of entries."""
    size, num_nodes = pattern.num_entries, pattern.num_rows
    row, col = pattern.row(), pattern.col
    nodes, entries = torch.arange(num_nodes, device=col.device), torch.arange(size, device=col.device)
    kept = row != col
    before = _count_before(kept)
    lower = _count_before(col < row)
    ptr = pattern.rowptr.long()
    num_kept = int(before[-1])
    total, num_loops = num_kept + num_nodes, size - num_kept
    loop_place = before[ptr[:-1]] + nodes + lower[ptr].diff()
    # A kept entry moves back by the loops dropped before it, and forward by those added: one for each earlier row.
    # All others go to one place behind the end, which is cut off: their number need not be known.
    place = torch.where(kept, before[:-1] + row + (col > row), total)
    loops = entries.new_empty(num_loops + 1)
    loops[torch.where(kept, num_loops, entries - before[:-1])] = entries
    loops = loops[:num_loops]

    dtype = index_dtype(size + num_nodes)
    last = _last_loop(pattern, loops, torch.zeros_like(loops, dtype=torch.bool))
    source = _placed(place, entries, loop_place, last, total, dtype)
    new_col = _placed(place, col, loop_place, nodes, total, dtype)
    rank = before[:-1]
    if pattern.perm is not None:
        rank = _count_before(pattern.to_edges(kept)).index_select(0, pattern.perm)
    perm = _placed(place, rank, loop_place, num_kept + nodes, total, dtype)
    rowptr = torch.cat([before[ptr[:-1]] + nodes, nodes.new_full((1,), total)]).to(dtype)
    return Looped(Pattern(rowptr, new_col, num_nodes, perm, pattern.symmetric), source, loop_place, loops)


def _placed(
    place: Tensor, values: Tensor, loop_place: Tensor, loop_values: Tensor, total: int, dtype: torch.dtype
) -> Tensor:
    """Return values of entries and of self-loops in their places."""
    out = torch.empty(total + 1, dtype=dtype, device=place.device)
    out[place] = values.to(dtype)
    out[loop_place] = loop_values.to(dtype)
    return out[:total].clone()


def _last_loop(pattern: Pattern, loops: Tensor, removed: Tensor) -> Tensor:
    """Return the last of the self-loops of each node that is not removed, ``E + i`` where node ``i`` has none."""
    nodes = torch.arange(pattern.num_rows, device=loops.device)
    last = torch.full_like(nodes, -1)
    last.scatter_reduce_(0, pattern.col.index_select(0, loops).long(), loops.masked_fill(removed, -1), "amax")
    return torch.where(last >= 0, last, pattern.num_entries + nodes)


def _count_before(marked: Tensor) -> Tensor:
    """Return how many are marked before each position, ``[E + 1]``."""
    count = torch.zeros(marked.numel() + 1, dtype=torch.int64, device=marked.device)
    torch.cumsum(marked, 0, out=count[1:])
    return count
