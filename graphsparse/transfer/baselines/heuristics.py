"""Scores of pairs that need no training: degrees, common neighbours, walks that return, the cosine of features."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from graphsparse.ops import Adjacency, spmm
from graphsparse.ops.blocks import blocks_by_size
from graphsparse.ops.pairs import is_among, pair_keys, unique_keys
from graphsparse.transfer.baselines.registry import BaselineOptions, register_baseline
from graphsparse.transfer.data.partners import Barred, Best, best_of_blocks, best_of_rows, nothing, scored_again
from graphsparse.transfer.data.reach import Ints, Reach, in_blocks
from graphsparse.transfer.data.split import Scorer, check_dense_x
from graphsparse.transfer.models.predictor import LinkPredictor, VectorPredictor, check_new_x
from graphsparse.transfer.propagation.xmc import XMCPropagation

if TYPE_CHECKING:
    from graphsparse.transfer.data.pair import SharedNodePair
    from graphsparse.transfer.data.split import LinkSplit

#: Neighbours that are looked at in a block.
_BLOCK = 1 << 22
#: Numbers held for a block of starting nodes, and the fewest of these: fewer would waste the reading of the edges.
_NUMBERS, _LEAST_COLUMNS = 1 << 18, 16
_MOST_ITERATIONS = 1000
#: Partners that are scored again beyond those asked for: products are in single precision.
_MORE = 8


def neighbor_weight(name: str, degree: Tensor) -> Tensor:
    """Return the weight of each node as a common neighbour, from its degree; 0 where it cannot be one.

    Example:
        >>> neighbor_weight("adamic_adar", torch.tensor([1, 2])).round(decimals=3)
        tensor([0.0000, 1.4430], dtype=torch.float64)
    """
    degree = degree.double()
    if name == "common_neighbors":
        return torch.ones_like(degree)
    if name == "adamic_adar":
        return torch.where(degree > 1, 1 / degree.clamp(min=2).log(), 0.0)
    return torch.where(degree > 0, 1 / degree.clamp(min=1), 0.0)


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
        weight: ``"common_neighbors"``, ``"adamic_adar"`` or ``"resource_allocation"``.

    Example:
        >>> from graphsparse.testing import toy_edge_index
        >>> CommonNeighbors(toy_edge_index(), 5).score(torch.tensor([[0, 2], [1, 4]]))
        tensor([1., 0.])

    Source: Liben-Nowell and Kleinberg, *The link-prediction problem for social networks*, 2007; Adamic and Adar,
    *Friends and neighbors on the web*, 2003; Zhou, Lue and Zhang, *Predicting missing links via local information*,
    2009.
    """

    def __init__(self, edge_index: Tensor, num_nodes: int, weight: str = "common_neighbors") -> None:
        self.num_nodes = num_nodes
        proper = edge_index[:, edge_index[0] != edge_index[1]].cpu()
        self._keys = unique_keys(pair_keys(proper, num_nodes, directed=True))
        self._rowptr = torch.searchsorted(self._keys, torch.arange(num_nodes + 1) * num_nodes)
        self._weight = neighbor_weight(weight, self._rowptr.diff())

    def score(self, pairs: Tensor) -> Tensor:
        """Return scores ``[Q]`` of pairs ``[2, Q]``."""
        u, v = pairs.cpu()
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


