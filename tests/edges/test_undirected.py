import networkx as nx
import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from graphsparse.edges.undirected import undirected_edges
from graphsparse.ops.pairs import key_pairs

# Any list of pairs: directed, with duplicates, with self-loops, with isolated nodes.
edge_lists = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=60)


def tensor(pairs, dtype=torch.int64):
    return torch.tensor(pairs, dtype=dtype).reshape(-1, 2).t()


def reference(pairs, num_nodes=10):
    graph = nx.Graph()
    graph.add_nodes_from(range(num_nodes))
    graph.add_edges_from((u, v) for u, v in pairs if u != v)
    return graph


@given(edge_lists, st.sampled_from([torch.int64, torch.int32]))
def test_edges_and_degrees_equal_networkx(pairs, dtype):
    edges = undirected_edges(tensor(pairs, dtype), 10)
    graph = reference(pairs)
    expected = sorted(tuple(sorted(edge)) for edge in graph.edges)
    assert [divmod(key, 10) for key in edges.key.tolist()] == expected
    assert edges.degree().tolist() == [graph.degree[v] for v in range(10)]
    assert edges.num_edges == len(expected)


def test_more_entries_than_a_block():
    edge_index = torch.randint(100_000, (2, (1 << 20) + 1000), generator=torch.Generator().manual_seed(0))
    edges = undirected_edges(edge_index, 100_000)
    low, high = edge_index.sort(0).values
    assert torch.equal(edges.key, (low * 100_000 + high)[low != high].unique())
    pieces = [(where, u * 100_000 + v) for where, u, v in edges.blocks()]
    assert [where.stop for where, _ in pieces] == [1 << 20, edges.num_edges][-len(pieces) :]
    assert torch.equal(torch.cat([key for _, key in pieces]), edges.key)
    pointer, neighbour = edges.csr()
    row = torch.arange(100_000).repeat_interleave(pointer.diff())
    u, v = key_pairs(edges.key, 100_000)
    assert torch.equal(row * 100_000 + neighbour, torch.cat([edges.key, v * 100_000 + u]).sort().values)


@given(edge_lists)
def test_csr_is_the_adjacency_of_networkx(pairs):
    graph = reference(pairs)
    pointer, neighbour = undirected_edges(tensor(pairs), 10).csr()
    rows = [neighbour[a:b].tolist() for a, b in zip(pointer[:-1].tolist(), pointer[1:].tolist(), strict=True)]
    assert rows == [sorted(graph.neighbors(v)) for v in range(10)]


def test_bipartite_numbers_destinations_after_sources():
    edges = undirected_edges(torch.tensor([[0, 1, 1], [0, 0, 1]]), (2, 3))
    assert edges.num_nodes == 5
    assert [divmod(k, 5) for k in edges.key.tolist()] == [(0, 2), (1, 2), (1, 3)]


def test_position_finds_every_edge():
    edges = undirected_edges(torch.randint(50, (2, 300), generator=torch.Generator().manual_seed(0)), 50)
    order = torch.randperm(edges.num_edges)
    assert torch.equal(edges.position(*key_pairs(edges.key[order], 50).flip(0)), order)


def test_input_is_not_changed():
    edge_index = torch.tensor([[3, 1, 1], [1, 3, 1]])
    undirected_edges(edge_index)
    assert edge_index.tolist() == [[3, 1, 1], [1, 3, 1]]


def test_no_memory_is_held_for_duplicates():
    edges = undirected_edges(torch.zeros(2, 100_000, dtype=torch.long) + torch.tensor([[0], [1]]))
    assert edges.key.untyped_storage().nbytes() == np.int64().nbytes
