import networkx as nx
import numpy as np
import pytest

from graphsparse.datasets.block_model import draw_edges, power_law


def rng():
    return np.random.default_rng(0)


def test_power_law_has_the_exponent():
    weight = power_law(200_000, 2.5, 1e9, rng())
    tail = np.sort(weight)[-5000:]
    hill = 1 + 1 / np.mean(np.log(tail / tail[0]))
    assert weight.mean() == pytest.approx(1)
    assert hill == pytest.approx(2.5, rel=0.05)


def test_power_law_is_cut_off():
    assert power_law(100_000, 2.1, 20.0, rng()).max() < 40
    assert power_law(1000, 2.5, 0.0, rng()).max() < 2


@pytest.mark.parametrize(("num_edges", "num_same"), [(0, 0), (30, 30), (90, 0), (400, 250)])
def test_exact_numbers(num_edges, num_same):
    label = np.arange(100) % 4
    edge_index = draw_edges(label, np.ones(100), np.full(100, 0.5), num_edges, num_same, rng())
    columns = list(map(tuple, edge_index.t().tolist()))
    assert columns == sorted(set(columns))
    assert {(v, u) for u, v in columns} == set(columns)
    graph = nx.Graph(columns)
    assert graph.number_of_edges() == num_edges
    assert nx.number_of_selfloops(graph) == 0
    assert sum(label[u] == label[v] for u, v in graph.edges) == num_same


def test_degrees_follow_popularity():
    label = np.arange(2000) % 2
    popularity = np.where(np.arange(2000) < 200, 5.5, 0.5)
    edge_index = draw_edges(label, popularity, np.full(2000, 0.5), 8000, 4000, rng())
    degree = np.bincount(edge_index[0].numpy(), minlength=2000)
    # Four started edges each, and four ended ones in proportion to the popularity.
    assert degree[:200].mean() == pytest.approx(4 + 22, rel=0.05)
    assert degree[200:].mean() == pytest.approx(4 + 2, rel=0.05)


def test_loyal_nodes_have_edges_within_their_class():
    label = np.arange(2000) % 4
    loyal = np.arange(2000) < 1000
    edge_index = draw_edges(label, np.ones(2000), np.where(loyal, 0.95, 0.05), 4000, 2000, rng()).numpy()
    same = label[edge_index[0]] == label[edge_index[1]]
    assert same[loyal[edge_index[0]]].mean() > 0.9
    assert same[~loyal[edge_index[0]]].mean() < 0.1


def test_too_dense():
    with pytest.raises(ValueError, match="found no place"):
        draw_edges(np.arange(10) % 2, np.ones(10), np.full(10, 0.5), 40, 30, rng())
