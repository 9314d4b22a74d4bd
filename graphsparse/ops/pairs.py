"""Pairs of nodes as one number each, a *key*; sets of pairs are sorted keys, joined by sorting and searching."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from graphsparse.ops.blocks import CACHED, blocks
from graphsparse.ops.check import check_edge_index
from graphsparse.ops.sort import edge_order, index_dtype

#: Known keys below which all of them are in the cache, in whatever order they are asked for.
_FEW = 1 << 16
#: Numbers that NumPy sorts in linear time, and so the most parts that keys are dealt out to.
_MOST_BUCKETS = 1 << 16
_CPU = torch.device("cpu")
#: Pairs as a matrix ``[2, P]`` or as their first and second ends.
Pairs: TypeAlias = Tensor | tuple[Tensor, Tensor]


def pair_keys(pairs: Pairs, num_nodes: int, *, directed: bool = False) -> Tensor:
    """Return the key of each pair: ``low * num_nodes + high``, or ``u * num_nodes + v`` where directions count.

    Example:
        >>> pair_keys(torch.tensor([[0, 2], [1, 1]]), 3)
        tensor([1, 5])
    """
    first, second = pairs
    keys = torch.empty(first.numel(), dtype=torch.int64, device=first.device)
    for where in blocks(keys.numel(), CACHED):
        u, v = first[where].long(), second[where].long()
        if not directed:
            u, v = torch.minimum(u, v), torch.maximum(u, v)
        torch.add(v, u, alpha=num_nodes, out=keys[where])
    return keys


def key_pairs(keys: Tensor, num_nodes: int) -> Tensor:
    """Return the pairs ``[2, P]`` of keys.

    Example:
        >>> key_pairs(torch.tensor([1, 5]), 3)
        tensor([[0, 1],
                [1, 2]])
    """
    u = keys // max(num_nodes, 1)
    return torch.stack([u, keys - u * num_nodes])


def key_blocks(keys: Tensor, num_nodes: int) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Yield ``(slice, u, v)`` for blocks of keys."""
    for where in blocks(keys.numel()):
        u = keys[where] // max(num_nodes, 1)
        yield where, u, keys[where] - u * num_nodes


def sort_keys(keys: Tensor) -> Tensor:
    """Sort keys in place, and return them."""
    if keys.device.type == "cpu":
        # NumPy's in-place sort of integers is vectorised and needs no index array; torch.sort returns one.
        keys.numpy().sort()
    else:
        keys.copy_(keys.sort().values)
    return keys


def unique_keys(keys: Tensor) -> Tensor:
    """Sort keys in place, and return each once: the front part of the same memory on CPU.

    Example:
        >>> unique_keys(torch.tensor([3, 1, 3]))
        tensor([1, 3])
    """
    if keys.device.type != "cpu":
        found: Tensor = torch.unique(keys)
        return found
    values = sort_keys(keys).numpy()
    kept = 0
    for where in blocks(len(values)):
        block = values[where]
        new = np.empty(len(block), dtype=bool)
        new[0] = kept == 0 or block[0] != values[kept - 1]
        np.not_equal(block[1:], block[:-1], out=new[1:])
        unique = block[new]
        values[kept : kept + len(unique)] = unique
        kept += len(unique)
    return keys[:kept]


def collect_keys(parts: Iterable[Tensor], most: int) -> Tensor:
    """Return the keys that come in some parts on CPU, at most so many, sorted and each once.

    There are 8 bytes for each that may come, and in the end for each that is returned.
    """
    buffer = np.empty(most, dtype=np.int64)
    filled = 0
    for part in parts:
        buffer[filled : filled + part.numel()] = part.numpy()
        filled += part.numel()
    buffer.resize(unique_keys(torch.from_numpy(buffer)[:filled]).numel(), refcheck=False)
    return torch.from_numpy(buffer)


def unique_with_places(
    parts: Callable[[], Iterable[Tensor]], size: int, bound: int, device: torch.device = _CPU
) -> tuple[Tensor, Tensor]:
    """Return the distinct keys, sorted, and the place of every key among them ``[size]``, int32 where that is enough.

    On CPU keys are dealt out by their highest bits, so that the rest and the position of a key fit into one number:
    NumPy sorts numbers several times as fast as it finds their order. Besides the places there are 8 bytes for each
    key.

    Args:
        parts: Gives the keys in parts, the same each time it is called.
        size: Number of keys.
        bound: All are in ``[0, bound)``.
        device: Where they are.

    Example:
        >>> unique_with_places(lambda: [torch.tensor([7, 2]), torch.tensor([7])], 3, 8)
        (tensor([2, 7]), tensor([1, 0, 1], dtype=torch.int32))
    """
    bits = max(size - 1, 0).bit_length()
    shift = 63 - bits
    num_buckets = (max(bound - 1, 0) >> shift) + 1
    if device.type != "cpu" or num_buckets > _MOST_BUCKETS:
        keys = torch.cat([torch.empty(0, dtype=torch.int64, device=device), *parts()])
        found, place = torch.unique(keys, return_inverse=True)
        return found, place.to(index_dtype(size))
    count = np.zeros(num_buckets, dtype=np.int64)
    for part in parts():
        count += np.bincount(part.numpy() >> shift, minlength=num_buckets)
    packed = _deal_out(parts(), count, size, shift)
    place = torch.empty(size, dtype=index_dtype(size))
    kept, last, begin = 0, -1, 0
    for bucket, in_bucket in enumerate(count.tolist()):
        packed[begin : begin + in_bucket].sort()
        for where in blocks(in_bucket):
            block = packed[begin + where.start : begin + where.stop]
            key, position = (block >> bits) | (bucket << shift), block & ((1 << bits) - 1)
            new = np.empty(len(key), dtype=bool)
            new[0] = key[0] != last
            np.not_equal(key[1:], key[:-1], out=new[1:])
            place.numpy()[position] = np.cumsum(new) + (kept - 1)
            distinct, last = key[new], key[-1]
            packed[kept : kept + len(distinct)] = distinct
            kept += len(distinct)
        begin += in_bucket
    packed.resize(kept, refcheck=False)
    return torch.from_numpy(packed), place


