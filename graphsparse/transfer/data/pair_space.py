"""All pairs of nodes that may be drawn as non-links, numbered without gaps so that drawing a number draws a pair."""

import torch
from torch import Tensor


class PairSpace:
    r"""Pairs of which at least one end is marked; all pairs where every node is.

    With :math:`T` the marked nodes and :math:`S` the others, the unordered pairs of nodes of one type are those within
    :math:`T`, in a triangle, and :math:`T \times S`. Between two types they are :math:`T_1 \times V_2` and
    :math:`S_1 \times T_2`. Nothing is stored but the nodes.

    Args:
        src: Marked nodes at the first end, bool.
        dst: Marked nodes at the second end, bool; ``None`` where both ends are the same nodes, and pairs unordered.

    Example:
        >>> space = PairSpace(torch.tensor([True, False, True]))
        >>> space.decode(torch.arange(space.size))
        tensor([[0, 0, 1],
                [2, 1, 2]])
    """

    def __init__(self, src: Tensor, dst: Tensor | None = None) -> None:
        self.square = dst is None
        other = src if dst is None else dst
        self.marks = (src, other)
        self.nodes = [mask.nonzero().view(-1) for mask in (src, ~src, other, ~other)]
        marked, rest, marked_dst, rest_dst = (ids.numel() for ids in self.nodes)
        if self.square:
            self.first = marked * (marked - 1) // 2
            self.size = self.first + marked * rest
        else:
            self.first = marked * (marked_dst + rest_dst)
            self.size = self.first + rest * marked_dst

    def decode(self, index: Tensor) -> Tensor:
        """Return the pairs ``[2, n]`` of numbers in ``[0, size)``; unordered ones with the smaller end first."""
        if not self.square:
            return self._between(index)
        marked, rest = self.nodes[0], self.nodes[1]
        inside = index < self.first
        high = _triangle_row(torch.where(inside, index, 0))
        low = index - high * (high - 1) // 2
        width = max(rest.numel(), 1)
        outside = torch.where(inside, 0, index - self.first)
        pairs = torch.empty(2, index.numel(), dtype=torch.int64)
        pairs[0] = torch.where(inside, _take(marked, torch.where(inside, low, 0)), _take(marked, outside // width))
        pairs[1] = torch.where(inside, _take(marked, high), _take(rest, outside % width))
        return torch.stack([pairs.amin(0), pairs.amax(0)])

    def holds(self, pairs: Tensor) -> Tensor:
        """Say of pairs whether they are of this space; self-loops are not looked for."""
        return self.marks[0][pairs[0]] | self.marks[1][pairs[1]]

    def _between(self, index: Tensor) -> Tensor:
        marked, rest, marked_dst, rest_dst = self.nodes
        every = marked_dst.numel() + rest_dst.numel()
        inside = index < self.first
        here, there = torch.where(inside, index, 0), torch.where(inside, 0, index - self.first)
        width = max(marked_dst.numel(), 1)
        src = torch.where(inside, _take(marked, here // max(every, 1)), _take(rest, there // width))
        dst = torch.where(inside, here % max(every, 1), _take(marked_dst, there % width))
        return torch.stack([src, dst])


def _take(nodes: Tensor, place: Tensor) -> Tensor:
    """Look up nodes; what is looked up behind the end of a list is not used."""
    return nodes[place.clamp(max=nodes.numel() - 1)] if nodes.numel() else torch.zeros_like(place)


def _triangle_row(index: Tensor) -> Tensor:
    """Return the largest h with h (h - 1) / 2 <= index."""
    row = ((1 + (1 + 8 * index.double()).sqrt()) / 2).floor().long()
    # The root of a float is one off at most: numbers of pairs are below 2**53.
    row -= (row * (row - 1) // 2 > index).long()
    row += ((row + 1) * row // 2 <= index).long()
    return row
