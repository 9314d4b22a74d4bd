"""What survives when edges of a graph are removed: two graphs over the same nodes, compared in one call."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphsparse.edges.attributes import check_one_graph
from graphsparse.edges.entries import Entries, check_edge_weight
from graphsparse.edges.mask import matrix_entries
from graphsparse.metrics.graph_measures import MEASURES, Figure, Sampling, WeightedGraph
from graphsparse.metrics.labels import is_labelled
from graphsparse.ops.check import check_count, check_edge_index, check_list
from graphsparse.utils.counter_random import check_seed


@dataclass(frozen=True, repr=False)
class GraphComparison:
    """The figures of :func:`compare_graphs`.

    Args:
        figures: Each with ``measure``, ``name``, ``value``, ``error``, ``before`` and ``after``. ``value`` compares the
            graphs; where ``before`` and ``after`` hold a number for each it is their difference, after minus before.
            ``error`` is the standard error of what was sampled, and ``None`` for what is exact.
    """

    figures: tuple[Figure, ...]

    def to_dict(self) -> dict[str, float]:
        """Return all numbers by name: ``"edges before"``, ``"edges after"``, ``"edges"``, ``"mean stretch error"``."""
        numbers: dict[str, float] = {}
        for figure in self.figures:
            for end in ("before", "after", "value", "error"):
                if (number := getattr(figure, end)) is not None:
                    numbers[figure.name if end == "value" else f"{figure.name} {end}"] = number
        return numbers

    def table(self) -> str:
        """Return the figures as a table in Markdown."""
        head = ("figure", "before", "after", "difference or comparison", "standard error")
        rows = [head, ("---",) * len(head)]
        for figure in self.figures:
            numbers = (figure.before, figure.after, figure.value, figure.error)
            rows.append((figure.name, *map(_written, numbers)))
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)

    def __repr__(self) -> str:
        names = list(dict.fromkeys(figure.measure for figure in self.figures))
        return f"{type(self).__name__}({len(self.figures)} figures of {', '.join(names)})"


def _written(number: float | None) -> str:
    if number is None:
        return ""
    return f"{number:,}" if isinstance(number, int) else "-" if math.isnan(number) else f"{number:.4g}"


def compare_graphs(
    before: Data,
    after: Data,
    *,
    y: Tensor | None = None,
    measures: Sequence[str] | None = None,
    sources: int = 64,
    vectors: int = 32,
    seed: int = 0,
) -> GraphComparison:
    r"""Say what of a graph is left in another one over the same nodes, such as a sparsified one.

    Both are taken as undirected: directions and duplicates of an edge are joined, the weight of an edge is the mean
    over its entries, self-loops and edges of weight 0 do not count. With the weighted degrees :math:`d`, which without
    weights are numbers of neighbours, and a prime for the second graph:

    ==================  ================================================================================================
    measure             figures
    ==================  ================================================================================================
    ``size``            edges, the share of them that is kept, isolated nodes, components, and the share of the nodes in
                        the largest one
    ``degree``          largest difference of the distribution functions of :math:`d` and :math:`d'` (Kolmogorov and
                        Smirnov), Spearman's rank correlation, :math:`\sqrt{\operatorname{mean}(d'/d - 1)^2}` over nodes
                        with edges
    ``clustering``      transitivity, and the mean of the local coefficients, as networkx defines them; of large graphs
                        from a million pairs of neighbours each
    ``homophily``       share :math:`h` of edges between equal labels; adjusted, :math:`(h - \sum_k p_k^2) / (1 - \sum_k
                        p_k^2)`, with the share :math:`p_k` of class :math:`k` among the ends of edges; share of the
                        removed edges that join two classes, 0 where none was removed. Edges with two labelled ends only
    ``quadratic_form``  mean and largest :math:`|x^\top L' x / x^\top L x - 1|` for Laplacians :math:`L = D - A` and
                        normal vectors; also for the same vectors after 10 steps :math:`x \leftarrow (x + D^{-1} A x)/2`
                        on the first graph
    ``pagerank``        PageRank with damping 0.85: rank correlation, and the share of the top 100 that both have
    ``distances``       numbers of steps from some nodes to all others: the share of the pairs joined before that are
                        not any more, and of the pairs that still are the mean and 95 % quantile of :math:`t'/t`
    ``cuts``            relative error of the weights that leave each of 16 METIS parts of the first graph, mean and
                        largest; of a graph with more than :math:`2^{22}` edges, parts of a sample of so many
    ==================  ================================================================================================

    Graphs that are equal have an error, or a difference, of 0 everywhere, and a share, a correlation or a stretch of 1.
    **A stretch says nothing without the share of pairs lost**: pairs that are not joined any more do not enter it, so
    that cutting a graph into pieces improves it. Likewise a quadratic form on white vectors alone looks best for
    uniform sampling. What there is nothing of to measure, such as a stretch where all pairs are lost, is NaN.

    What is sampled is so with the same sources and vectors for both graphs, a function of ``seed`` alone, and comes
    with its standard error (that of a share or a mean over pairs counts the sources as the draws; a maximum has none).
    Sources are nodes with edges in the first graph; with as many sources as there are such nodes distances are exact.
    Besides the input it holds about 30 bytes for each edge of both, and 8 for each node and source.

    Args:
        before: The graph to compare with, with ``edge_index`` or else ``adj_t``; ``edge_weight``, or the values of
            ``adj_t``, are used if there are any: not negative, and better the larger. A ``Batch`` is one graph.
        after: The other one, over the same nodes.
        y: Class of each node ``[N]``, -1 or -100 for none; ``None`` for ``before.y``, if that is one.
        measures: Names of the measures; all that can be computed when ``None``, which are all but ``homophily`` without
            classes.
        sources: Number of nodes from which distances are measured.
        vectors: Number of vectors of the quadratic form.
        seed: Seed of the draws.

    Raises:
        TypeError: If a graph is no homogeneous ``Data``, or a tensor has the wrong type.
        ValueError: If the graphs have different numbers of nodes, none at all, or are on different devices; if a weight
            is negative or not finite, a measure is unknown, or homophily is asked for without classes.

    Example:
        >>> from graphsparse.testing import toy_edge_index
        >>> before = Data(edge_index=toy_edge_index(), num_nodes=5)
        >>> after = Data(edge_index=torch.tensor([[0, 0, 0, 1], [1, 2, 3, 2]]), num_nodes=5)
        >>> comparison = compare_graphs(before, after, measures=["size"])
        >>> print(comparison.table())
        | figure | before | after | difference or comparison | standard error |
        | --- | --- | --- | --- | --- |
        | edges | 5 | 4 | -1 |  |
        ...
        >>> comparison.to_dict()["components after"]
        2

    Source: Chen et al., *Demystifying graph sparsification algorithms in graph properties preservation*, VLDB 2024 (the
    measures); Platonov et al., *Characterizing graph datasets for node classification*, NeurIPS 2023 (adjusted
    homophily); Batson et al., *Spectral sparsification of graphs*, CACM 2013 (the quadratic form).
    """
    chosen = _check_measures(measures)
    sources, vectors = check_count(sources, "sources"), check_count(vectors, "vectors")
    seed = check_seed(seed)
    for graph, name in ((before, "before"), (after, "after")):
        check_one_graph(graph, name)
    num_nodes = _same_nodes(before, after)
    label = _classes(before, y, num_nodes)
    if label is None and measures is None:
        chosen.remove("homophily")
    elif label is None and "homophily" in chosen:
        raise ValueError("'measures' holds 'homophily', which needs a class of each node: pass 'y'")
    old, new = (read_graph(graph, num_nodes, name) for graph, name in ((before, "before"), (after, "after")))
    if old.edges.key.device != new.edges.key.device:
        devices = f"{old.edges.key.device} and {new.edges.key.device}"
        raise ValueError(f"'before' and 'after' must be on one device (got {devices})")
    sampling = Sampling(sources, vectors, seed, None if label is None else label.to(old.edges.key.device))
    with torch.no_grad():
        return GraphComparison(tuple(row for name in chosen for row in MEASURES[name](old, new, sampling)))


def _check_measures(measures: Sequence[str] | None) -> list[str]:
    names = list(MEASURES) if measures is None else check_list(measures, "measures", "a list of names")
    for name in names:
        if name not in MEASURES:
            raise ValueError(f"'measures' must hold names out of {list(MEASURES)} (got {name!r})")
    return list(dict.fromkeys(names))


def _same_nodes(before: Data, after: Data) -> int:
    sizes = [graph.num_nodes for graph in (before, after)]
    if sizes[0] != sizes[1] or not sizes[0]:
        raise ValueError(
            f"'before' and 'after' must have the same nodes, at least one (got {sizes[0]} and {sizes[1]} nodes); where "
            "only the edges tell how many there are, set 'num_nodes'"
        )
    return int(sizes[0])


def _classes(data: Data, y: Tensor | None, num_nodes: int) -> Tensor | None:
    """Return the class of each node from 0, -1 where there is none."""
    given, y = y is not None, data.y if y is None else y
    fits = isinstance(y, Tensor) and not y.is_floating_point() and y.dtype != torch.bool and y.numel() == num_nodes
    if fits and y.shape in ((num_nodes,), (num_nodes, 1)):
        known = is_labelled(y)
        label = torch.full((num_nodes,), -1, dtype=torch.int64, device=y.device)
        label[known] = torch.unique(y.reshape(-1)[known], return_inverse=True)[1]
        if given and not bool(known.any()):
            raise ValueError("'y' holds no class: all are -1 or -100")
        return label if bool(known.any()) else None
    if not given:
        return None
    if not isinstance(y, Tensor) or y.is_floating_point() or y.dtype == torch.bool:
        raise TypeError(f"'y' must be an integer tensor (got {getattr(y, 'dtype', type(y).__name__)})")
    raise ValueError(f"'y' must have one class for each of {num_nodes} nodes (got shape {list(y.shape)})")


def read_graph(data: Data, num_nodes: int, name: str) -> WeightedGraph:
    """Return the undirected edges of a graph with their weights."""
    edge_index, weight = data.edge_index, data.get("edge_weight")
    if edge_index is None:
        if "adj_t" not in data:
            raise ValueError(f"'{name}' must have 'edge_index' or 'adj_t' (it has {list(data.keys())})")
        row, col, weight = matrix_entries(data.adj_t, f"{name}.adj_t")
        edge_index = torch.stack([row, col])
    check_edge_index(edge_index, num_nodes, f"{name}.edge_index")
    if weight is None:
        return WeightedGraph(Entries(edge_index, num_nodes).edges, None)
    weight = check_edge_weight(weight, edge_index, f"{name}.edge_weight")
    there = weight > 0
    if not bool(there.all()):
        edge_index, weight = edge_index[:, there], weight[there]
    entries = Entries(edge_index, num_nodes)
    mean = None if bool((weight == 1).all()) else entries.per_edge(weight, "mean")
    return WeightedGraph(entries.edges, mean)
