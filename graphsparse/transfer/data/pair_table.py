"""Undirected pairs in canonical order, and where among them a given pair is."""

from collections.abc import Iterator

import torch
from torch import Tensor

from graphsparse.ops.blocks import CACHED, blocks
from graphsparse.ops.check import check_edge_index
from graphsparse.ops.pairs import find_sorted, pair_keys
from graphsparse.ops.sort import edge_order, index_dtype


class PairTable:
    """A set of undirected pairs ``{u, v}``, sorted by the smaller end, then by the larger one.

    It holds 16 bytes per pair (24 with more than 2^31 nodes), and 4 more where the pairs did not come sorted.

    Args:
        pairs: Pairs ``[2, C]`` in any order and direction, each once, without self-loops; int64 or int32.
        num_nodes: Number of nodes.
        name: Name of the argument, for the error messages.

    Attributes:
        low: Smaller ends, ``[C]``, ascending; int32 where the ids fit.
        high: Larger ends, ``[C]``.
        order: The pair of the input at each place, ``[C]``; ``None`` if the input is sorted.

    Raises:
        TypeError: If ``pairs`` is not an integer tensor.
        ValueError: If its shape or an index is out of range, or it holds a self-loop or a pair twice.

    Example:
        >>> table = PairTable(torch.tensor([[2, 1], [0, 0]]), 3)
        >>> table.low, table.high, table.order
        (tensor([0, 0], dtype=torch.int32), tensor([1, 2], dtype=torch.int32), tensor([1, 0], dtype=torch.int32))
        >>> table.find(torch.tensor([[2, 1], [0, 2]]))
        tensor([ 1, -1])
    """

    def __init__(self, pairs: Tensor, num_nodes: int, name: str = "pairs") -> None:
        check_edge_index(pairs, num_nodes, name)
        self.num_nodes = int(num_nodes)
        size = pairs.size(1)
        dtype = index_dtype(num_nodes)
        low = torch.empty(size, dtype=dtype, device=pairs.device)
        high = torch.empty_like(low)
        for where in blocks(size, CACHED):
            u, v = pairs[0, where], pairs[1, where]
            if bool((u == v).any()):
                place = where.start + int((u == v).nonzero()[0])
                raise ValueError(f"'{name}' must not hold self-loops (got the pair {pairs[:, place].tolist()})")
            low[where], high[where] = torch.minimum(u, v), torch.maximum(u, v)
        self.order = edge_order(low, high, self.num_nodes, self.num_nodes)
        if self.order is not None:
            low, high = low.index_select(0, self.order), high.index_select(0, self.order)
        self.low, self.high = low, high
        self._key = torch.empty(size, dtype=torch.int64, device=pairs.device)
        for where in blocks(size, CACHED):
            self._key[where] = low[where].long() * self.num_nodes + high[where]
        for where in blocks(size - 1, CACHED):
            same = self._key[where] == self._key[where.start + 1 : where.stop + 1]
            if bool(same.any()):
                place = where.start + int(same.nonzero()[0])
                pair = [int(low[place]), int(high[place])]
                raise ValueError(f"'{name}' must hold each undirected pair once (got {pair} twice, in any direction)")

    def __len__(self) -> int:
        return self.low.numel()

    @property
    def device(self) -> torch.device:
        """Device of the pairs."""
        return self.low.device

    def blocks(self) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Yield ``(slice, low, high)`` for blocks of pairs in canonical order, ends as int64."""
        for where in blocks(len(self), CACHED):
            yield where, self.low[where].long(), self.high[where].long()

    def sorted(self, values: Tensor) -> Tensor:
        """Return values of the pairs ``[C]``, given in the order of the input, in canonical order."""
        return values if self.order is None else values.index_select(0, self.order)

    def unsorted(self, values: Tensor) -> Tensor:
        """Return values of the pairs ``[C]``, given in canonical order, in the order of the input."""
        if self.order is None:
            return values
        result = torch.empty_like(values)
        result[self.order.long()] = values
        return result

    def find(self, pairs: Tensor) -> Tensor:
        """Return the place of each given pair in canonical order, ``[Q]`` int64, -1 where it is not in the table."""
        place = torch.empty(pairs.size(1), dtype=torch.int64, device=pairs.device)
        for where in blocks(pairs.size(1)):
            place[where] = find_sorted(pair_keys(pairs[:, where], self.num_nodes), self._key)
        return place