class PersonalizedPageRank:
    r"""Scores pairs by how often a random walk from one end, which returns to it now and then, is at the other.

    .. math::
        \pi_u = \alpha P^\top \pi_u + (1 - \alpha) e_u, \qquad s_{uv} = \tfrac12 (\pi_u[v] + \pi_v[u])

    with the transition matrix :math:`P = D^{-1} A`; a walk that is at a node without links returns. Power iteration
    runs for a block of starting nodes at once, as sparse products with a matrix of a column per starting node, until
    a step moves every column by less than ``tol`` in sum; the rest goes on alone whenever half have got there. On
    undirected graphs, where the eigenvalues of :math:`\alpha P^\top` are real, Chebyshev's weights between the last two
    iterates make the error shrink by 0.56 a step in place of 0.85. Each node at an end of a pair is a starting node, so
    that time is linear in their number times that of the edges.

    Args:
        edge_index: Edges ``[2, E]``; walks follow their directions.
        num_nodes: Number of nodes.
        damping: :math:`\alpha`.
        tol: See above.
        symmetric: Take the mean of both directions; :math:`\pi_u[v]` alone otherwise.

    Example:
        >>> from graphsparse.testing import toy_edge_index
        >>> near, far = PersonalizedPageRank(toy_edge_index(), 5).score(torch.tensor([[0, 2], [1, 4]]))
        >>> bool(near > far > 0)
        True

    Source: Jeh and Widom, *Scaling personalized web search*, WWW 2003; Golub and Varga, *Chebyshev semi-iterative
    methods*, Numerische Mathematik 3, 1961.
    """

    def __init__(
        self, edge_index: Tensor, num_nodes: int, *, damping: float = 0.85, tol: float = 1e-7, symmetric: bool = True
    ) -> None:
        self.num_nodes, self.damping, self.tol, self.symmetric = num_nodes, damping, tol, symmetric
        degree = torch.bincount(edge_index[0], minlength=num_nodes)
        self._adj = Adjacency.from_edge_index(edge_index, None, num_nodes)
        self._share = torch.where(degree > 0, 1 / degree.clamp(min=1).double(), 0.0)[:, None]
        self._stuck = (degree == 0).double()

    def score(self, pairs: Tensor) -> Tensor:
        """Return scores ``[Q]`` of pairs ``[2, Q]``."""
        if self.symmetric:
            # In one pass: most nodes are at the first end of one pair and at the second of another.
            both = self._from_first(torch.cat([pairs, pairs.flip(0)], 1))
            return both.view(2, -1).mean(0).float()
        return self._from_first(pairs).float()

    def _from_first(self, pairs: Tensor) -> Tensor:
        """Return how often the walk from the first end of each pair is at the second."""
        found = torch.zeros(pairs.size(1), dtype=torch.float64)
        starts, which = torch.unique(pairs[0], return_inverse=True)
        order = which.argsort(stable=True)
        ends = torch.bincount(which, minlength=starts.numel()).cumsum(0)
        size = max(_LEAST_COLUMNS, _NUMBERS // max(self.num_nodes, 1))  # as many columns as a cache holds
        for begin in range(0, starts.numel(), size):
            block = starts[begin : begin + size]
            first = int(ends[begin - 1]) if begin else 0
            mine = order[first : int(ends[begin + block.numel() - 1])]
            found[mine] = self.walk(block)[pairs[1, mine], which[mine] - begin]
        return found

    def best(self, nodes: Tensor, k: int, barred: Barred) -> Best:
        r"""Return the partners ``[n, k]`` of some nodes whose scores are highest, and these scores.

        One walk for each node: without directions :math:`d_u \pi_u[v] = d_v \pi_v[u]`, and a node without links is
        within no other's reach.
        """
        parts, degree = [nothing(0, k)], torch.where(self._share > 0, 1 / self._share, 1.0)[:, 0]
        for block in torch.split(nodes, max(_LEAST_COLUMNS, _NUMBERS // max(self.num_nodes, 1))):
            rows = self.walk(block).t()
            if self.symmetric:
                rows = rows * (1 + degree[block, None] / degree) / 2
            rows = rows.float()
            rows[rows == 0] = -torch.inf
            parts.append(best_of_blocks(block, k, barred, lambda _, part, rows=rows: rows[:, part]))  # type: ignore[misc]
        partners, scores = (torch.cat(one) for one in zip(*parts, strict=True))
        return partners, scores

    def walk(self, starts: Tensor) -> Tensor:
        """Return how often walks from some nodes are where, float64 ``[N, len(starts)]``; columns add up to 1."""
        column = torch.arange(starts.numel())
        at = torch.zeros(self.num_nodes, starts.numel(), dtype=torch.float64)
        found = torch.empty_like(at)
        at[starts, column] = 1
        before, weight = at, 1.0
        for step in range(_MOST_ITERATIONS):
            after = self.damping * spmm(self._adj, at * self._share)
            back = self.damping * (self._stuck @ at) + (1 - self.damping)
            after[starts, torch.arange(starts.numel())] += back
            moved = (after - at).abs_().sum(0)
            moving = moved >= self.tol
            if self._adj.is_symmetric:
                # Chebyshev's recurrence for eigenvalues up to ``damping``.
                weight = 1.0 if step == 0 else 1 / (1 - self.damping**2 / (2 if step == 1 else 4) * weight)
            before, at = at, torch.lerp(before, after, weight)
            # Some walks take many more steps than others. Once half of the columns are done the rest goes on without
            # them; sooner would copy too often.
            if 2 * int(moving.sum()) <= column.numel():
                found[:, column] = after
                if not moving.any():
                    return found
                starts, column, at, before = starts[moving], column[moving], at[:, moving], before[:, moving]
        raise RuntimeError(
            f"walks still moved by {float(moved.max())} after {_MOST_ITERATIONS} steps, 'tol' is {self.tol}"
        )


class PreferentialAttachment:
    r"""Scores pairs by how many links their ends have, :math:`s_{uv} = (d^{out}_u + 1) (d^{in}_v + 1)`.

    One is added so that nodes without a link do not make all pairs equal.

    Args:
        edge_index: Edges ``[2, E]``, in both directions where they have none.
        num_nodes: Number of nodes.

    Example:
        >>> PreferentialAttachment(torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]), 4).score(torch.tensor([[0, 1], [1, 3]]))
        tensor([6., 3.])

    Source: Newman, *Clustering and preferential attachment in growing networks*, Physical Review E 64, 2001.
    """

    def __init__(self, edge_index: Tensor, num_nodes: int) -> None:
        self._degree = [torch.bincount(ends, minlength=num_nodes).double() + 1 for ends in edge_index.cpu()]

    def score(self, pairs: Tensor) -> Tensor:
        """Return scores ``[Q]`` of pairs ``[2, Q]``."""
        u, v = pairs.cpu()
        return (self._degree[0][u] * self._degree[1][v]).float()


@dataclass(eq=False)
class GraphHeuristic(LinkPredictor):
    """Scores pairs by the links of a graph alone.

    Args:
        kind: ``"common_neighbors"``, ``"adamic_adar"``, ``"resource_allocation"``,
            ``"preferential_attachment"``, ``"pagerank"`` or ``"xmc"``.
        graph: Whose links: those of the ``"target"``, or of the ``"enriched_target"``.
    """

    kind: str
    graph: str = "target"

    def __post_init__(self) -> None:
        self._reach: Reach | None = None

    def forget(self) -> None:
        """Be as before the first call of ``fit``."""
        super().forget()
        self._reach = None

    def learn(self, pair: "SharedNodePair", split: "LinkSplit", seed: int) -> Mapping[str, Any]:
        """Return the links."""
        graph = pair.graph(self.graph, without=split, features=False)
        return {"edge_index": graph.edge_index, "num_nodes": graph.num_nodes, "directed": pair.directed}

    def prepare(self) -> None:
        """Build what scores, which runs on CPU."""
        edges = self.state["edge_index"].cpu()
        num_nodes, directed = self.state["num_nodes"], self.state["directed"]
        self._scorer: Scorer
        if self.kind == "pagerank":
            self._scorer = PersonalizedPageRank(edges, num_nodes, symmetric=not directed)
        elif self.kind == "preferential_attachment":
            self._scorer = PreferentialAttachment(edges, num_nodes)
        elif self.kind == "xmc":
            self._scorer = XMCPropagation(directed=directed).fit(edges, num_nodes)
        else:
            self._scorer = CommonNeighbors(edges, num_nodes, self.kind)

    def rate(self, pairs: Tensor) -> Tensor:
        """Return the scores."""
        return self._scorer.score(pairs.cpu()).to(pairs.device)

    def best(self, nodes: Tensor, k: int, barred: Barred) -> Best:
        """Return the partners of some nodes from walks or sparse products; known links by xmc from all pairs."""
        if isinstance(self._scorer, PersonalizedPageRank):
            return self._scorer.best(nodes, k, barred)
        if isinstance(self._scorer, XMCPropagation) and barred.links is None:
            return super().best(nodes, k, barred)  # a link is scored without itself, unlike in a product
        reach = self._reach = self._reach or Reach(self.state["edge_index"], self.state["num_nodes"])
        back = reach.matrix.T.tocsr() if self.state["directed"] else reach.matrix
        if isinstance(self._scorer, XMCPropagation):
            product = partial(_xmc_rows, self._scorer, reach)
        else:
            weight = neighbor_weight(self.kind, torch.from_numpy(reach.degree)).numpy()
            product = partial(reach.common, weight=weight, back=back)
        partners, scores = nothing(nodes.numel(), k)
        for where, rows in in_blocks(nodes.numpy(), product):
            few = best_of_rows(nodes[where], rows, k + _MORE, barred)
            partners[where], scores[where] = scored_again(nodes[where], few, k, self.rate)
        return partners, scores


@register_baseline("cosine")
class FeatureCosine(VectorPredictor):
    r"""Scores pairs by the angle between their features, :math:`s_{uv} = \langle x_u, x_v \rangle / (|x_u| |x_v|)`.

    A node whose features are all 0 has a score of 0 with every other. On features that say much about links, as words
    of papers do, few methods beat it.
    """

    def learn(self, pair: "SharedNodePair", split: "LinkSplit", seed: int) -> Mapping[str, Any]:
        """Return the features, divided by their length."""
        check_dense_x(pair)
        return {"vectors": F.normalize(pair.target.x), "directed": False}

    def from_features(self, x: Tensor) -> Tensor:
        """Return the features, divided by their length."""
        check_new_x(x, self.state["vectors"].size(1))
        return F.normalize(x)


def _xmc_rows(xmc: XMCPropagation, reach: Reach, nodes: Ints) -> Any:
    """Return the scores of ``XMCPropagation`` of some nodes with those they have no link with, as rows."""
    forth = reach.start(nodes)
    back = forth @ reach.matrix
    found = 0 * back
    for k in range(xmc.K + 1):
        share = np.float32((1 - xmc.alpha) * xmc.alpha**k if k < xmc.K else xmc.alpha**xmc.K)
        along = forth @ reach.matrix
        if share:
            found = found + share * (along if xmc.directed else (along + back) / np.float32(2))
        if k < xmc.K:
            forth = reach.shared_out(forth) @ reach.matrix
            back = back if xmc.directed else reach.shared_out(back @ reach.matrix)
    return found


def _heuristic(kind: str, graph: str, options: BaselineOptions) -> GraphHeuristic:
    return GraphHeuristic(kind, graph)


for _kind in (
    *("common_neighbors", "adamic_adar", "resource_allocation"),
    *("preferential_attachment", "pagerank", "xmc"),
):
    register_baseline(_kind)(partial(_heuristic, _kind, "target"))
    register_baseline(f"{_kind}_enriched")(partial(_heuristic, _kind, "enriched_target"))
