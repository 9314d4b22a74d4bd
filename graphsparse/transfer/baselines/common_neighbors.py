"""Scores of pairs by the neighbours that both ends have."""

import itertools
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from graphsparse.ops.check import check_edge_index
from graphsparse.ops.pairs import is_among, pair_keys, unique_keys
from graphsparse.transfer.data.queries import check_queries

#: Weight of a common neighbour from the degrees of all nodes.
NeighborWeight: TypeAlias = Callable[[Tensor], Tensor]
#: Neighbours that are looked at in a block.
_BLOCK = 1 << 22


def count_weight(degree: Tensor) -> Tensor:
    """Return 1 for every node: common neighbours.

    Example:
        >>> count_weight(torch.tensor([1, 4]))
        tensor([1., 1.], dtype=torch.float64)
    """
    return torch.ones_like(degree, dtype=torch.float64)


def adamic_adar_weight(degree: Tensor) -> Tensor:
    """Return 1 / ln(degree), 0 for nodes of degree 1 and less, which have no two neighbours.

    Example:
        >>> adamic_adar_weight(torch.tensor([1, 2])).round(decimals=3)
        tensor([0.0000, 1.4430], dtype=torch.float64)
    """
    weight = 1 / degree.clamp(min=2).double().log()
    return torch.where(degree > 1, weight, 0.0)


def resource_allocation_weight(degree: Tensor) -> Tensor:
    """Return 1 / degree.

    Example:
        >>> resource_allocation_weight(torch.tensor([0, 4]))
        tensor([0.0000, 0.2500], dtype=torch.float64)
    """
    return torch.where(degree > 0, 1 / degree.clamp(min=1).double(), 0.0)


class CommonNeighbors:
    r"""Scores pairs by their common neighbours.

    .. math::
        s_{uv} = \sum_{w \in N(u) \cap N(v)} g(d_w)

    with 1 (common neighbours), :math:`1 / \ln d_w` (Adamic-Adar) or :math:`1 / d_w` (resource allocation) for
    :math:`g`. For each pair the neighbours of the end with fewer of them are looked up among the links of the other, in
    blocks, so that time is linear in their number and memory is that of the graph. Self-loops are not neighbours, and
    repeated edges count once.

    Args:
        edge_index: Both directions of the links, ``[2, E]``.
        num_nodes: Number of nodes.
        weight: :math:`g`, from the degrees ``[N]`` of all nodes.

    Raises:
        TypeError: If ``edge_index`` is no integer tensor.
        ValueError: If its shape or an index is out of range.

    Example:
        >>> from graphsparse.testing import toy_edge_index
        >>> CommonNeighbors(toy_edge_index(), 5).score(torch.tensor([[0, 2], [1, 4]]))
        tensor([1., 0.])

    Source: Liben-Nowell and Kleinberg, *The link-prediction problem for social networks*, 2007; Adamic and Adar,
    *Friends and neighbors on the web*, 2003; Zhou, Lue and Zhang, *Predicting missing links via local information*,
    2009.
    """

    def __init__(self, edge_index: Tensor, num_nodes: int, weight: NeighborWeight = count_weight) -> None:
        check_edge_index(edge_index, num_nodes)
        self.num_nodes = num_nodes
        proper = edge_index[:, edge_index[0] != edge_index[1]].cpu()
        self._keys = unique_keys(pair_keys(proper, num_nodes, directed=True))
        self._rowptr = torch.searchsorted(self._keys, torch.arange(num_nodes + 1) * num_nodes)
        self._weight = weight(self._rowptr.diff())

    def score(self, pairs: Tensor) -> Tensor:
        """Return scores ``[Q]`` of pairs ``[2, Q]``; self-loops are refused."""
        u, v = check_queries(pairs, self.num_nodes).cpu()
        degree = self._rowptr.diff()
        swap = degree[u] > degree[v]
        few, many = torch.where(swap, v, u), torch.where(swap, u, v)
        found = torch.zeros(u.numel(), dtype=torch.float64)
        for block in blocks_by_size(degree[few], _BLOCK):
            self._score_block(few[block], many[block], found[block])
        return found.float()

    def _score_block(self, few: Tensor, many: Tensor, out: Tensor) -> None:
        start = self._rowptr[few]
        count = self._rowptr[few + 1] - start
        which = torch.arange(few.numel()).repeat_interleave(count)
        place = torch.arange(which.numel()) + (start - (count.cumsum(0) - count))[which]
        neighbor = self._keys[place] % self.num_nodes
        common = is_among(pair_keys((many[which], neighbor), self.num_nodes, directed=True), self._keys)
        out.index_add_(0, which[common], self._weight[neighbor[common]])


def blocks_by_size(size: Tensor, limit: int) -> list[slice]:
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
