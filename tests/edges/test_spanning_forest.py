import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

import graphsparse.edges.cores.forest as module
from graphsparse.edges.cores import CORES
from graphsparse.edges.cores.forest import spanning_forest_mask
from graphsparse.edges.undirected import undirected_edges

pair_lists = st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=150)


def make_edges(pairs, num_nodes=12):
    return undirected_edges(torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).t(), num_nodes)


def pairs_of(edges, mask=None):
    keys = edges.key if mask is None else edges.key[mask]
    return [divmod(key, edges.num_nodes) for key in keys.tolist()]


def slow_forest(edges, score):
    """Kruskal of networkx on the places of the edges in the order (score, id), which are distinct."""
    graph = nx.empty_graph(edges.num_nodes)
    in_order = sorted(zip(score.tolist(), range(edges.num_edges), pairs_of(edges), strict=True))
    graph.add_edges_from((*pair, {"weight": place}) for place, (_, _, pair) in enumerate(in_order))
    return {(min(pair), max(pair)) for pair in nx.maximum_spanning_edges(graph, data=False)}


def components(edges, mask=None):
    """Return the smallest node of each node's component."""
    pairs = np.array(pairs_of(edges, mask), dtype=np.int64).reshape(-1, 2)
    shape = (edges.num_nodes, edges.num_nodes)
    _, label = connected_components(coo_matrix((np.ones(len(pairs)), pairs.T), shape), directed=False)
    return np.unique(label, return_index=True)[1][label].tolist()


def draw_scores(seed, size, kind, dtype):
    generator = torch.Generator().manual_seed(seed)
    if kind == "ties":
        return torch.randint(-1, 2, (size,), generator=generator).to(dtype)
    if dtype == torch.int64:
        return torch.randint(-(2**63), 2**63 - 1, (size,), generator=generator)
    return torch.randn(size, dtype=dtype, generator=generator)


@pytest.mark.parametrize("first", [1, 4])
@settings(max_examples=60)
@given(
    pair_lists,
    st.integers(0, 10**6),
    st.sampled_from(["distinct", "ties"]),
    st.sampled_from([torch.float32, torch.float64, torch.int64]),
)
def test_equals_the_forest_of_networkx(first, pairs, seed, kind, dtype):
    edges = make_edges(pairs)
    score = draw_scores(seed, edges.num_edges, kind, dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_FIRST", first)
        mask = spanning_forest_mask(edges, score)
    assert mask.dtype == torch.bool
    assert set(pairs_of(edges, mask)) == slow_forest(edges, score)
    assert components(edges, mask) == components(edges)
    assert int(mask.sum()) == edges.num_nodes - len(set(components(edges)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
def test_many_passes_on_a_larger_graph(dtype):
    graph = nx.disjoint_union(nx.barabasi_albert_graph(300, 12, seed=2), nx.gnp_random_graph(200, 0.2, seed=3))
    edges = make_edges(list(graph.edges), 510)
    score = draw_scores(0, edges.num_edges, "distinct", dtype)
    assert set(pairs_of(edges, spanning_forest_mask(edges, score))) == slow_forest(edges, score)


def test_best_edges_that_lie_close_together():
    # The best 4n edges join 80 nodes only: all others are looked at again.
    graph = nx.gnp_random_graph(400, 0.2, seed=1)
    edges = make_edges(list(graph.edges), 400)
    score = -torch.tensor([max(pair) for pair in pairs_of(edges)], dtype=torch.float32)
    assert set(pairs_of(edges, spanning_forest_mask(edges, score))) == slow_forest(edges, score)


@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        (nx.empty_graph(0), []),
        (nx.empty_graph(4), []),
        (nx.path_graph(2), [True]),
        (nx.star_graph(5), [True] * 5),
        (nx.cycle_graph(5), [False] + [True] * 4),  # all tied: the edge with the lowest id goes
        (nx.disjoint_union(nx.cycle_graph(3), nx.cycle_graph(3)), [False, True, True] * 2),
        (nx.disjoint_union(nx.empty_graph(2), nx.cycle_graph(3)), [False, True, True]),
    ],
)
def test_plain_graphs_with_equal_scores(graph, expected):
    edges = make_edges(list(graph.edges), len(graph))
    assert spanning_forest_mask(edges, torch.ones(edges.num_edges)).tolist() == expected


@pytest.mark.parametrize(
    "score",
    [
        torch.tensor([-(2**63), 0, 2**63 - 1]),
        torch.tensor([-torch.inf, 0.0, torch.inf]),
        torch.tensor([-0.0, 0.0, 0.0], dtype=torch.float64),  # equal numbers: the lowest id goes
    ],
)
def test_extreme_scores(score):
    edges = make_edges([(0, 1), (0, 2), (1, 2)], 3)
    assert spanning_forest_mask(edges, score).tolist() == [False, True, True]


def test_all_scores_the_lowest_there_is():
    edges = make_edges([(0, 1), (0, 2), (1, 2)], 3)
    for score in (torch.full((3,), -torch.inf), torch.full((3,), -(2**63))):
        assert spanning_forest_mask(edges, score).tolist() == [False, True, True]


def test_the_forest_of_one_edge_less_is_nested():
    """Without its worst edge a graph has the same forest, or that of a graph that fell apart."""
    edges = make_edges(list(nx.gnp_random_graph(30, 0.3, seed=5).edges), 30)
    score = draw_scores(1, edges.num_edges, "ties", torch.float32)
    forest = set(pairs_of(edges, spanning_forest_mask(edges, score)))
    order = sorted(range(edges.num_edges), key=lambda e: (score[e].item(), e))
    for gone in (1, 20, 60):
        left = torch.ones(edges.num_edges, dtype=torch.bool)
        left[order[:gone]] = False
        rest = edges._replace(key=edges.key[left])
        assert set(pairs_of(rest, spanning_forest_mask(rest, score[left]))) >= forest & set(pairs_of(rest))


def test_registered():
    assert CORES["forest"] is spanning_forest_mask
