"""A citation graph drawn at random, of any size: the graph that needs no download."""

import math

import numpy as np
import torch
from torch_geometric.data import Data

from graphsparse.datasets.block_model import draw_edges, power_law
from graphsparse.datasets.split import per_class_split
from graphsparse.datasets.words import draw_words
from graphsparse.ops.check import check_count, check_real


def synthetic_citation(
    num_nodes: int = 2000,
    *,
    num_classes: int = 7,
    num_features: int = 200,
    avg_degree: float = 4.0,
    homophily: float = 0.8,
    degree_exponent: float = 2.5,
    concentration: float = 1.0,
    words_per_node: float = 15.0,
    topic_share: float = 0.12,
    sparse_features: bool = False,
    train_per_class: int = 20,
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
    falls as :math:`k^{-\text{degree\_exponent}}` and, from ``avg_degree=2`` on, no node is isolated. The law is cut
    off where one paper would be cited by about a quarter of its class.

    **Features.** See :func:`graphsparse.datasets.words.draw_words`: each paper draws words, a share of them from those
    of its class; ``x`` is 1 where a word was drawn.

    Classes differ by at most one node in size. Time and memory are linear in nodes, edges and words, but for sorting.
    With the defaults the graph matters and there is room for pruning to show: two layers of GCN reach about 85 % on
    the test nodes, an MLP 45 %.

    Args:
        num_nodes: Number of nodes ``N``, 1e3 to 2.5e6 or so.
        num_classes: Number of classes, at least 2.
        num_features: Number of words ``F``, at least ``num_classes``.
        avg_degree: Mean number of neighbours.
        homophily: Fraction of the edges that join two nodes of one class, in ``[0, 1]``.
        degree_exponent: Exponent of the tail of the degrees, above 2; the smaller, the larger the hubs.
        concentration: Sum of the two parameters of the Beta distribution, above 0: small values give papers that cite
            either only within or only outside their class, large ones give all papers the same mixture.
        words_per_node: Mean number of words drawn per node, at least 1; distinct ones are a little fewer.
        topic_share: Probability that a word is one of the class's own, in ``[0, 1]``: how much an MLP can learn.
        sparse_features: Return ``x`` as a torch CSR tensor; a dense ``x`` takes ``4 * N * F`` bytes. PyG's layers take
            it where they multiply by weights first (``GCNConv``), not where they gather rows first (``SAGEConv``).
        train_per_class: Training nodes of each class.
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
    016107 (2011), Section III, adapted as :func:`graphsparse.datasets.block_model.draw_edges` says.
    """
    num_nodes = check_count(num_nodes, "num_nodes", 2)
    num_classes = check_count(num_classes, "num_classes", 2)
    num_features = check_count(num_features, "num_features", num_classes)
    seed = check_count(seed, "seed", 0)
    _check_range("avg_degree", avg_degree, 0.0, math.inf)
    _check_range("homophily", homophily, 0.0, 1.0)
    _check_range("degree_exponent", degree_exponent, 2.0, math.inf, above=True)
    _check_range("concentration", concentration, 0.0, math.inf, above=True)
    _check_range("words_per_node", words_per_node, 1.0, math.inf)
    _check_range("topic_share", topic_share, 0.0, 1.0)

    rng = np.random.default_rng(seed)
    label = rng.permutation(np.arange(num_nodes) % num_classes)
    y = torch.from_numpy(label)
    # Before the edges, which take longer: there may be too few nodes.
    train_mask, val_mask, test_mask = per_class_split(y, train_per_class, num_val, num_test, seed=seed)
    num_edges = round(num_nodes * avg_degree / 2)
    num_same = round(homophily * num_edges)
    _check_density(num_nodes, num_classes, num_edges, num_same)

    # In units of the mean, which is cited num_edges / num_nodes times.
    cutoff = num_nodes**2 / (4 * num_classes * max(num_edges, 1))
    popularity = power_law(num_nodes, degree_exponent, cutoff, rng)
    loyalty = np.full(num_nodes, float(homophily))
    if 0.0 < homophily < 1.0:
        # Nobody is perfectly loyal or disloyal, so that every class can be reached in both ways.
        beta = rng.beta(homophily * concentration, (1.0 - homophily) * concentration, num_nodes)
        loyalty = 0.01 * loyalty + 0.99 * beta
    try:
        edge_index = draw_edges(label, popularity, loyalty, num_edges, num_same, rng)
    except ValueError as error:
        raise ValueError(
            f"'avg_degree' ({avg_degree}) is too high together with 'homophily' ({homophily}), 'degree_exponent' "
            f"({degree_exponent}) and 'concentration' ({concentration}): few nodes get most edges"
        ) from error
    x = draw_words(label, num_classes, num_features, words_per_node, topic_share, rng, sparse=sparse_features)
    data = Data(x=x, edge_index=edge_index, y=y, train_mask=train_mask, val_mask=val_mask, test_mask=test_mask)
    data.num_classes, data.name = int(num_classes), "synthetic"
    return data


def _check_range(name: str, value: float, low: float, high: float, *, above: bool = False) -> None:
    """Raise an error unless ``value`` is a finite number in ``[low, high]``, or above ``low``."""
    value = check_real(value, name)
    if not (low <= value <= high and math.isfinite(value)) or (above and value == low):
        bounds = f"above {low:g}" if above else f"in [{low:g}, {high:g}]"
        raise ValueError(f"'{name}' must be a finite number {bounds} (got {value!r})")


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
