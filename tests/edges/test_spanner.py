import networkx as nx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import graphsparse.ops.blocks as blocks_module
from graphsparse.edges.cores.spanner import spanner_mask
from graphsparse.edges.undirected import undirected_edges

pair_lists = st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=120)


def make_edges(pairs, num_nodes=12):
    return undirected_edges(torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).t(), num_nodes)


def pairs_of(edges, mask=None):
    keys = edges.key if mask is None else edges.key[mask]
    return [divmod(key, edges.num_nodes) for key in keys.tolist()]


def make_graph(pairs, num_nodes):
    graph = nx.empty_graph(num_nodes)
    graph.add_edges_from(pairs)
    return graph


def slow_spanner(edges, score):
    """The same batches, with a breadth-first search for every edge."""
    graph, pairs = nx.empty_graph(edges.num_nodes), pairs_of(edges)
    order = sorted(range(edges.num_edges), key=lambda e: (score[e].item(), e), reverse=True)
    start = 0
    while start < len(order):
        batch = order[start : start + max(1, graph.number_of_edges() // 4, start // 16)]
        start += len(batch)
        near = {u: nx.single_source_shortest_path_length(graph, u, cutoff=3) for u in graph}
        graph.add_edges_from(pairs[e] for e in batch if pairs[e][1] not in near[pairs[e][0]])
    return {(min(edge), max(edge)) for edge in graph.edges}


@settings(max_examples=60)
@given(pair_lists, st.integers(0, 10**6), st.sampled_from([torch.float32, torch.int64]))
def test_equals_breadth_first_search(pairs, seed, dtype):
    edges = make_edges(pairs)
    score = torch.randint(0, 40, (edges.num_edges,), generator=torch.Generator().manual_seed(seed)).to(dtype)
    mask = spanner_mask(edges, score)
    assert set(pairs_of(edges, mask)) == slow_spanner(edges, score)


@pytest.mark.parametrize("limit", [7, 1 << 20])
@pytest.mark.parametrize(
    "graph",
    [nx.barabasi_albert_graph(80, 6, seed=1), nx.gnp_random_graph(40, 0.6, seed=2), nx.grid_2d_graph(8, 9)],
    ids=["hubs", "dense", "grid"],
)
def test_every_edge_that_is_gone_has_a_detour_of_three(graph, limit, monkeypatch):
    graph = nx.convert_node_labels_to_integers(graph)
    edges = make_edges(list(graph.edges), len(graph) + 2)
    monkeypatch.setattr(blocks_module.blocks_by_size, "__defaults__", (limit,))
    score = torch.rand(edges.num_edges, generator=torch.Generator().manual_seed(0))
    mask = spanner_mask(edges, score)
    assert 0 < int(mask.sum()) < edges.num_edges
    assert set(pairs_of(edges, mask)) == slow_spanner(edges, score)
    spanner = make_graph(pairs_of(edges, mask), edges.num_nodes)
    stretch = [nx.shortest_path_length(spanner, u, v) for u, v in pairs_of(edges, ~mask)]
    assert set(stretch) <= {2, 3}


@pytest.mark.parametrize(
    ("graph", "kept"),
    [
        (nx.empty_graph(0), 0),
        (nx.empty_graph(3), 0),
        (nx.path_graph(2), 1),
        (nx.star_graph(6), 6),
        (nx.cycle_graph(3), 2),
        (nx.cycle_graph(4), 3),
        (nx.cycle_graph(5), 5),  # the detour of an edge would have four edges
        (nx.disjoint_union(nx.cycle_graph(4), nx.cycle_graph(5)), 8),
        (nx.complete_bipartite_graph(2, 3), 4),
    ],
)
def test_plain_graphs(graph, kept):
    edges = make_edges(list(graph.edges), len(graph))
    score = torch.arange(edges.num_edges)
    assert int(spanner_mask(edges, score).sum()) == kept


def test_best_edges_first():
    edges = make_edges([(0, 1), (0, 2), (1, 2)], 3)
    assert spanner_mask(edges, torch.tensor([0.5, 0.1, 0.3])).tolist() == [True, False, True]
    assert spanner_mask(edges, torch.tensor([0.5, 0.5, 0.5])).tolist() == [False, True, True]
