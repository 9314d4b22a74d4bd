"""What of a graph survives when another takes its place: one function per measure, from two graphs to figures."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from graphsparse.edges.scores.neighborhood import triangles_per_edge
from graphsparse.edges.undirected import UndirectedEdges
from graphsparse.metrics.distances import hop_distances
from graphsparse.ops import Adjacency, spmm
from graphsparse.ops.blocks import blocks, row_blocks
from graphsparse.ops.pairs import is_among, key_pairs, pair_keys
from graphsparse.ops.pattern import Pattern
from graphsparse.ops.select import kth_smallest, mark_smallest
from graphsparse.ops.sort import index_dtype
from graphsparse.utils.counter_random import CounterRandom, mix64
from graphsparse.utils.partition import partition_graph

#: Pairs of successors up to which triangles are counted, and wedges that are drawn above.
_WEDGES, _DRAWN_WEDGES = 1 << 25, 10**6
#: Vectors that are multiplied at a time.
_COLUMNS = 8
_LAZY_STEPS, _DAMPING, _PRODUCTS, _TOP = 10, 0.85, 30, 100
_QUANTILE = 0.95
#: Parts that are cut out, and edges of which they are found.
_PARTS, _EDGES_TO_CUT = 16, 1 << 22


class Figure(NamedTuple):
    """A figure of a comparison: a number that belongs to both graphs, or one for each and their difference."""

    measure: str
    name: str
    value: float
    error: float | None = None
    before: float | None = None
    after: float | None = None


class Sampling(NamedTuple):
    """How many sources and vectors are drawn, and the labels: ``[N]`` from 0, -1 where there is none."""

    sources: int
    vectors: int
    seed: int
    y: Tensor | None


@dataclass(eq=False)
class WeightedGraph:
    """Undirected edges with a positive weight each, ``[M]`` float64, or ``None`` where all are 1."""

    edges: UndirectedEdges
    weight: Tensor | None

    @cached_property
    def degree(self) -> Tensor:
        """Numbers of neighbours, int64 ``[N]``."""
        return self.edges.degree()

    @cached_property
    def strength(self) -> Tensor:
        """Sums of the weights of the edges at each node, float64 ``[N]``."""
        if self.weight is None:
            return self.degree.double()
        total = self.weight.new_zeros(self.edges.num_nodes)
        for where, u, v in self.edges.blocks():
            total.index_add_(0, u, self.weight[where]).index_add_(0, v, self.weight[where])
        return total

    @cached_property
    def rows(self) -> tuple[Tensor, Tensor]:
        """Compressed rows ``(rowptr, col)`` of both directions of the edges, int32 where they fit."""
        rowptr, col = self.edges.csr()
        dtype = index_dtype(col.numel(), self.edges.num_nodes)
        return rowptr.to(dtype), col.to(dtype)

    def adjacency(self, dtype: torch.dtype) -> Adjacency:
        """Return the matrix of weights; it keeps memory for its values as long as it lives."""
        rowptr, col = self.rows
        pattern = Pattern(rowptr, col, self.edges.num_nodes)
        if self.weight is None:
            return Adjacency(pattern)
        # Entries above the diagonal are the edges in their order, those below in the order of their higher ends.
        weight = self.weight.to(dtype)
        value, above = weight.new_empty(col.numel()), col > pattern.row()
        value[above] = weight
        value[~above] = weight[self.edges.by_higher_end()[2]]
        return Adjacency(pattern, value)


def sizes(before: WeightedGraph, after: WeightedGraph, sampling: Sampling) -> list[Figure]:
    """Compare the numbers of edges, isolated nodes and components, and the shares of the largest component."""
    counts = []
    for graph in (before, after):
        size = _component_sizes(graph)
        isolated = int((graph.degree == 0).sum())
        counts.append([graph.edges.num_edges, isolated, size.numel(), int(size.max()) / graph.edges.num_nodes])
    names = ("edges", "isolated nodes", "components", "share of nodes in the largest component")
    rows = [_both("size", name, *pair) for name, *pair in zip(names, *counts, strict=True)]
    kept = sum(int(is_among(before.edges.key[part], after.edges.key).sum()) for part in blocks(before.edges.num_edges))
    return [rows[0], Figure("size", "share of edges kept", _share(kept, before.edges.num_edges)), *rows[1:]]


def _component_sizes(graph: WeightedGraph) -> Tensor:
    from scipy.sparse import csr_array  # slow to import, and not needed elsewhere
    from scipy.sparse.csgraph import connected_components

    rowptr, col = (part.cpu().numpy() for part in graph.rows)
    size = (graph.edges.num_nodes,) * 2
    matrix = csr_array((torch.ones(len(col), dtype=torch.float64).numpy(), col, rowptr), shape=size)
    # Where both directions of all edges are there, all components are strong: no transpose is made to find them.
    _, label = connected_components(matrix, directed=True, connection="strong")
    return torch.bincount(torch.from_numpy(label))


def degrees(before: WeightedGraph, after: WeightedGraph, sampling: Sampling) -> list[Figure]:
    """Compare the weighted degrees: their distributions, their order, and node by node."""
    old, new = before.strength, after.strength
    there = old > 0
    relative = (new[there] / old[there] - 1).square()
    return [
        Figure("degree", "degree KS distance", _ks_distance(old, new)),
        Figure("degree", "degree rank correlation", rank_correlation(old, new)),
        Figure("degree", "degree rms relative error", float(relative.mean().sqrt())),
    ]


def _ks_distance(a: Tensor, b: Tensor) -> float:
    """Return the largest difference of two distribution functions."""
    at = torch.cat([a, b])
    share = [torch.searchsorted(x.sort().values, at, right=True).double() / x.numel() for x in (a, b)]
    return float((share[0] - share[1]).abs().max())


def rank_correlation(a: Tensor, b: Tensor) -> float:
    """Return Spearman's correlation, equal values sharing the mean of their ranks; NaN if one side is constant."""
    ranks = []
    for values in (a, b):
        _, place, count = torch.unique(values, return_inverse=True, return_counts=True)
        last = count.cumsum(0)
        ranks.append((last - (count - 1) / 2)[place].double())
    if torch.equal(*ranks):
        return 1.0
    x, y = (rank - rank.mean() for rank in ranks)
    return float((x @ y) / (x.norm() * y.norm()))


