"""Edges into given nodes, and random draws among them."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from graphsparse.ops.pattern import Pattern


class InGraph:
    """The edges of a graph by destination, on the CPU, built once for all batches.

    Besides the edges it holds 8 bytes per node.

    Args:
        edge_index: Edges ``[2, E]`` in any order; repeated edges stay apart.
        num_nodes: Number of nodes.

    Attributes:
        rowptr: Where the edges into each node start, ``[N + 1]``.
        source: Source of each edge, by destination, ``[E]``.
    """

    def __init__(self, edge_index: Tensor, num_nodes: int) -> None:
        source, destination = edge_index.as_subclass(Tensor).cpu()
        pattern = Pattern.build(destination, source, num_nodes, num_nodes)
        self.rowptr, self.source = pattern.rowptr.long(), pattern.col
        self._edge_id = None if pattern.perm is None else pattern.perm.long()
        self.num_nodes = num_nodes
        self._place = torch.full((num_nodes,), -1)

    def degree(self) -> Tensor:
        """Return the number of edges into each node, ``[N]``."""
        return self.rowptr.diff()

    def edge_id(self, place: Tensor) -> Tensor:
        """Return which edges of ``edge_index`` are at some places of the order by destination."""
        return place if self._edge_id is None else self._edge_id[place]

    def by_destination(self, value: Tensor) -> Tensor:
        """Return values ``[E]`` of the edges in the order by destination."""
        return value if self._edge_id is None else value[self._edge_id]

    def into(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """Return all edges into some nodes.

        Args:
            nodes: Nodes ``[n]``.

        Returns:
            The places of the edges in the order by destination, ``[m]``, and for each the position of its destination
            in ``nodes``, ``[m]``.
        """
        start = self.rowptr[nodes]
        count = self.rowptr[nodes + 1] - start
        target = torch.arange(nodes.numel()).repeat_interleave(count)
        place = torch.arange(target.numel())
        place += (start - (count.cumsum(0) - count))[target]
        return place, target

    @contextmanager
    def numbered(self, nodes: Tensor) -> Iterator[Tensor]:
        """Yield the position of each node of the graph in ``nodes``, ``[N]``, -1 for others; valid inside the block."""
        self._place[nodes] = torch.arange(nodes.numel())
        try:
            yield self._place
        finally:
            self._place[nodes] = -1

    def between(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """Return the edges with both ends among some nodes.

        Args:
            nodes: Nodes ``[n]``, each named once.

        Returns:
            Edges ``[2, m]`` as positions in ``nodes``, by destination, and their places in the order by destination.
        """
        place, target = self.into(nodes)
        with self.numbered(nodes) as position:
            source = position[self.source[place].long()]
        inside = source >= 0
        return torch.stack([source[inside], target[inside]]), place[inside]


def new_generator(seed: int) -> torch.Generator:
    """Return a generator for a seed; its stream is another one than that of initial weights of the same seed."""
    return torch.Generator().manual_seed((seed + 1) * 0x9E3779B97F4A7C15 % 2**63)


def uniform(*size: int, generator: torch.Generator) -> Tensor:
    """Return float64 numbers in ``[0, 1)``."""
    return torch.rand(*size, dtype=torch.float64, generator=generator)


def cumulative(weight: Tensor) -> Tensor:
    """Return the running sum of weights ``[n]``, divided by their sum, float64; empty where every weight is 0."""
    total = weight.to(torch.float64).cumsum(0)
    if total.numel() == 0 or total[-1] == 0:
        return total[:0]
    return total / total[-1]  # exactly 1 at the last positive weight, so that a weight of 0 is never drawn


def from_cumulative(total: Tensor, num: int, generator: torch.Generator) -> Tensor:
    """Draw positions ``[num]`` independently, in proportion to weights of which :func:`cumulative` made ``total``.

    Nothing is drawn where every weight is 0.
    """
    if total.numel() == 0:
        return torch.empty(0, dtype=torch.int64)
    return torch.searchsorted(total, uniform(num, generator=generator), right=True)


def distinct_below(limit: Tensor, num: int, generator: torch.Generator) -> Tensor:
    """Draw ``num`` distinct integers below each limit, every set of them with the same probability.

    Floyd's algorithm for all limits at once: step ``i`` draws up to ``limit - num + i``, and takes that number itself
    where the drawn one was taken before.

    Source: Bentley and Floyd, *A sample of brilliance*, Communications of the ACM 30 (1987).
    """
    draw = uniform(limit.numel(), num, generator=generator)
    chosen = torch.empty(limit.numel(), num, dtype=torch.int64)
    for i in range(num):
        last = limit - num + i
        drawn = torch.minimum((draw[:, i] * (last + 1)).long(), last)
        taken = (chosen[:, :i] == drawn[:, None]).any(1)
        chosen[:, i] = torch.where(taken, last, drawn)
    return chosen


def start_of_order(total: int, num: int, generator: torch.Generator) -> Tensor:
    """Return the first ``num`` of ``0, 1, ..., total - 1`` in random order, at a cost that grows with ``num`` alone.

    Numbers are drawn one after the other, and those that were drawn before are passed over, until there are enough.
    """
    if 4 * num >= total:
        return torch.randperm(total, generator=generator)[:num]
    chosen = torch.empty(0, dtype=torch.int64)
    while chosen.numel() < num:
        more = num - chosen.numel()
        drawn = torch.cat([chosen, torch.randint(total, (more,), generator=generator)])
        value, place = drawn.sort(stable=True)
        first = torch.ones_like(value, dtype=torch.bool)
        first[1:] = value[1:] != value[:-1]
        chosen = drawn[place[first].sort().values]
    return chosen
