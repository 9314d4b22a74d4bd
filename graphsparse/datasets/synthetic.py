"""A citation graph drawn at random, of any size: the graph that needs no download."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch_geometric.data import Data

from graphsparse.datasets.split import per_class_split
from graphsparse.ops.blocks import blocks
from graphsparse.ops.check import check_count, check_number, check_share
from graphsparse.ops.pairs import both_ways, is_among, key_pairs

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

#: Exponent of the tail of the degrees, above 2; the smaller, the larger the hubs.
_DEGREE_EXPONENT = 2.5
#: Sum of the two parameters of the Beta distribution of loyalties: small values give papers that cite only within or
#: only outside their class, large ones give all papers the same mixture.
_CONCENTRATION = 1.0
#: Mean number of words drawn per node, and the probability that a word is one of the class's own.
_WORDS_PER_NODE, _TOPIC_SHARE = 15.0, 0.12
#: Training nodes of each class.
_TRAIN_PER_CLASS = 20
#: How often edges that came out twice are drawn again before the graph is called too dense.
_ROUNDS = 200
#: Nodes whose words are drawn at a time, so that temporaries stay small. Changing it changes every graph.
_NODES = 1 << 18


def synthetic_citation(
    num_nodes: int = 2000,
    *,
    num_classes: int = 7,
    num_features: int = 200,
    avg_degree: float = 4.0,
    homophily: float = 0.8,
    num_val: int | None = None,
    num_test: int | None = None,
    seed: int = 0,
) -> Data:
    r"""Draw an undirected citation-like graph from a degree-corrected block model, with words as features.

    **Edges.** Every paper cites at least one other, the other citations start anywhere; a paper is cited in proportion
    to its popularity :math:`\theta`, which follows a power law. There are exactly
    :math:`M = \mathrm{round}(N \cdot \text{avg\_degree} / 2)` edges, exactly
    :math:`\mathrm{round}(\text{homophily} \cdot M)` of them within a class:

    .. math::
        P(u \to v) \propto \theta_v \lambda_v\, [y_u = y_v] \quad\text{or}\quad
        P(u \to v) \propto \theta_v (1 - \lambda_v)\, [y_u \neq y_v].

    The loyalty :math:`\lambda \sim \mathrm{Beta}` with mean ``homophily`` makes some papers stand between the classes
    and leaves most neighbourhoods pure, as in real citation graphs. Directions are dropped, so the density of degrees
    falls as :math:`k^{-2.5}` and, from ``avg_degree=2`` on, no node is isolated. The law is cut off where one paper
    would be cited by about a quarter of its class.

    **Features.** Each paper draws about 15 words, 12 % of them from those that belong to its class alone, all by Zipf's
    law; ``x`` is 1 where a word was drawn.

    Classes differ by at most one node in size. Time and memory are linear in nodes, edges and words, but for sorting.
    With the defaults the graph matters and there is room for pruning to show: two layers of GCN reach about 85 % on
    the test nodes, an MLP 45 %.

    Args:
        num_nodes: Number of nodes ``N``, 1e3 to 2.5e6 or so.
        num_classes: Number of classes, at least 2.
        num_features: Number of words ``F``, at least ``num_classes``.
        avg_degree: Mean number of neighbours.
        homophily: Fraction of the edges that join two nodes of one class, in ``[0, 1]``.
        num_val: Validation nodes; ``None`` for 500, less in a small graph, see
            :func:`graphsparse.datasets.split.per_class_split`.
        num_test: Test nodes; ``None`` for 1000, less in a small graph.
        seed: Equal seeds give equal graphs, bit for bit; the global random state is neither used nor changed.

    Returns:
        ``Data`` with ``x`` ``[N, F]`` float32 of zeros and ones, ``edge_index`` ``[2, 2M]`` int64 (both directions,
        sorted, no self-loops, no duplicates), ``y`` ``[N]`` int64, bool masks ``train_mask``, ``val_mask``,
        ``test_mask`` ``[N]``, ``num_classes`` and ``name``.

    Raises:
        TypeError: If a number is not a number.
        ValueError: If an argument is out of range, the graph would be too dense for its size, or there are not enough
            nodes for the split.

    Example:
        >>> data = synthetic_citation(1000, seed=1)
        >>> data.num_nodes, data.num_edges, data.num_classes, data.is_undirected()
        (1000, 4000, 7, True)

    Source: Karrer and Newman, "Stochastic blockmodels and community structure in networks", Physical Review E 83,
    016107 (2011), Section III; ends and starts weighted apart as in Zhu, Yan and Moore, "Oriented and degree-generated
    block models", Journal of Complex Networks 2 (2014), Section 2. Exact totals are ours.
    """
    num_nodes = check_count(num_nodes, "num_nodes", 2)
    num_classes = check_count(num_classes, "num_classes", 2)
    num_features = check_count(num_features, "num_features", num_classes)
    seed = check_count(seed, "seed", 0)
    avg_degree = check_number(avg_degree, "avg_degree", least=0)
    homophily = check_share(homophily, "homophily")

    rng = np.random.default_rng(seed)
    label = rng.permutation(np.arange(num_nodes) % num_classes)
    y = torch.from_numpy(label)
    # Before the edges, which take longer: there may be too few nodes.
    train_mask, val_mask, test_mask = per_class_split(y, _TRAIN_PER_CLASS, num_val, num_test, seed=seed)
    num_edges = round(num_nodes * avg_degree / 2)
    num_same = round(homophily * num_edges)
    _check_density(num_nodes, num_classes, num_edges, num_same)

    # In units of the mean, which is cited num_edges / num_nodes times.
    cutoff = num_nodes**2 / (4 * num_classes * max(num_edges, 1))
    popularity = power_law(num_nodes, _DEGREE_EXPONENT, cutoff, rng)
    loyalty = np.full(num_nodes, float(homophily))
    if 0.0 < homophily < 1.0:
        # Nobody is perfectly loyal or disloyal, so that every class can be reached in both ways.
        beta = rng.beta(homophily * _CONCENTRATION, (1.0 - homophily) * _CONCENTRATION, num_nodes)
        loyalty = 0.01 * loyalty + 0.99 * beta
    try:
        edge_index = draw_edges(label, popularity, loyalty, num_edges, num_same, rng)
    except ValueError as error:
        raise ValueError(
            f"'avg_degree' ({avg_degree}) is too high together with 'homophily' ({homophily}): few nodes get most edges"
        ) from error
    x = draw_words(label, num_classes, num_features, _WORDS_PER_NODE, _TOPIC_SHARE, rng)
    data = Data(x=x, edge_index=edge_index, y=y, train_mask=train_mask, val_mask=val_mask, test_mask=test_mask)
    data.num_classes, data.name = int(num_classes), "synthetic"
    return data


def _check_density(num_nodes: int, num_classes: int, num_edges: int, num_same: int) -> None:
    """Raise an error when the edges would join more than a tenth of the pairs that they may join."""
    size = num_nodes / num_classes
    pairs_same = num_nodes * (size - 1) / 2
    pairs_other = num_nodes * (num_nodes - size) / 2
    for where, edges, pairs in (("within", num_same, pairs_same), ("between", num_edges - num_same, pairs_other)):
        if edges > 0.1 * pairs:
            raise ValueError(
                f"'avg_degree' is too high for {num_nodes} nodes in {num_classes} classes: {edges} edges {where} "
                f"classes would join more than a tenth of the {pairs:.0f} pairs of nodes there"
            )


def power_law(num: int, exponent: float, cutoff: float, rng: np.random.Generator) -> Floats:
    """Return ``num`` numbers with mean 1 whose density falls as ``value ** -exponent``: its quantiles, in random order.

    The largest number is about the cutoff, which is at least 1.
    """
    quantile = ((np.arange(num) + 0.5) / num) ** (-1.0 / (exponent - 1.0))
    weight = np.minimum(quantile / quantile.mean(), max(cutoff, 1.0))
    return rng.permutation(weight / weight.mean())


def draw_edges(
    label: Ints, popularity: Floats, loyalty: Floats, num_edges: int, num_same: int, rng: np.random.Generator
) -> Tensor:
    r"""Draw exactly ``num_edges`` distinct undirected edges, exactly ``num_same`` of them within a class.

    Every node starts one edge (as many as there are edges for), the others start at nodes drawn uniformly. The
    ``num_same`` starts for which a uniform number falls furthest below the loyalty :math:`\lambda` of their node look
    for their end in their own class, the others outside:

    .. math::
        P(v \mid u) \propto \theta_v \lambda_v\, [y_u = y_v] \quad\text{or}\quad
        P(v \mid u) \propto \theta_v (1 - \lambda_v)\, [y_u \neq y_v],

    with the popularity :math:`\theta`. Loops and pairs that are there already are drawn again.
    """
    num = len(label)
    if num_edges >= num:
        source = np.concatenate([np.arange(num), rng.integers(num, size=num_edges - num)])
    else:
        source = rng.permutation(num)[:num_edges]
    same = np.zeros(num_edges, dtype=np.bool_)
    same[np.argsort(rng.random(num_edges) - loyalty[source], kind="stable")[:num_same]] = True

    # With the nodes in the order of their classes, each class is an interval of both lines.
    order = np.argsort(label, kind="stable")
    bound = np.concatenate([[0], np.bincount(label).cumsum()])
    home = np.concatenate([[0.0], (popularity * loyalty)[order].cumsum()])
    away = np.concatenate([[0.0], (popularity * (1.0 - loyalty))[order].cumsum()])

    done: Ints = np.empty(0, dtype=np.int64)  # one key per edge, sorted
    for _ in range(_ROUNDS):
        target = np.empty_like(source)
        first, last = bound[label[source]], bound[label[source] + 1]
        draw = rng.random(len(source))
        low, high = home[first[same]], home[last[same]]
        target[same] = _find(home, low + draw[same] * (high - low))
        # Here the interval of the own class is cut out of the line.
        low, high = away[first[~same]], away[last[~same]]
        place = draw[~same] * (away[-1] - (high - low))
        target[~same] = _find(away, place + np.where(place >= low, high - low, 0.0))
        target = order[target]

        key = np.minimum(source, target) * num + np.maximum(source, target)
        # The second test catches a draw that rounding moved over the border of a class.
        good = (source != target) & ((label[source] == label[target]) == same)
        good[good] = _is_first(key[good])
        good[good] = ~is_among(torch.from_numpy(key[good]), torch.from_numpy(done)).numpy()
        done = np.concatenate([done, key[good]])
        done.sort()
        source, same = source[~good], same[~good]
        if len(source) == 0:
            return key_pairs(both_ways(torch.from_numpy(done), num), num)
    raise ValueError(f"'num_edges' is {num_edges}, but {len(source)} of them found no place between {num} nodes")


def _find(line: Floats, place: Floats) -> Ints:
    """Return the index of the interval of the line on which each place lies."""
    return np.minimum(np.searchsorted(line, place, side="right") - 1, len(line) - 2)


def _is_first(key: Ints) -> Bools:
    """Say of each element whether it is the first of its value."""
    order = np.argsort(key, kind="stable")
    first = np.ones(len(key), dtype=np.bool_)
    first[order[1:]] = key[order[1:]] != key[order[:-1]]
    return first


def draw_words(
    label: Ints, num_classes: int, num_words: int, per_node: float, topic_share: float, rng: np.random.Generator
) -> Tensor:
    """Draw the words of every node: float32 ``[N, F]``, 1 where the node drew the word at least once, else 0.

    A node draws ``1 + Poisson(per_node - 1)`` words. Each comes with probability ``topic_share`` from the
    ``num_words // num_classes`` words of its class, which belong to no other class, otherwise from all words. Both
    follow Zipf's law: the r-th word is drawn in proportion to ``1 / r``, in orders that have nothing to do with each
    other.
    """
    num = len(label)
    own = num_words // num_classes
    vocabulary, topics = rng.permutation(num_words), rng.permutation(num_words)
    zipf_all, zipf_own = _zipf(num_words), _zipf(own)
    x = torch.zeros(num, num_words)
    for where in blocks(num, _NODES):
        part = label[where]
        node = np.repeat(np.arange(len(part)), 1 + rng.poisson(per_node - 1.0, len(part)))
        topical = rng.random(len(node)) < topic_share
        draw = rng.random(len(node))
        word = np.where(
            topical,
            topics[part[node] * own + np.searchsorted(zipf_own, draw)],
            vocabulary[np.searchsorted(zipf_all, draw)],
        )
        x[torch.from_numpy(where.start + node), torch.from_numpy(word)] = 1.0
    return x


def _zipf(num: int) -> Floats:
    """Return the cumulative probabilities of Zipf's law; the last one is exactly 1."""
    total = (1.0 / np.arange(1, num + 1)).cumsum()
    cumulative: Floats = total / total[-1]
    return cumulative
