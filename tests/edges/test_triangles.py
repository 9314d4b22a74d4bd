import networkx as nx
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import graphsparse.ops.rows as module
from graphsparse.edges.scores.neighborhood import triangles_per_edge
from graphsparse.edges.undirected import undirected_edges


def count(graph):
    edge_index = torch.tensor(list(graph.edges), dtype=torch.long).reshape(-1, 2).t()
    edges = undirected_edges(edge_index, graph.number_of_nodes())
    pairs = [divmod(key, edges.num_nodes) for key in edges.key.tolist()]
    return dict(zip(pairs, triangles_per_edge(edges, edges.degree()).tolist(), strict=True))


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.floats(0.05, 0.9), st.sampled_from([1, 5, 1 << 22]))
def test_equals_common_neighbours_of_networkx(seed, density, block):
    graph = nx.gnp_random_graph(14, density, seed=seed)
    old, module.BLOCK = module.BLOCK, block
    try:
        counted = count(graph)
    finally:
        module.BLOCK = old
    assert counted == {(u, v): len(list(nx.common_neighbors(graph, u, v))) for u, v in map(sorted, graph.edges)}


def test_heavy_tailed_graph():
    graph = nx.barabasi_albert_graph(300, 5, seed=1)
    counted = count(graph)
    assert sum(counted.values()) == sum(nx.triangles(graph).values())


def test_complete_graph_and_no_edges():
    assert set(count(nx.complete_graph(7)).values()) == {5}
    assert count(nx.empty_graph(3)) == {}
