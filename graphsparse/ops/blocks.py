"""Long arrays in blocks that a cache holds."""

from collections.abc import Iterator

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
