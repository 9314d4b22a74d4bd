"""The maximum spanning forest of a score: as few edges as keep every component whole, the best ones that do."""

import torch
from torch import Tensor

from graphsparse.edges.undirected import UndirectedEdges
from graphsparse.ops.blocks import blocks
from graphsparse.ops.select import mark_smallest

#: The forest is looked for among this many edges per component first: most edges then join nodes that are joined.
_FIRST = 4


def spanning_forest_mask(
    edges: UndirectedEdges, score: Tensor, *ties: Tensor, edge_weight: Tensor | None = None
) -> Tensor:
    r"""Mark the edges of the maximum spanning forest of a score ``[M]``, bool ``[M]``.

    Edges are ranked by score, then by further scores ``[M]``, then by id, the higher one first: so exactly one forest
    is the best, that of the edges that are not the worst of any cycle. ``edge_weight`` is not used. Besides the input
    it holds one copy of the scores.

    Source: Boruvka, *O jistem problemu minimalnim* (1926), run on the best edges first as in Osipov, Sanders and
    Singler, *The filter-Kruskal minimum spanning tree algorithm*, ALENEX 2009.
    """
    ranks = (score, *ties)
    forest = torch.zeros(edges.num_edges, dtype=torch.bool, device=score.device)
    label = torch.arange(edges.num_nodes, device=score.device)
    num, first = edges.num_nodes, _FIRST
    rest = None  # ids of the edges that join different components so far; at first all
    while rest is None or rest.numel():
        among = ranks if rest is None else [rank[rest] for rank in ranks]
        worst = mark_smallest(among[0], max(among[0].numel() - first * num, 0), *among[1:])
        best, others = (~worst).nonzero().squeeze(1), worst.nonzero().squeeze(1)
        if rest is not None:
            best, others = rest[best], rest[others]
        num = _boruvka(edges, ranks, best, label, num, forest)
        rest = _joining(edges, others, label)
        first *= 2  # so that there are few passes even where the best edges lie close together
    return forest


def _joining(edges: UndirectedEdges, ids: Tensor, label: Tensor) -> Tensor:
    """Return which of some edges join nodes of different labels."""
    kept = [ids[:0]]
    for where in blocks(ids.numel()):
        u, v = _ends(edges, ids[where])
        kept.append(ids[where][label.index_select(0, u) != label.index_select(0, v)])
    return torch.cat(kept)


def _ends(edges: UndirectedEdges, ids: Tensor) -> tuple[Tensor, Tensor]:
    key = edges.key.index_select(0, ids)
    u = key // max(edges.num_nodes, 1)
    return u, key.sub_(u, alpha=edges.num_nodes)


def _boruvka(
    edges: UndirectedEdges, ranks: tuple[Tensor, ...], ids: Tensor, label: Tensor, num: int, forest: Tensor
) -> int:
    """Join ``num`` components by the best of some edges, ids ascending; return how many are left.

    ``forest [M]`` and ``label [N]``, the component of every node, are brought up to date.
    """
    u, v = (label.index_select(0, end) for end in _ends(edges, ids))
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
    end, edge = torch.cat([u, v]), torch.arange(u.numel(), device=u.device).repeat(2)
    for rank in ranks:
        value = rank.index_select(0, edge)
        lowest = -torch.inf if rank.is_floating_point() else torch.iinfo(rank.dtype).min
        top = rank.new_full((num,), lowest).scatter_reduce_(0, end, value, "amax")
        equal = (top.index_select(0, end) == value).nonzero().squeeze(1)
        end, edge = end.index_select(0, equal), edge.index_select(0, equal)
    return torch.full((num,), -1, device=u.device).scatter_reduce_(0, end, edge, "amax")
