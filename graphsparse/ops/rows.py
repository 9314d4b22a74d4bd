"""Rows of a sparse pattern, walked along and looked into: the common neighbours of many pairs of nodes."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from graphsparse.ops.blocks import blocks_by_size
from graphsparse.ops.pairs import key_blocks
from graphsparse.ops.sort import index_dtype

#: Entries walked along at a time, of which the temporaries stay in the outer cache.
BLOCK = 1 << 18
#: 2^64 divided by the golden ratio: multiples of it are spread evenly (Knuth, TAOCP 3, Section 6.4).
_GOLDEN = -7046029254386353131
#: Places in the table of a row for each of its entries, at least.
_PLACES = 4


class Rows:
    """A sparse pattern in rows, given by its entries as sorted, distinct keys ``row * num_nodes + column``.

    Most pairs of neighbours are not joined, and a search is long. So a table of flags says first that an entry is
    surely not there: each row has a part of it with four places or more for each of its entries. Besides the keys it
    holds 8 to 12 bytes for each entry.

    Example:
        >>> rows = Rows(torch.tensor([1, 2, 5]), 3)  # 0-1, 0-2 and 1-2
        >>> [tuple(part.tolist() for part in found) for _, *found in rows.common(*torch.tensor([[1], [0], [1]]))]
        [([0], [1], [2])]
    """

    def __init__(self, key: Tensor, num_nodes: int) -> None:
        self.key, self.num_nodes = key, num_nodes
        degree = key.new_zeros(num_nodes)
        for _, row, _ in key_blocks(key, num_nodes):
            degree += torch.bincount(row, minlength=num_nodes)
        self.pointer = torch.cat([degree.new_zeros(1), degree.cumsum(0)])
        # The power of two that is no smaller: frexp returns the number of bits.
        width = torch.ones_like(degree) << torch.frexp((_PLACES * degree - 1).clamp_(min=0).double()).exponent.long()
        total = int(width.sum())
        self._base = (width.cumsum(0) - width).to(index_dtype(total))
        self._mask = (width - 1).int()
        self._hash = torch.empty_like(key, dtype=torch.int32)
        self._known = torch.zeros(total, dtype=torch.bool, device=key.device)
        for where, row, column in key_blocks(key, num_nodes):
            self._hash[where] = column * _GOLDEN >> 32 & 0x7FFFFFFF
            place = self._hash[where] & self._mask.index_select(0, row)
            self._known[self._base.index_select(0, row) + place] = True

    def common(self, start: Tensor, source: Tensor, row: Tensor) -> Iterator[tuple[slice, Tensor, Tensor, Tensor]]:
        """Walk along rows, and find the columns of their entries in other rows.

        Item ``i`` walks from entry ``start[i]`` to the end of the row ``source[i]``, and looks into the row ``row[i]``.
        Items are handled in blocks; where ``row`` ascends, what a block looks into is close together.

        Yields:
            ``(items, item, here, there)``: a slice of the items, and for each column that was found the item, counted
            from the start of the slice, the entry of it in the row that the item walks along, and the one in the row
            that it looks into. Items come in order, and the entries of each, too.
        """
        count = (self.pointer[1:].index_select(0, source) - start).to(start.dtype)
        for items in blocks_by_size(count, BLOCK):
            walked, looked, size = source[items], row[items], count[items]
            lowest, highest = torch.stack(looked.aminmax()).tolist()
            low, high = int(self.pointer[lowest]), int(self.pointer[highest + 1])
            if low == high:
                continue
            # index_select takes a fifth of the time of an index in brackets.
            item = torch.repeat_interleave(size)
            here = (start[items] + size - size.cumsum(0)).to(start.dtype).index_select(0, item)
            here += torch.arange(here.numel(), dtype=here.dtype, device=here.device)
            place = self._hash.index_select(0, here)
            place &= self._mask.index_select(0, looked).index_select(0, item)
            place = self._base.index_select(0, looked).index_select(0, item).add_(place)
            found = _places(self._known.index_select(0, place))
            item, here = item.index_select(0, found), here.index_select(0, found)
            key = ((looked.long() - walked) * self.num_nodes).index_select(0, item)
            key += self.key.index_select(0, here)
            known = self.key[low:high]
            there = torch.searchsorted(known, key, out_int32=high - low < 2**31).clamp_(max=high - low - 1)
            found = _places(known.index_select(0, there) == key)
            item, here, there = (part.index_select(0, found) for part in (item, here, there))
            yield items, item, here, there + low


def _places(mask: Tensor) -> Tensor:
    """Return where a mask is true; on CPU NumPy takes a third of the time."""
    if mask.device.type != "cpu":
        return mask.nonzero().squeeze(1)
    return torch.from_numpy(np.flatnonzero(mask.numpy()))
