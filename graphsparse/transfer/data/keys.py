"""Keys of nodes: how they are read from what a user hands over, and joined between graphs."""

import numbers
from collections.abc import Sequence
from itertools import compress
from operator import eq, not_
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

#: Keys of the nodes of one graph: int64 ``[N]``, or strings.
NodeKeys: TypeAlias = Tensor | list[str]


def read_keys(keys: Any, store: Any, num_nodes: int, name: str) -> NodeKeys:
    """Return the keys of the nodes of a graph, checked.

    Args:
        keys: An integer tensor or array ``[N]``, a sequence of ``N`` strings or integers, or the name of the attribute
            of ``store`` that holds one of these.
        store: The graph, or the part of it that belongs to one type of nodes.
        num_nodes: Number of its nodes ``N``.
        name: Name of the argument, for the error messages.

    Raises:
        TypeError: If the keys are neither integers nor strings.
        ValueError: If there is no such attribute, or not one key per node, or one key twice or of more than 64 bits.

    Example:
        >>> read_keys(["ab", "c"], None, 2, "target_key")
        ['ab', 'c']
    """
    if isinstance(keys, str):
        if keys not in store:
            raise ValueError(f"'{name}' names the attribute {keys!r}, which the graph does not have")
        keys = store[keys]
    found = _integers(keys, name) if isinstance(keys, (Tensor, np.ndarray)) else None
    found = _strings(keys, name) if found is None else found
    if len(found) != num_nodes:
        raise ValueError(f"'{name}' must hold one key per node (got {len(found)} keys for {num_nodes} nodes)")
    _refuse_repeated(found, name)
    return found


def join_keys(target: NodeKeys, sources: Sequence[NodeKeys]) -> tuple[list[Tensor], int]:
    """Number all nodes: those of the target keep their numbers, new ones of the sources follow in the order they come.

    Integers are joined by sorting and binary search, strings by one dictionary.

    Args:
        target: Keys of the target's nodes.
        sources: Keys of each source's nodes.

    Returns:
        For each source the global numbers of its nodes, int64, and how many global numbers there are.

    Raises:
        TypeError: If some keys are integers and others strings.

    Example:
        >>> join_keys(torch.tensor([7, 5]), [torch.tensor([9, 5])])
        ([tensor([2, 1])], 3)
    """
    kinds = {isinstance(keys, Tensor) for keys in (target, *sources)}
    if len(kinds) > 1:
        raise TypeError("keys must be integers in all graphs, or strings in all graphs (got both)")
    return _join_integers(target, sources) if kinds == {True} else _join_strings(target, sources)  # type: ignore[arg-type]


def _join_integers(target: Tensor, sources: Sequence[Tensor]) -> tuple[list[Tensor], int]:
    known, number = target.sort()
    total = target.numel()
    numbers: list[Tensor] = []
    for keys in sources:
        ids = torch.full_like(keys, -1)
        if known.numel():
            place = torch.searchsorted(known, keys).clamp_(max=known.numel() - 1)
            ids = torch.where(known[place] == keys, number[place], ids)
        new = ids < 0
        count = int(new.count_nonzero())
        ids[new] = torch.arange(total, total + count)
        if count and len(numbers) + 1 < len(sources):  # a later source may have these nodes too
            known, order = torch.cat([known, keys[new]]).sort()
            number = torch.cat([number, ids[new]])[order]
        total += count
        numbers.append(ids)
    return numbers, total


def _join_strings(target: Sequence[str], sources: Sequence[Sequence[str]]) -> tuple[list[Tensor], int]:
    """Join hashes, and compare the strings of those that are equal."""
    hashes = [torch.from_numpy(np.fromiter(map(hash, keys), np.int64, len(keys))) for keys in (target, *sources)]
    numbers, total = _join_integers(hashes[0], hashes[1:])
    names = list(target)
    for keys, ids in zip(sources, numbers, strict=True):
        old = (ids < len(names)).tolist()
        there = map(names.__getitem__, ids[ids < len(names)].tolist())
        if not all(map(eq, there, compress(keys, old))):
            return _join_by_dictionary(target, sources)  # two strings have one hash
        names.extend(compress(keys, map(not_, old)))
    return numbers, total


def _join_by_dictionary(target: Sequence[str], sources: Sequence[Sequence[str]]) -> tuple[list[Tensor], int]:
    number = dict(zip(target, range(len(target)), strict=True))
    add = number.setdefault
    numbers = [torch.tensor([add(key, len(number)) for key in keys], dtype=torch.int64) for keys in sources]
    return numbers, len(number)


def _integers(keys: Any, name: str) -> NodeKeys | None:
    """Return integer keys as int64, string arrays as a list; ``None`` for an array of objects."""
    if isinstance(keys, np.ndarray) and keys.dtype.kind in "UO" and keys.ndim == 1:
        return None
    kind = keys.dtype
    if isinstance(keys, np.ndarray):
        wrong = kind.kind not in "iu" or kind == np.uint64
    else:
        wrong = kind.is_floating_point or kind.is_complex or kind == torch.bool or keys.layout != torch.strided
    if wrong or kind == torch.uint64:
        raise TypeError(f"'{name}' must hold integers of at most 64 bits with sign, or strings (got {kind})")
    if keys.ndim == 2 and keys.shape[1] == 1:  # as OGB keeps what there is one of per node
        keys = keys.reshape(-1)
    if keys.ndim != 1:
        raise ValueError(f"'{name}' must have one dimension (got shape {list(keys.shape)})")
    return torch.as_tensor(keys).detach().to(device="cpu", dtype=torch.int64)


def _strings(keys: Any, name: str) -> NodeKeys:
    if isinstance(keys, np.ndarray):
        keys = keys.tolist()
    if not isinstance(keys, Sequence):
        raise TypeError(f"'{name}' must hold integers or strings, or name an attribute (got {type(keys).__name__})")
    kinds = set(map(type, keys))
    if kinds and bool not in kinds and all(issubclass(kind, numbers.Integral) for kind in kinds):
        try:
            return torch.from_numpy(np.fromiter(map(int, keys), np.int64, len(keys)))
        except OverflowError:
            far = max(map(int, keys), key=abs)
            raise ValueError(f"'{name}' must hold integers of at most 64 bits with sign (got {far})") from None
    if not all(issubclass(kind, str) for kind in kinds):
        got = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise TypeError(f"'{name}' must hold integers or strings, one kind only (got {got})")
    return list(keys)


def _refuse_repeated(keys: NodeKeys, name: str) -> None:
    if isinstance(keys, Tensor):
        ordered = keys.sort().values
        twice = ordered[1:][ordered[1:] == ordered[:-1]]
        if twice.numel():
            raise ValueError(f"'{name}' must hold every key once (got {int(twice[0])} more than once)")
    elif len(set(keys)) < len(keys):
        seen: set[str] = set()
        first = next(key for key in keys if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"'{name}' must hold every key once (got {first!r} more than once)")
