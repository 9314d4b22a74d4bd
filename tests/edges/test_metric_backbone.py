import networkx as nx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphsparse.edges import Sparsifier, sparsify_edge
from graphsparse.edges.cores.metric import exact_metric_backbone_mask, metric_backbone_mask
from graphsparse.edges.undirected import undirected_edges

pair_lists = st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=100)
BOTH = [metric_backbone_mask, exact_metric_backbone_mask]


def make_edges(pairs, num_nodes=12):
    return undirected_edges(torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).t(), num_nodes)


def make_graph(edges, weight, mask=None):
    graph = nx.empty_graph(edges.num_nodes)
    for place, (key, value) in enumerate(zip(edges.key.tolist(), weight.tolist(), strict=True)):
        if mask is None or mask[place]:
            graph.add_edge(*divmod(key, edges.num_nodes), length=1 / value)
    return graph


def draw_weights(edges, seed):
    """Multiples of 1/4 as lengths, so that sums are exact and equal paths are common."""
    quarters = torch.randint(1, 13, (edges.num_edges,), generator=torch.Generator().manual_seed(seed))
    return 1 / (quarters.double() / 4)


def slow_masks(edges, weight):
    """By definition: no two-edge path, or no path at all, is shorter than the edge."""
    graph = make_graph(edges, weight)
    near, exact = [], []
    for key in edges.key.tolist():
        u, v = divmod(key, edges.num_nodes)
        length = graph.edges[u, v]["length"]
        by_two = [graph.edges[u, w]["length"] + graph.edges[w, v]["length"] for w in nx.common_neighbors(graph, u, v)]
        near.append(min(by_two, default=length) >= length)
        exact.append(nx.dijkstra_path_length(graph, u, v, weight="length") >= length)
    return near, exact


@settings(max_examples=40)
@given(pair_lists, st.integers(0, 10**6))
def test_equal_the_definition_and_keep_all_distances(pairs, seed):
    edges = make_edges(pairs)
    weight = draw_weights(edges, seed)
    near, exact = (core(edges, weight, edge_weight=weight) for core in BOTH)
    assert [near.tolist(), exact.tolist()] == list(slow_masks(edges, weight))
    assert bool((exact <= near).all())
    before = dict(nx.all_pairs_dijkstra_path_length(make_graph(edges, weight), weight="length"))
    for mask in (near, exact):
        assert dict(nx.all_pairs_dijkstra_path_length(make_graph(edges, weight, mask), weight="length")) == before


def test_larger_graph_in_several_blocks(monkeypatch):
    graph = nx.barabasi_albert_graph(120, 8, seed=1)
    edges = make_edges(list(graph.edges), 125)
    weight = torch.rand(edges.num_edges, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.01
    near, exact = slow_masks(edges, weight)
    assert sum(exact) < sum(near) < edges.num_edges
    monkeypatch.setattr("graphsparse.ops.blocks.BLOCK", 1000)
    assert metric_backbone_mask(edges, weight, edge_weight=weight).tolist() == near
    assert exact_metric_backbone_mask(edges, weight, edge_weight=weight).tolist() == exact


@pytest.mark.parametrize("core", BOTH)
@pytest.mark.parametrize("graph", [nx.empty_graph(0), nx.empty_graph(3), nx.path_graph(2), nx.star_graph(4)])
def test_without_cycles_all_stay(graph, core):
    edges = make_edges(list(graph.edges), len(graph))
    assert core(edges, edges.key, edge_weight=torch.rand(edges.num_edges) + 0.1).tolist() == [True] * edges.num_edges


@pytest.mark.parametrize("core", BOTH)
def test_equal_weights_keep_all_and_none_are_refused(core):
    edges = make_edges(list(nx.complete_graph(5).edges), 5)
    assert bool(core(edges, edges.key, edge_weight=torch.full((10,), 3.0)).all())
    with pytest.raises(ValueError, match="'edge_weight' must be given for a metric core"):
        core(edges, edges.key)


def test_too_large_for_all_distances():
    edges = make_edges([(0, 1)], 20_001)
    with pytest.raises(ValueError, match="at most 20000 nodes \\(got 20001\\)"):
        exact_metric_backbone_mask(edges, edges.key, edge_weight=torch.ones(1))


def test_as_a_core_with_weights_of_the_entries():
    edge_index = torch.tensor([[0, 1, 1, 2, 0, 2, 2, 3, 3, 0], [1, 0, 2, 1, 2, 0, 3, 2, 0, 3]])
    # Weights of both directions are averaged: 4, 4, 1, 8, 8. The edge {0, 2} of length 1 has a detour of 0.25.
    weight = torch.tensor([3.0, 5, 4, 4, 1, 1, 8, 8, 8, 8])
    kept, mask = sparsify_edge(edge_index, None, Sparsifier("random", core="metric"), seed=0, edge_weight=weight)
    assert mask.tolist() == [True] * 4 + [False] * 2 + [True] * 4
    assert kept.size(1) == 8
    with pytest.raises(ValueError, match="'sparsity' must be at most 0.2"):
        sparsify_edge(edge_index, 0.5, Sparsifier("random", core="metric"), seed=0, edge_weight=weight)
