import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import graphsparse.edges.scores.algebraic_distance as module
from graphsparse.edges.scores.algebraic_distance import algebraic_distance
from graphsparse.edges.undirected import undirected_edges
from graphsparse.utils.counter_random import CounterRandom


def edges_of(graph):
    return undirected_edges(torch.tensor(list(graph.edges), dtype=torch.long).reshape(-1, 2).t(), len(graph))


def reference(graph, seed, vectors, steps):
    """Dense matrices in float64, component by component."""
    n = len(graph)
    start = CounterRandom(seed, "algebraic_distance").uniform(n * vectors).double().numpy().reshape(n, vectors)
    distance = {}
    for part in nx.connected_components(graph):
        part = sorted(part)
        a = nx.to_numpy_array(graph, part)
        if len(part) == 1:
            continue
        x = start[part]
        for _ in range(steps):
            x = (x + a @ x / a.sum(1, keepdims=True)) / 2
            x = (x - x.min(0)) / np.maximum(np.ptp(x, axis=0), 1e-300)
        for u, v in graph.subgraph(part).edges:
            gap = np.abs(x[part.index(u)] - x[part.index(v)]).max()
            distance[min(u, v), max(u, v)] = gap if len(part) > 2 else 0
    return [1 - distance[key] for key in sorted(distance)]


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.floats(0.03, 0.9), st.integers(1, 40), st.integers(1, 5))
def test_equals_dense_matrices_in_every_component(seed, density, steps, vectors):
    graph = nx.gnp_random_graph(18, density, seed=seed)
    score = algebraic_distance(edges_of(graph), seed, vectors=vectors, steps=steps)
    assert score.dtype == torch.float64
    np.testing.assert_allclose(score.numpy(), reference(graph, seed, vectors, steps), atol=2e-4)


@pytest.mark.parametrize("graph", [nx.path_graph(60), nx.complete_graph(3), nx.star_graph(9), nx.complete_graph(30)])
def test_slow_and_fast_mixing_keep_their_digits(graph):
    graph = nx.disjoint_union(graph, nx.barbell_graph(5, 2))
    score = algebraic_distance(edges_of(graph), 7)
    np.testing.assert_allclose(score.numpy(), reference(graph, 7, 10, 30), atol=1e-4)


def test_small_components_do_not_change_the_others():
    graph = nx.gnp_random_graph(40, 0.15, seed=3)
    assert nx.is_connected(graph)
    alone = algebraic_distance(edges_of(graph), 0)
    more = nx.disjoint_union_all([graph, nx.path_graph(2), nx.path_graph(3), nx.empty_graph(4)])
    together = algebraic_distance(edges_of(more), 0)
    torch.testing.assert_close(together[: len(alone)], alone, rtol=0, atol=1e-6)
    assert together[len(alone)] == 1  # an edge that is a component


def test_edge_order_changes_nothing():
    pairs = torch.tensor(list(nx.barabasi_albert_graph(50, 3, seed=1).edges)).t()
    score = algebraic_distance(undirected_edges(pairs, 50), 5)
    other = pairs[:, torch.randperm(pairs.size(1))].flip(0)
    assert torch.equal(score, algebraic_distance(undirected_edges(other, 50), 5))
    assert not torch.equal(score, algebraic_distance(undirected_edges(pairs, 50), 6))


def test_bridge_between_communities_is_far():
    graph = nx.barbell_graph(12, 0)
    score = algebraic_distance(edges_of(graph), 0)
    position = sorted(tuple(sorted(edge)) for edge in graph.edges).index((11, 12))
    assert score.argmin() == position


def test_no_edges():
    assert algebraic_distance(edges_of(nx.empty_graph(3)), 0).shape == (0,)
    assert algebraic_distance(edges_of(nx.empty_graph(0)), 0).shape == (0,)


def test_component_labels_of_a_device(monkeypatch):
    graph = nx.disjoint_union_all([nx.path_graph(40), nx.gnp_random_graph(30, 0.05, seed=2), nx.cycle_graph(7)])
    adjacency = module._adjacency(edges_of(graph))
    label = module._linked(adjacency)
    for part in nx.connected_components(graph):
        assert {int(label[v]) for v in part} == {min(part)}


def test_agrees_with_networkit():
    networkit = pytest.importorskip("networkit")
    from scipy.stats import spearmanr

    graph = nx.connected_caveman_graph(12, 8)
    edges = edges_of(graph)
    ours = torch.stack([1 - algebraic_distance(edges, seed) for seed in range(20)]).mean(0)
    theirs = 0
    other = networkit.nxadapter.nx2nk(graph)
    other.indexEdges()
    for seed in range(20):
        networkit.setSeed(seed, False)
        run = networkit.distance.AlgebraicDistance(other, 10, 30, 0.5, 0, True)
        run.preprocess()
        scores = run.getEdgeScores()
        u, v = edges.key // edges.num_nodes, edges.key % edges.num_nodes
        theirs += np.array([scores[other.edgeId(int(a), int(b))] for a, b in zip(u, v, strict=True)]) / 20
    np.testing.assert_allclose(ours.numpy(), theirs, atol=0.08)
    assert spearmanr(ours, theirs)[0] > 0.8


@pytest.mark.cuda
def test_almost_the_same_on_a_device(device):
    edges = edges_of(nx.disjoint_union(nx.barabasi_albert_graph(60, 4, seed=4), nx.path_graph(9)))
    there = edges._replace(key=edges.key.to(device))
    torch.testing.assert_close(algebraic_distance(there, 5).cpu(), algebraic_distance(edges, 5), rtol=0, atol=1e-4)
