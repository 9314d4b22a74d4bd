"""Pairs of nodes as one number each, and looking numbers up among sorted ones."""

import numpy as np
import torch
from torch import Tensor

#: Known keys below which all of them are in the cache, in whatever order they are asked for.
_FEW = 1 << 16
#: Keys looked up at a time. Larger blocks, once sorted, walk through the known ones in smaller steps.
_LOOK_UP = 1 << 20


def pair_keys(pairs: Tensor, num_nodes: int, *, directed: bool = False) -> Tensor:
    """Return one number per pair, ``low * num_nodes + high``, or ``u * num_nodes + v`` where directions count.

    Example:
        >>> pair_keys(torch.tensor([[0, 2], [1, 1]]), 3)
        tensor([1, 5])
    """
    u, v = pairs.long()
    if not directed:
        u, v = torch.minimum(u, v), torch.maximum(u, v)
    key: Tensor = u * num_nodes + v
    return key


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
    for start in range(0, keys.numel(), _LOOK_UP):
        part = keys[start : start + _LOOK_UP]
        if bool((part[1:] >= part[:-1]).all()):
            place[start : start + _LOOK_UP] = _find(part, known)
            continue
        order = torch.from_numpy(np.argsort(part.numpy()))
        place[start : start + _LOOK_UP][order] = _find(part[order], known)
    return place


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
    for start in range(0, keys.numel(), _LOOK_UP):
        found[start : start + _LOOK_UP] = find_sorted(keys[start : start + _LOOK_UP], known) >= 0
    return found
