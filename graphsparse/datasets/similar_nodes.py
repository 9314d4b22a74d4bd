"""Pairs of nodes that are alike: by their features, or by their neighbours."""

import torch
from torch import Tensor

from graphsparse.edges.undirected import undirected_edges
from graphsparse.ops.check import check_count

#: Similarities held at a time.
_BLOCK = 1 << 24


def nearest_pairs(x: Tensor, num_neighbors: int = 8) -> Tensor:
    """Return each node with those nearest to it by the cosine of their features, every pair once.

    All similarities are computed, some rows at a time: memory grows with the number of nodes, time with its square. Of
    equally near nodes any may be taken.

    Args:
        x: Features ``[N, F]``, dense. A row of zeros is equally far from all, and is joined to none.
        num_neighbors: Neighbours of each node.

    Returns:
        int64 ``[2, P]``, the smaller end first, sorted.

    Raises:
        TypeError: If ``num_neighbors`` is no integer.
        ValueError: If it is below 1.

    Example:
        >>> nearest_pairs(torch.tensor([[1.0, 0.0], [2.0, 0.1], [0.0, 1.0]]), 1)
        tensor([[0, 1],
                [1, 2]])
    """
    num_neighbors = check_count(num_neighbors, "num_neighbors")
    size = x.size(0)
    unit = torch.nn.functional.normalize(x.float(), dim=1)
    k = min(num_neighbors, size - 1)
    if k < 1:
        return torch.empty(2, 0, dtype=torch.int64)
    rows = max(_BLOCK // size, 1)
    found = []
    for start in range(0, size, rows):
        block = unit[start : start + rows]
        likeness = block @ unit.t()
        own = torch.arange(block.size(0))
        likeness[own, own + start] = -2.0
        value, index = likeness.topk(k, dim=1)
        near = value > 0
        found.append(torch.stack([(own + start).unsqueeze(1).expand_as(index)[near], index[near]]))
    return _once(torch.cat(found, dim=1), size)


def common_neighbor_pairs(links: Tensor, among: Tensor) -> Tensor:
    """Return all pairs of marked nodes that have a neighbour in common, every pair once.

    Time and memory grow with the sum of the squares of degrees.

    Args:
        links: Undirected links ``[2, P]``, each once.
        among: Marked nodes, bool ``[N]``. The common neighbour may be any node.

    Returns:
        int64 ``[2, Q]``, the smaller end first, sorted.

    Example:
        >>> common_neighbor_pairs(torch.tensor([[0, 1, 2], [1, 2, 3]]), torch.ones(4, dtype=torch.bool))
        tensor([[0, 1],
                [2, 3]])
    """
    size = among.numel()
    centre, leaf = torch.cat([links, links.flip(0)], dim=1)
    keep = among[leaf]
    centre, leaf = centre[keep], leaf[keep]
    order = (centre * size + leaf).argsort()
    centre, leaf = centre[order], leaf[order]
    degree = torch.bincount(centre, minlength=size)
    # Entry i, at some place among the leaves of its centre, is joined to all leaves behind it.
    stop = degree.cumsum(0)[centre]
    position = torch.arange(leaf.numel())
    count = stop - position - 1
    first = position.repeat_interleave(count)
    offset = torch.arange(first.numel()) - (count.cumsum(0) - count).repeat_interleave(count)
    return _once(torch.stack([leaf[first], leaf[first + 1 + offset]]), size)


def _once(pairs: Tensor, size: int) -> Tensor:
    key, _ = undirected_edges(pairs, size)
    return torch.stack([key // max(size, 1), key % max(size, 1)])
