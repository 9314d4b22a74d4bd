"""Links as sorted numbers: one int64 per link, so that sets of links are joined by sorting and searching."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from graphsparse.ops.blocks import BLOCK
from graphsparse.ops.check import check_edge_index

#: An edge list, and the global numbers of its nodes at both ends; ``None`` where they are the same.
Edges: TypeAlias = tuple[Tensor, Tensor | None, Tensor | None]


@dataclass(frozen=True)
class LinkCode:
    """How the links of one relation are numbered: a link ``(u, v)`` is ``u * num_dst + v``.

    Attributes:
        num_src: Number of nodes at the first end.
        num_dst: Number of nodes at the second end.
        square: Whether both ends are nodes of the same type.
        directed: Whether ``(u, v)`` and ``(v, u)`` are different links, in a square relation. Otherwise a link is
            numbered with its smaller end first.
    """

    num_src: int
    num_dst: int
    square: bool = True
    directed: bool = False

    @property
    def undirected(self) -> bool:
        """Whether a link is an unordered pair of nodes of one type."""
        return self.square and not self.directed

    def encode(self, pairs: Tensor, *, unordered: bool = False) -> Tensor:
        """Return the number of each pair, in the order of the pairs.

        Args:
            pairs: int64 ``[2, P]``.
            unordered: Put the smaller end first even where links are directed.

        Example:
            >>> LinkCode(3, 3).encode(torch.tensor([[2, 0], [1, 1]]))
            tensor([5, 1])
        """
        u, v = pairs.long()
        if self.undirected or (unordered and self.square):
            u, v = torch.minimum(u, v), torch.maximum(u, v)
        codes: Tensor = u * self.num_dst + v
        return codes

    def decode(self, codes: Tensor) -> Tensor:
        """Return the pairs ``[2, P]`` of numbers."""
        u = codes // max(self.num_dst, 1)
        return torch.stack([u, codes - u * self.num_dst])

    def unordered(self, codes: Tensor) -> Tensor:
        """Return the numbers of the links without their directions; not sorted where that changes them."""
        return self.encode(self.decode(codes), unordered=True) if self.square and self.directed else codes

    def links(self, edges: Sequence[Edges], sizes: Sequence[tuple[int, int]], names: Sequence[str]) -> Tensor:
        """Return the sorted numbers of all links in some edge lists, each link once, without self-loops.

        Args:
            edges: For each edge list ``edge_index`` ``[2, E]`` and the global numbers of its nodes at both ends;
                ``None`` where they are the same.
            sizes: Numbers of nodes at both ends of each edge list.
            names: What each edge list is, for error messages.

        Raises:
            TypeError: If an edge list is no integer tensor.
            ValueError: If one has the wrong shape or an index out of range.
        """
        for (edge_index, _, _), size, name in zip(edges, sizes, names, strict=True):
            check_edge_index(edge_index, size, name)
        codes = np.empty(sum(edge_index.size(1) for edge_index, _, _ in edges), dtype=np.int64)
        filled = 0
        for edge_index, src, dst in edges:
            for block in _blocks(edge_index):
                pair = block if src is None or dst is None else torch.stack([src[block[0]], dst[block[1]]])
                if self.square:
                    pair = pair[:, pair[0] != pair[1]]
                codes[filled : filled + pair.size(1)] = self.encode(pair).numpy()
                filled += pair.size(1)
        return sorted_unique(codes[:filled])


def _blocks(edge_index: Tensor) -> Iterator[Tensor]:
    plain = edge_index.as_subclass(Tensor)
    for start in range(0, plain.size(1), BLOCK):
        yield plain[:, start : start + BLOCK].detach().to(device="cpu", dtype=torch.int64)


def sorted_codes(codes: Tensor) -> Tensor:
    """Sort numbers in place, and return them."""
    # NumPy's in-place sort of integers is vectorised and needs no index array; torch.sort returns one.
    codes.numpy().sort()
    return codes


def sorted_unique(codes: np.ndarray) -> Tensor:
    """Sort numbers in place and return each once."""
    codes.sort()
    if len(codes) > 1:
        new = np.empty(len(codes), dtype=bool)
        new[0] = True
        np.not_equal(codes[1:], codes[:-1], out=new[1:])
        if not new.all():
            codes = codes[new]
    return torch.from_numpy(codes)


def both_ends(code: LinkCode, codes: Tensor, src: Tensor, dst: Tensor) -> Tensor:
    """Say of each link whether both its ends are marked.

    Args:
        code: How the links are numbered.
        codes: Their numbers.
        src: Marked nodes at the first end, bool ``[num_src]``.
        dst: Marked nodes at the second end, bool ``[num_dst]``.
    """
    found = torch.empty(codes.numel(), dtype=torch.bool)
    for start in range(0, codes.numel(), BLOCK):
        u, v = code.decode(codes[start : start + BLOCK])
        found[start : start + BLOCK] = src[u] & dst[v]
    return found