def clustering(before: WeightedGraph, after: WeightedGraph, sampling: Sampling) -> list[Figure]:
    """Compare how often two neighbours of a node are neighbours, over all pairs of neighbours and node by node."""
    exact = all(_num_successor_pairs(graph) <= _WEDGES for graph in (before, after))
    found = [_clustering(graph) if exact else _drawn_clustering(graph, sampling.seed) for graph in (before, after)]
    names = ("transitivity", "mean local clustering")
    return [_both("clustering", name, old, new) for name, old, new in zip(names, *found, strict=True)]


def _num_successor_pairs(graph: WeightedGraph) -> int:
    """Return how many pairs of neighbours counting triangles would look at."""
    degree = graph.degree
    successors = torch.zeros_like(degree)
    for _, u, v in graph.edges.blocks():
        successors += torch.bincount(torch.where(degree[u] <= degree[v], u, v), minlength=degree.numel())
    return int((successors * (successors - 1) // 2).sum())


def _clustering(graph: WeightedGraph) -> list[tuple[float, float | None]]:
    degree = graph.degree
    common = triangles_per_edge(graph.edges, degree)
    at = torch.zeros_like(degree)
    for where, u, v in graph.edges.blocks():
        at.index_add_(0, u, common[where]).index_add_(0, v, common[where])
    wedges = degree * (degree - 1)  # twice as many, and so is `at`
    total = int(wedges.sum())
    return [(int(at.sum()) / max(total, 1), None), (float((at / wedges.clamp(min=1)).mean()), None)]


def _drawn_clustering(graph: WeightedGraph, seed: int) -> list[tuple[float, float | None]]:
    degree = graph.degree
    wedges = (degree * (degree - 1) // 2).cumsum(0)
    several = (degree > 1).nonzero().squeeze(1)
    if not several.numel():
        return [(0.0, 0.0), (0.0, 0.0)]
    draws = _integers(seed, "wedges", 6, _DRAWN_WEDGES, degree.device)
    centres = (torch.searchsorted(wedges, draws[0] % wedges[-1], right=True), several[draws[1] % several.numel()])
    found: list[tuple[float, float | None]] = []
    rowptr, col = graph.rows
    for centre, first, second, weight in zip(
        centres, draws[2:4], draws[4:6], (1.0, several.numel() / degree.numel()), strict=True
    ):
        first, second = first % degree[centre], second % (degree[centre] - 1)
        second += second >= first
        ends = [col[rowptr[centre] + place].long() for place in (first, second)]
        share = float(is_among(pair_keys((ends[0], ends[1]), degree.numel()), graph.edges.key).double().mean())
        found.append((weight * share, weight * math.sqrt(share * (1 - share) / (_DRAWN_WEDGES - 1))))
    return found


def _integers(seed: int, name: str, rows: int, columns: int, device: torch.device) -> Tensor:
    """Return random integers of 63 bits, ``[rows, columns]``."""
    words = CounterRandom(seed, name).words(2 * rows * columns, device=device).view(2, rows, columns)
    return words[0] << 31 ^ words[1]


def homophily(before: WeightedGraph, after: WeightedGraph, sampling: Sampling) -> list[Figure]:
    """Compare how many edges join equal labels, and say how many of those removed join different ones."""
    assert sampling.y is not None
    y, edges = sampling.y, [0, 0]
    pairs = [_mixing(graph, y) for graph in (before, after)]
    for where, u, v in before.edges.blocks():
        gone = ~is_among(before.edges.key[where], after.edges.key)
        a, b = y[u[gone]], y[v[gone]]
        known = (a >= 0) & (b >= 0)
        edges = [edges[0] + int(((a != b) & known).sum()), edges[1] + int(known.sum())]
    return [
        _both("homophily", "edge homophily", pairs[0][0], pairs[1][0]),
        _both("homophily", "adjusted homophily", pairs[0][1], pairs[1][1]),
        Figure("homophily", "share of removed edges between classes", edges[0] / max(edges[1], 1)),
    ]


def _mixing(graph: WeightedGraph, y: Tensor) -> tuple[float, float]:
    """Return the share of edges between equal labels, and how far it is above chance, as a share of what it can be."""
    same, volume = 0, torch.zeros(int(y.max()) + 1, dtype=torch.int64, device=y.device)
    for _, u, v in graph.edges.blocks():
        a, b = y[u], y[v]
        known = (a >= 0) & (b >= 0)
        a, b = a[known], b[known]
        same += int((a == b).sum())
        volume += torch.bincount(a, minlength=volume.numel()) + torch.bincount(b, minlength=volume.numel())
    total = int(volume.sum())
    share = _share(2 * same, total)
    chance = float((volume / max(total, 1)).square().sum())
    return share, (share - chance) / (1 - chance) if chance < 1 else math.nan


def quadratic_form(before: WeightedGraph, after: WeightedGraph, sampling: Sampling) -> list[Figure]:
    """Compare the sums of squared differences along edges of white and of smoothed vectors."""
    matrix, num_nodes, device = before.adjacency(torch.float32), before.edges.num_nodes, before.degree.device
    walks = before.strength > 0
    scale = torch.where(walks, 0.5 / before.strength, 0.0).float().unsqueeze(1)
    stays = torch.where(walks, 0.5, 1.0).float().unsqueeze(1)
    errors: list[Tensor] = []
    for part in blocks(sampling.vectors, _COLUMNS):
        names = [f"vector {i}" for i in range(part.start, part.stop)]
        white = torch.stack([CounterRandom(sampling.seed, name).normal(num_nodes, device=device) for name in names], 1)
        smooth = white.clone()
        for _ in range(_LAZY_STEPS):
            smooth = spmm(matrix, smooth).mul_(scale).addcmul_(smooth, stays)
        x = torch.cat([white, smooth], 1)
        errors.append(_relative_error(_energy(before, x), _energy(after, x)).view(2, -1))
    rows = []
    for kind, error in zip(("white", "smooth"), torch.cat(errors, 1), strict=True):
        spread = float(error.std() / math.sqrt(error.numel())) if error.numel() > 1 else math.nan
        rows.append(Figure("quadratic_form", f"mean error of x'Lx, {kind} x", float(error.mean()), spread))
        rows.append(Figure("quadratic_form", f"largest error of x'Lx, {kind} x", float(error.max())))
    return rows


def _energy(graph: WeightedGraph, x: Tensor) -> Tensor:
    """Return the quadratic form of the Laplacian for each column, float64."""
    total = x.new_zeros(x.size(1), dtype=torch.float64)
    for where in row_blocks(graph.edges.num_edges, x.size(1)):
        u, v = key_pairs(graph.edges.key[where], graph.edges.num_nodes)
        square = x.index_select(0, u).sub_(x.index_select(0, v)).square_()
        total += square.sum(0, dtype=torch.float64) if graph.weight is None else graph.weight[where] @ square.double()
    return total


def pagerank(before: WeightedGraph, after: WeightedGraph, sampling: Sampling) -> list[Figure]:
    """Compare the order of the nodes by PageRank."""
    # Nodes that are alike tie in float32, whatever the order of the sums.
    old, new = (_pagerank(graph).float() for graph in (before, after))
    top = min(_TOP, old.numel())
    common = int((mark_smallest(-old, top) & mark_smallest(-new, top)).sum())
    return [
        Figure("pagerank", "PageRank rank correlation", rank_correlation(old, new)),
        Figure("pagerank", f"share of the top {top} by PageRank in common", common / top),
    ]


def _pagerank(graph: WeightedGraph) -> Tensor:
    r"""Return the PageRank of each node, float64 ``[N]``.

    Nodes without edges share what they have among all, as the walks that return do: they change the scale alone, and
    :math:`x = \alpha P^\top x + 1` is the PageRank but for that. Its matrix has real eigenvalues, so that Chebyshev's
    weights between the last two steps shrink the error by 0.56 a step in place of 0.85.
    """
    matrix = graph.adjacency(torch.float64)
    share = torch.where(graph.strength > 0, _DAMPING / graph.strength, 0.0)
    before = at = torch.full_like(share, 1 / (1 - _DAMPING))
    weight = 1.0
    for step in range(_PRODUCTS):
        if step:
            weight = 1 / (1 - _DAMPING**2 / (2 if step == 1 else 4) * weight)
        before, at = at, torch.lerp(before, spmm(matrix, at * share).add_(1), weight)
    return at / at.sum()


def distances(before: WeightedGraph, after: WeightedGraph, sampling: Sampling) -> list[Figure]:
    """Compare numbers of steps from some nodes to all others: pairs that are no longer joined, and detours."""
    # Nodes with edges in a random order, the first of them.
    mixed = mix64(CounterRandom(sampling.seed, "sources").key ^ torch.arange(before.edges.num_nodes))
    mixed = mixed.to(before.degree.device)
    candidates = (before.degree > 0).nonzero().squeeze(1)
    sources = candidates[mixed[candidates].argsort()[: sampling.sources]]
    old, new = (hop_distances(*graph.rows, sources) for graph in (before, after))
    joined, kept = torch.zeros(2, sources.numel(), dtype=torch.int64, device=sources.device)
    total = torch.zeros(sources.numel(), dtype=torch.float64, device=sources.device)
    ratios = []
    for where in row_blocks(*old.shape):
        both = (old[where] > 0) & (new[where] > 0)
        ratio = torch.where(both, new[where].double() / old[where], 0)
        joined += (old[where] > 0).sum(0)
        kept += both.sum(0)
        total += ratio.sum(0)
        ratios.append(ratio[both].float())
    population = candidates.numel()
    return [
        Figure("distances", "share of pairs lost", *_ratio(joined - kept, joined, population)),
        Figure("distances", "mean stretch", *_ratio(total, kept, population)),
        Figure("distances", "95 % stretch", *_quantile(torch.cat(ratios), old, new, kept, population)),
    ]


def _ratio(part: Tensor, whole: Tensor, population: int) -> tuple[float, float]:
    """Return the ratio of two sums over drawn sources, and its standard error."""
    part, whole, drawn = part.double(), whole.double(), whole.numel()
    if not drawn or not whole.any():
        return math.nan, math.nan
    ratio = float(part.sum() / whole.sum())
    if drawn == population:
        return ratio, 0.0
    if drawn == 1:
        return ratio, math.nan
    spread = float((part - ratio * whole).square().sum()) * drawn / (drawn - 1) * (1 - drawn / population)
    return ratio, math.sqrt(spread) / float(whole.sum())


def _quantile(ratio: Tensor, old: Tensor, new: Tensor, kept: Tensor, population: int) -> tuple[float, float]:
    """Return the quantile of the stretch, and Woodruff's standard error: that of the share below it, carried over."""
    if not ratio.numel():
        return math.nan, math.nan

    def at(share: float) -> float:
        k = min(max(math.ceil(share * ratio.numel()), 1), ratio.numel())
        return float(kth_smallest(ratio, k, overwrite=True))

    value = at(_QUANTILE)
    below = torch.zeros_like(kept)
    for where in row_blocks(*old.shape):
        stretch = (new[where].double() / old[where]).float()
        below += ((old[where] > 0) & (new[where] > 0) & (stretch <= value)).sum(0)
    error = _ratio(below, kept, population)[1]
    return value, math.nan if math.isnan(error) else (at(_QUANTILE + error) - at(_QUANTILE - error)) / 2


def cuts(before: WeightedGraph, after: WeightedGraph, sampling: Sampling) -> list[Figure]:
    """Compare the weights of the edges that leave each part of the first graph."""
    key, num_nodes = before.edges.key, before.edges.num_nodes
    if key.numel() > _EDGES_TO_CUT:
        limit = int(2**32 * _EDGES_TO_CUT / key.numel())
        own = CounterRandom(sampling.seed, "edges to cut").key
        few = [k[(mix64(k ^ own) & 0xFFFFFFFF) < limit] for k in (key[where] for where in blocks(key.numel()))]
        key = torch.cat(few)
    count = min(_PARTS, num_nodes)
    part = partition_graph(key_pairs(key, num_nodes), count, num_nodes, seed=sampling.seed)
    error = _relative_error(*(_cut_weights(graph, part, count) for graph in (before, after)))
    return [
        Figure("cuts", f"mean error of {count} cuts", float(error.mean())),
        Figure("cuts", f"largest error of {count} cuts", float(error.max())),
    ]


def _cut_weights(graph: WeightedGraph, part: Tensor, parts: int) -> Tensor:
    cut = torch.zeros(parts, dtype=torch.float64, device=part.device)
    for where, u, v in graph.edges.blocks():
        a, b = part[u], part[v]
        weight = (a != b).double() if graph.weight is None else graph.weight[where] * (a != b)
        cut += torch.bincount(a, weight, parts) + torch.bincount(b, weight, parts)
    return cut


def _relative_error(old: Tensor, new: Tensor) -> Tensor:
    """Return the size of the relative change; nothing that stays nothing is no change."""
    error: Tensor = (new / old - 1).abs_()
    return error.masked_fill_((old == 0) & (new == 0), 0)


def _share(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _both(
    measure: str, name: str, old: float | tuple[float, float | None], new: float | tuple[float, float | None]
) -> Figure:
    """Return a figure of each graph with their difference, whose error is that of two draws that are not related."""
    (a, a_error), (b, b_error) = (x if isinstance(x, tuple) else (x, None) for x in (old, new))
    error = None if a_error is None or b_error is None else math.hypot(a_error, b_error)
    return Figure(measure, name, b - a, error, a, b)


Measure = Callable[[WeightedGraph, WeightedGraph, Sampling], list[Figure]]
#: All measures, in the order in which they are told.
MEASURES: dict[str, Measure] = {
    "size": sizes,
    "degree": degrees,
    "clustering": clustering,
    "homophily": homophily,
    "quadratic_form": quadratic_form,
    "pagerank": pagerank,
    "distances": distances,
    "cuts": cuts,
}
