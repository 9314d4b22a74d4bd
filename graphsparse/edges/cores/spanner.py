"""A spanner: every edge that is gone has a detour of at most three edges."""

from collections.abc import Iterator

import torch
from torch import Tensor

from graphsparse.edges.undirected import UndirectedEdges
from graphsparse.ops.blocks import blocks_by_size
from graphsparse.ops.pairs import both_ways, sort_keys


def spanner_mask(edges: UndirectedEdges, score: Tensor, *ties: Tensor, edge_weight: Tensor | None = None) -> Tensor:
    r"""Mark the edges of a spanner of stretch 3: whoever is not in it has a path of at most three marked edges.

    The greedy spanner in batches: best score first, then by further scores ``[M]``, then by id, an edge is kept if no
    path of three edges from earlier batches joins its ends. Lengths are counted in edges, ``edge_weight`` is not used.
    The work is up to the sum of :math:`d_u d_v` over the edges: for graphs of a few million edges.

    Source: Althofer et al., *On sparse spanners of weighted graphs*, Discrete Comput. Geom. 9 (1993); batches ours.
    """
    keep = torch.zeros(edges.num_edges, dtype=torch.bool, device=score.device)
    order = torch.arange(edges.num_edges, device=score.device)
    for rank in (*ties[::-1], score):
        order = order[torch.sort(rank[order], stable=True).indices]
    order = order.flip(0)
    start = kept = 0
    while start < edges.num_edges:
        # A share of the edges kept or seen so far: few batches, and few edges in each that spare one another.
        batch = order[start : start + max(1, kept // 4, start // 16)].sort().values
        spanner = _ClosedNeighbourhoods(UndirectedEdges(edges.key[keep], edges.num_nodes))
        far = batch[~spanner.within_three(edges.key[batch])]
        keep[far] = True
        kept += far.numel()
        start += batch.numel()
    return keep


class _ClosedNeighbourhoods:
    """The neighbours of every node, and the node itself, so that walks of three steps are paths of at most three."""

    def __init__(self, edges: UndirectedEdges) -> None:
        loops = torch.arange(edges.num_nodes, device=edges.key.device) * (edges.num_nodes + 1)
        self.num_nodes = edges.num_nodes
        self.key = sort_keys(torch.cat([both_ways(edges.key, edges.num_nodes), loops]))
        self.size = edges.degree() + 1
        self.start = self.size.cumsum(0) - self.size

    def within_three(self, key: Tensor) -> Tensor:
        """Say of each pair of different nodes whether a path of at most three edges joins it."""
        u = key // self.num_nodes
        v = key - u * self.num_nodes
        swap = self.size[u] > self.size[v]
        u, v = torch.where(swap, v, u), torch.where(swap, u, v)
        found = torch.zeros(key.numel(), dtype=torch.bool, device=key.device)
        for pair, a in self._neighbours(u):
            found[pair[self._joined(v[pair], a)]] = True
            left = (~found[pair] & (a != u[pair])).nonzero().squeeze(1)
            pair, a = pair[left], a[left]
            swap = self.size[a] > self.size[v[pair]]
            small, large = torch.where(swap, v[pair], a), torch.where(swap, a, v[pair])
            for walk, b in self._neighbours(small):
                found[pair[walk[self._joined(large[walk], b)]]] = True
        return found

    def _neighbours(self, node: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield ``(place, neighbour)`` of all neighbours of some nodes, in blocks of whole nodes."""
        size = self.size[node]
        for where in blocks_by_size(size):
            count = size[where]
            place = torch.arange(where.start, where.stop, device=node.device).repeat_interleave(count)
            entry = torch.arange(place.numel(), device=node.device)
            entry += (self.start[node[where]] - (count.cumsum(0) - count)).repeat_interleave(count)
            yield place, self.key[entry] - node[place] * self.num_nodes

    def _joined(self, u: Tensor, v: Tensor) -> Tensor:
        """Return the places of the pairs that are joined."""
        key = u * self.num_nodes + v
        place = torch.searchsorted(self.key, key).clamp_(max=self.key.numel() - 1)
        return (self.key[place] == key).nonzero().squeeze(1)
