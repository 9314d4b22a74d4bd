"""The maximum spanning forest of a score: as few edges as keep every component whole, the best ones that do."""

import torch
from torch import Tensor

from graphsparse.edges.undirected import UndirectedEdges
from graphsparse.ops.pairs import key_blocks, key_pairs
from graphsparse.ops.select import mark_smallest

#: The forest is looked for among this many edges per component first: most edges then join nodes that are joined.
_FIRST = 4


def spanning_forest_mask(
    edges: UndirectedEdges, score: Tensor, *ties: Tensor, edge_weight: Tensor | None = None
) -> Tensor:
    r"""Mark the edges of the maximum spanning forest of a score ``[M]``, bool ``[M]``.

    Edges are ranked by score, then by further scores ``[M]``, then by id, the higher one first: so exactly one forest
    is the best, that of the edges that are not the worst of any cycle. ``edge_weight`` is not used. Besides the input
    it holds a copy of the scores, then some numbers for each of 4 N edges.

    Source: Boruvka, *O jistem problemu minimalnim* (1926), run on the best edges first as in Osipov, Sanders and
    Singler, *The filter-Kruskal minimum spanning tree algorithm*, ALENEX 2009.
    """
    ranks = (score, *ties)
    forest = torch.zeros(edges.num_edges, dtype=torch.bool, device=score.device)
    label = torch.arange(edges.num_nodes, device=score.device)
    num, first = edges.num_nodes, _FIRST
    rest = None  # ids of the edges that join different components so far; at first all
    while rest is None or rest.numel():
        among = ranks if rest is None else [rank.index_select(0, rest) for rank in ranks]
        worst = mark_smallest(among[0], max(among[0].numel() - first * num, 0), *among[1:])
        best = worst.logical_not_().nonzero().squeeze(1)
        num = _boruvka(edges, ranks, best if rest is None else rest.index_select(0, best), label, num, forest)
        rest = _joining(edges, rest, label)
        first *= 2  # so that there are few passes even where the best edges lie close together
    return forest


def _joining(edges: UndirectedEdges, ids: Tensor | None, label: Tensor) -> Tensor:
    """Return which of some edges, or of all, join nodes of different labels."""
    key = edges.key if ids is None else edges.key.index_select(0, ids)
    found = [key[:0]]
    for where, u, v in key_blocks(key, edges.num_nodes):
        joins = (label.index_select(0, u) != label.index_select(0, v)).nonzero().squeeze(1)
        found.append(joins + where.start if ids is None else ids[where].index_select(0, joins))
    return torch.cat(found)


def _boruvka(
    edges: UndirectedEdges, ranks: tuple[Tensor, ...], ids: Tensor, label: Tensor, num: int, forest: Tensor
) -> int:
    """Join ``num`` components by the best of some edges, ids ascending; return how many are left.

    ``forest [M]`` and ``label [N]``, the component of every node, are brought up to date.
    """
    u, v = (label.index_select(0, end) for end in key_pairs(edges.key.index_select(0, ids), edges.num_nodes))
    values = [rank.index_select(0, ids) for rank in ranks]
    while True:
        unjoined = (u != v).nonzero().squeeze(1)
        if unjoined.numel() == 0:
            return num
        u, v, ids, *values = (x.index_select(0, unjoined) for x in (u, v, ids, *values))
        pick = _best_of_each(u, v, values, num)
        here = (pick >= 0).nonzero().squeeze(1)
        edge = pick.index_select(0, here)
        forest[ids.index_select(0, edge)] = True
        # Each component hooks to the other end of its edge. As all edges are ranked, the only cycles are two
        # components that picked the same edge: the smaller number of the two becomes the root.
        parent = torch.arange(num, device=u.device)
        parent[here] = u.index_select(0, edge) + v.index_select(0, edge) - here
        own = torch.arange(num, device=u.device)
        root = (parent.index_select(0, parent) == own) & (own <= parent)
        parent = torch.where(root, own, parent)
        while not torch.equal(parent, above := parent.index_select(0, parent)):
            parent = above
        number = root.cumsum(0) - 1
        joined = number.index_select(0, parent)
        num = int(number[-1]) + 1
        label.copy_(joined.index_select(0, label))
        u, v = joined.index_select(0, u), joined.index_select(0, v)


def _best_of_each(u: Tensor, v: Tensor, ranks: list[Tensor], num: int) -> Tensor:
    """Return the best edge at each of ``num`` components, -1 where there is none; of equal ones the last."""
    edge = torch.arange(u.numel(), device=u.device)
    tied = [(u, edge), (v, edge)]  # ends, and edges that may be the best of them
    for rank in ranks:
        lowest = -torch.inf if rank.is_floating_point() else torch.iinfo(rank.dtype).min
        top = rank.new_full((num,), lowest)
        values = [rank if edges is edge else rank.index_select(0, edges) for _, edges in tied]
        for (end, _), value in zip(tied, values, strict=True):
            top.scatter_reduce_(0, end, value, "amax")
        for i, ((end, edges), value) in enumerate(zip(tied, values, strict=True)):
            equal = (top.index_select(0, end) == value).nonzero().squeeze(1)
            tied[i] = end.index_select(0, equal), edges.index_select(0, equal)
    pick = torch.full((num,), -1, device=u.device)
    for end, edges in tied:
        pick.scatter_reduce_(0, end, edges, "amax")
    return pick
