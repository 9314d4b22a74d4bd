"""Local rules: the place of an edge among the edges of each of its ends, as a score of its own.

To keep the ``d ** c`` best edges of every node of degree ``d`` is to keep the edges whose exponent is large enough; so
a local rule needs no selection of its own, and the count stays exact.
"""

import torch
from torch import Tensor

from graphsparse.edges.undirected import UndirectedEdges
from graphsparse.ops.blocks import blocks_by_size
from graphsparse.ops.sort import argsort

#: Bits of a score in a key that also holds the row of a block of at most 2^20 rows.
_SCORE_BITS = 43


def local_score(edges: UndirectedEdges, score: Tensor, rule: str, ends: str) -> tuple[Tensor, Tensor]:
    r"""Return the local score of each edge ``[M]``, and the score that decides between equal ones, ``[M]``.

    With the rank :math:`r` of an edge among the :math:`d` edges of one end, 1 for the best, equal scores sharing the
    best rank, the rules are

    ============ ==============================================
    ``exponent`` :math:`1 - \log r / \log d`, 1 where d is 1
    ``linear``   :math:`1 - (r - 1) / (d - 1)`, 1 where d is 1
    ``rank``     :math:`-r`
    ============ ==============================================

    Args:
        edges: The edges.
        score: One score for each edge ``[M]``, or one for each of its ends ``[2, M]``.
        rule: The rule.
        ends: ``"either"`` or ``"both"``, the larger or the smaller value of both ends; ``"lower"`` or ``"higher"``, the
            value of that end.
    """
    rank, degree = local_ranks(edges, score)
    local = score.new_empty(edges.num_edges, dtype=torch.int32 if rule == "rank" else torch.float64)
    second = score if score.dim() == 1 else score.new_empty(edges.num_edges)
    for where, u, v in edges.blocks():
        values = torch.stack([_value(rank[0, where], degree[u], rule), _value(rank[1, where], degree[v], rule)])
        if ends in ("lower", "higher"):
            local[where] = values[int(ends == "higher")]
        else:
            local[where] = values.amax(0) if ends == "either" else values.amin(0)
        if score.dim() == 2:
            lowest = torch.finfo(score.dtype).min if score.is_floating_point() else torch.iinfo(score.dtype).min
            second[where] = torch.where(values == local[where], score[:, where], lowest).amax(0)
    return local, second


def _value(rank: Tensor, degree: Tensor, rule: str) -> Tensor:
    if rule == "rank":
        return -rank
    if rule == "linear":
        return 1 - (rank - 1).double() / (degree - 1).clamp(min=1)
    return 1 - rank.double().log() / degree.double().log().clamp(min=0.5)  # log 1 is 0 for both, log 2 is 0.69


def local_ranks(edges: UndirectedEdges, score: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rank of each edge among those of its lower and of its higher end, int32 ``[2, M]``, and all degrees.

    The edges at some nodes are sorted together, as many as fit into the cache.
    """
    lower, higher, order = edges.by_higher_end()
    degree = lower.diff() + higher.diff()
    rank = torch.empty(2, edges.num_edges, dtype=torch.int32, device=score.device)
    both = score if score.dim() == 2 else score.expand(2, -1)
    keys = _Keys(score)
    for rows in blocks_by_size(degree):
        first, last = rows.start, rows.stop
        low, high = slice(int(lower[first]), int(lower[last])), order[int(higher[first]) : int(higher[last])].long()
        row = torch.arange(last - first, device=score.device)
        row = torch.cat([row.repeat_interleave(pointer[first : last + 1].diff()) for pointer in (lower, higher)])
        found = keys.ranks(row, torch.cat([both[0, low], both[1, high]]), degree[first:last])
        size = low.stop - low.start
        rank[0, low], rank[1, high] = found[:size], found[size:]
    return rank, degree


class _Keys:
    """Packs row and score into one int64, so that one sort of integers ranks all rows of a block."""

    def __init__(self, score: Tensor) -> None:
        low, high = (0, 0) if score.numel() == 0 else (int(value) for value in _ordered(torch.stack(score.aminmax())))
        self.low = low
        self.shift = max((high - low).bit_length() + 1 - _SCORE_BITS, 0)

    def ranks(self, row: Tensor, score: Tensor, degree: Tensor) -> Tensor:
        """Return the rank, 1 for the best, of each entry within its row; equal scores share the best one."""
        value = _ordered(score)
        # Shifted first, the difference of two int64 does not overflow.
        key = (row << _SCORE_BITS) | ((1 << _SCORE_BITS) - 1 - ((value >> self.shift) - (self.low >> self.shift)))
        order = argsort(key)
        sorted_key, sorted_value = key[order], value[order]
        new = torch.ones_like(order, dtype=torch.bool)
        new[1:] = sorted_key[1:] != sorted_key[:-1]
        if self.shift and bool((~new[1:] & (sorted_value[1:] != sorted_value[:-1])).any()):
            # Two scores of a row that agree in their first bits: sort by all of them, then by row.
            order = torch.argsort(value, descending=True, stable=True)
            order = order[torch.argsort(row[order], stable=True)]
            sorted_value, sorted_row = value[order], row[order]
            new[1:] = (sorted_row[1:] != sorted_row[:-1]) | (sorted_value[1:] != sorted_value[:-1])
        place = torch.arange(order.numel(), device=order.device)
        start = torch.where(new, place, 0).cummax(0).values
        ranks = torch.empty_like(order)
        ranks[order] = start - (degree.cumsum(0) - degree).repeat_interleave(degree) + 1
        return ranks.int()


def _ordered(score: Tensor) -> Tensor:
    """Return int64 numbers in the order of the scores."""
    if not score.is_floating_point():
        return score.long()
    kind, most = (torch.int64, 2**63 - 1) if score.dtype == torch.float64 else (torch.int32, 2**31 - 1)
    bits = (score.to(torch.float64 if kind is torch.int64 else torch.float32) + 0.0).view(kind)  # -0 becomes 0
    return (bits ^ ((bits >> (kind.itemsize * 8 - 1)) & most)).long()
