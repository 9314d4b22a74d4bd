"""The best partners of some nodes, found in blocks: of all pairs only a block is scored at a time."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphsparse.ops.blocks import blocks
from graphsparse.ops.pairs import both_ways, is_among, key_pairs, pair_keys, sort_keys

#: Partners ``[n, k]`` of some nodes, -1 where there are fewer, and their scores, -infinity there; best first.
Best = tuple[Tensor, Tensor]
#: Nodes whose partners are looked for together, and candidates of a block.
_ROWS, _COLUMNS = 256, 1 << 16


class Barred:
    """Whom a node is not shown: itself, those on its own side, and those it is known to be linked with.

    Args:
        num_nodes: Number of nodes.
        links: Links ``[2, P]`` that are known, each once; ``None`` to bar none.
        directed: Whether they have a direction.
        side: Side of each node ``[N]``, 0, 1 or -1 for neither; ``None`` where there are no sides.

    Example:
        >>> barred = Barred(4, torch.tensor([[0], [2]]))
        >>> barred.hide(torch.tensor([0, 1]), torch.zeros(2, 4), 0)
        tensor([[-inf, 0., -inf, 0.],
                [0., -inf, 0., 0.]])
    """

    def __init__(
        self, num_nodes: int, links: Tensor | None, *, directed: bool = False, side: Tensor | None = None
    ) -> None:
        self.num_nodes, self.side, self.links = num_nodes, side, links
        none = torch.empty(2, 0, dtype=torch.int64)
        keys = pair_keys(none if links is None else links.cpu(), num_nodes, directed=directed)
        self._keys = sort_keys(keys) if directed else both_ways(keys, num_nodes)

    def allows(self, nodes: Tensor, others: Tensor) -> Tensor:
        """Say of pairs whether the second may be shown to the first."""
        fits = nodes != others
        if self.side is not None:
            side = self.side[nodes]
            fits &= (side < 0) | (self.side[others] != side)
        fits[fits.clone()] = ~is_among(
            pair_keys((nodes[fits], others[fits]), self.num_nodes, directed=True), self._keys
        )
        return fits

    def hide(self, nodes: Tensor, scores: Tensor, start: int) -> Tensor:
        """Set scores ``[B, C]`` of nodes ``[B]`` with the candidates from ``start`` on to -infinity where barred."""
        stop, low = start + scores.size(1), -torch.inf
        if self.side is not None:
            side = self.side[nodes][:, None]
            own = (side >= 0) & (self.side[start:stop] == side)
            scores.masked_fill_(own.to(scores.device), low)
        ends = torch.searchsorted(
            self._keys, torch.stack([nodes * self.num_nodes + start, nodes * self.num_nodes + stop])
        )
        count = ends[1] - ends[0]
        row = torch.arange(nodes.numel()).repeat_interleave(count)
        place = torch.arange(row.numel()) + (ends[0] - (count.cumsum(0) - count))[row]
        column = key_pairs(self._keys[place], self.num_nodes)[1] - start
        own_row = ((nodes >= start) & (nodes < stop)).nonzero().view(-1)
        row, column = torch.cat([row, own_row]), torch.cat([column, nodes[own_row] - start])
        scores[row.to(scores.device), column.to(scores.device)] = low
        return scores


def best_of_blocks(nodes: Tensor, k: int, barred: Barred, score: Callable[[Tensor, slice], Tensor]) -> Best:
    """Return the best partners among all nodes, with ``score(nodes [B], candidates)`` returning ``[B, C]``.

    Of equal scores at the limit any are taken.

    Example:
        >>> h = torch.tensor([[1.0], [2.0], [3.0]])
        >>> best_of_blocks(torch.tensor([0]), 1, Barred(3, None), lambda rows, part: h[rows] @ h[part].t())
        (tensor([[2]]), tensor([[3.]]))
    """
    found = []
    for rows in torch.split(nodes, _ROWS):
        best: Best | None = None
        for part in blocks(barred.num_nodes, _COLUMNS):
            block = barred.hide(rows, score(rows, part), part.start)
            best = _merged(best, block, part.start, k)
        found.append(best)
    return _joined([one for one in found if one is not None], k)


def best_of_rows(nodes: Tensor, rows: Any, k: int, barred: Barred) -> Best:
    """Return the best partners among the positive entries of sparse rows, of equal ones those with lower numbers.

    Example:
        >>> from scipy.sparse import csr_array
        >>> best_of_rows(torch.tensor([0]), csr_array([[9.0, 0.0, 2.0, 2.0]]), 1, Barred(4, None))
        (tensor([[2]]), tensor([[2.]], dtype=torch.float64))
    """
    row = torch.arange(nodes.numel()).repeat_interleave(torch.from_numpy(np.diff(rows.indptr)).long())
    column, value = torch.from_numpy(rows.indices).long(), torch.from_numpy(rows.data)
    fits = barred.allows(nodes[row], column) & (value > 0)
    row, column, value = row[fits], column[fits], value[fits]
    order = torch.from_numpy(np.lexsort((column.numpy(), -value.numpy(), row.numpy())))
    count = torch.bincount(row, minlength=nodes.numel())
    place = torch.arange(row.numel()) - (count.cumsum(0) - count).repeat_interleave(count)
    order, place = order[place < k], place[place < k]
    partners, scores = nothing(nodes.numel(), k, value.dtype)
    partners[row[order], place], scores[row[order], place] = column[order], value[order]
    return partners, scores


def nothing(num: int, k: int, dtype: torch.dtype = torch.float32) -> Best:
    """Return no partners for so many nodes."""
    return torch.full((num, k), -1, dtype=torch.int64), torch.full((num, k), -torch.inf, dtype=dtype)


def scored_again(nodes: Tensor, best: Best, k: int, score: Callable[[Tensor], Tensor]) -> Best:
    """Score partners that were found once more, as ``score(pairs)`` does, and keep the best; equal ones by number."""
    partners = best[0].sort(1).values
    there = partners >= 0
    pairs = torch.stack([nodes[:, None].expand_as(partners)[there], partners[there]])
    again = score(pairs).cpu()
    scores = torch.full(partners.shape, -torch.inf, dtype=again.dtype)
    scores[there] = again
    scores, order = scores.sort(dim=1, descending=True, stable=True)
    return partners.gather(1, order)[:, :k], scores[:, :k]


def _merged(best: Best | None, block: Tensor, start: int, k: int) -> Best:
    """Return the best of what was found before and of a block."""
    value, place = block.topk(min(k, block.size(1)), dim=1)
    value, place = value.cpu(), torch.where(value.isinf() & (value < 0), -1, place + start).cpu()
    if best is not None:
        value, place = torch.cat([best[1], value], 1), torch.cat([best[0], place], 1)
        value, order = value.topk(min(k, value.size(1)), dim=1)
        place = place.gather(1, order)
    return place, value


def _joined(parts: list[Best], k: int) -> Best:
    """Put rows below one another, filled up to ``k`` columns."""
    if not parts:
        return nothing(0, k)
    partners, scores = (torch.cat([part[i] for part in parts]) for i in (0, 1))
    whole = nothing(partners.size(0), k, scores.dtype)
    for part, to in zip((partners, scores), whole, strict=True):
        to[:, : part.size(1)] = part
    return whole