def _deal_out(parts: Iterable[Tensor], count: np.ndarray, size: int, shift: int) -> np.ndarray:
    """Return the keys bucket by bucket, in any order within one: the bits below a shift, and behind them positions."""
    packed = np.empty(size, dtype=np.int64)
    free, begin = np.cumsum(count) - count, 0
    for part in parts:
        key = part.numpy()
        order = np.argsort((key >> shift).astype(np.uint16), kind="stable")  # NumPy sorts 16 bits in linear time
        here = np.bincount(key >> shift, minlength=len(count))
        to = np.arange(len(key)) + np.repeat(free - (np.cumsum(here) - here), here)
        number = (key & ((1 << shift) - 1)) << (63 - shift) | np.arange(begin, begin + len(key))
        packed[to] = number[order]
        free, begin = free + here, begin + len(key)
    return packed


def both_ways(keys: Tensor, num_nodes: int) -> Tensor:
    """Return the sorted keys ``[2P]`` of pairs in both directions.

    Example:
        >>> both_ways(torch.tensor([1, 5]), 3)
        tensor([1, 3, 5, 7])
    """
    both = torch.empty(2 * keys.numel(), dtype=torch.int64, device=keys.device)
    both[: keys.numel()] = keys
    for where, u, v in key_blocks(keys, num_nodes):
        torch.add(u, v, alpha=num_nodes, out=both[keys.numel() :][where])
    return sort_keys(both)


def find_sorted(keys: Tensor, known: Tensor) -> Tensor:
    """Return the place of each key ``[Q]`` among known ones, which are sorted and distinct; -1 where it is not.

    Example:
        >>> find_sorted(torch.tensor([9, 3, 4]), torch.tensor([1, 4, 9]))
        tensor([ 2, -1,  1])
    """
    if known.numel() == 0:
        return torch.full_like(keys, -1)
    if keys.device.type != "cpu" or known.numel() < _FEW:
        return _find(keys, known)
    # Sorted keys are found several times as fast as those in a random order, among more than a cache holds.
    place = torch.empty_like(keys)
    for where in blocks(keys.numel()):
        part = keys[where]
        if bool((part[1:] >= part[:-1]).all()):
            place[where] = _find(part, known)
            continue
        order, part = _sort_with_order(part.numpy())
        place[where][order] = _find(part, known)
    return place


def _sort_with_order(keys: np.ndarray) -> tuple[Tensor, Tensor]:
    """Return the order that sorts some keys, none of them negative, and the sorted keys."""
    bits = max(len(keys) - 1, 0).bit_length()
    if int(keys.max(initial=0)).bit_length() + bits > 63:
        order = np.argsort(keys)
        return torch.from_numpy(order), torch.from_numpy(keys[order])
    packed = (keys << bits) | np.arange(len(keys))  # NumPy sorts numbers several times as fast as it finds their order
    packed.sort()
    return torch.from_numpy(packed & ((1 << bits) - 1)), torch.from_numpy(packed >> bits)


def _find(keys: Tensor, known: Tensor) -> Tensor:
    place = torch.searchsorted(known, keys).clamp_(max=known.numel() - 1)
    return place.masked_fill_(known[place] != keys, -1)


def is_among(keys: Tensor, known: Tensor) -> Tensor:
    """Say of each key whether it is among known ones, which are sorted and distinct.

    Example:
        >>> is_among(torch.tensor([3, 4]), torch.tensor([1, 4, 9]))
        tensor([False,  True])
    """
    found = torch.empty(keys.numel(), dtype=torch.bool, device=keys.device)
    for where in blocks(keys.numel()):
        found[where] = find_sorted(keys[where], known) >= 0
    return found


def hide_pairs(keys: Tensor, pairs: Tensor, num_nodes: int, *, directed: bool = False) -> Tensor:
    """Say of each key whether it stays when some pairs ``[2, P]`` are hidden; keys and pairs are both of one kind.

    Example:
        >>> hide_pairs(torch.tensor([1, 2, 5]), torch.tensor([[1], [0]]), 3)
        tensor([False,  True,  True])
    """
    return ~is_among(keys, unique_keys(pair_keys(pairs, num_nodes, directed=directed)))


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
        low = torch.empty(pairs.size(1), dtype=index_dtype(num_nodes), device=pairs.device)
        high = torch.empty_like(low)
        for where in blocks(pairs.size(1), CACHED):
            u, v = pairs[0, where], pairs[1, where]
            if bool((u == v).any()):
                place = where.start + int((u == v).nonzero()[0])
                raise ValueError(f"'{name}' must not hold self-loops (got the pair {pairs[:, place].tolist()})")
            low[where], high[where] = torch.minimum(u, v), torch.maximum(u, v)
        self.order = edge_order(low, high, self.num_nodes, self.num_nodes)
        if self.order is not None:
            low, high = low.index_select(0, self.order), high.index_select(0, self.order)
        self.low, self.high = low, high
        self._keys = pair_keys((low, high), self.num_nodes, directed=True)
        for where in blocks(len(self) - 1, CACHED):
            same = self._keys[where] == self._keys[where.start + 1 : where.stop + 1]
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
        return find_sorted(pair_keys(pairs, self.num_nodes), self._keys)
