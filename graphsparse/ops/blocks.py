"""Long arrays in blocks that a cache holds."""

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

#: Entries handled at a time. Temporaries of 8 MB are reused by the allocator; larger ones are mapped and cleared anew
#: for every block, which costs more than the work on them.
BLOCK = 1 << 20
#: Entries of which several temporaries together stay in the cache of a core.
CACHED = 1 << 16


def blocks(size: int, step: int = BLOCK) -> Iterator[slice]:
    """Cut ``0 .. size - 1`` into slices of at most ``step``.

    Example:
        >>> list(blocks(5, 3))
        [slice(0, 3, None), slice(3, 5, None)]
    """
    for start in range(0, size, step):
        yield slice(start, min(start + step, size))


def row_blocks(num_rows: int, width: int) -> Iterator[slice]:
    """Cut rows of so many numbers into blocks of at most :data:`BLOCK` numbers, one row at least.

    Example:
        >>> list(row_blocks(3, BLOCK // 2))
        [slice(0, 2, None), slice(2, 3, None)]
    """
    return blocks(num_rows, max(1, BLOCK // max(width, 1)))


def blocks_by_size(size: Tensor, limit: int = BLOCK) -> list[slice]:
    """Return consecutive blocks whose sizes, and one per item, add up to a limit or less; larger items stand alone.

    Example:
        >>> blocks_by_size(torch.tensor([2, 2, 9, 1]), 6)
        [slice(0, 2, None), slice(2, 3, None), slice(3, 4, None)]
    """
    total = (size + 1).cumsum(0)
    ends = [0]
    while ends[-1] < size.numel():
        before = int(total[ends[-1] - 1]) if ends[-1] else 0
        end = int(torch.searchsorted(total, before + limit, right=True))
        ends.append(max(end, ends[-1] + 1))
    return [slice(a, b) for a, b in itertools.pairwise(ends)]
