"""Which edge each entry of an edge list is, in every form that lists come in."""

import networkx as nx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.utils import to_undirected

from graphsparse.edges.entries import Entries

graphs = st.builds(
    lambda n, density, seed: nx.gnp_random_graph(n, density, seed=seed, directed=True),
    st.integers(1, 12),
    st.floats(0.0, 1.0),
    st.integers(0, 10**6),
)
FORMS = {
    "as it is": lambda e: e,
    "sorted, both directions": to_undirected,
    "sorted by the second row": lambda e: to_undirected(e).flip(0)[:, to_undirected(e).flip(0)[1].argsort(stable=True)],
    "shuffled": lambda e: to_undirected(e)[:, torch.randperm(to_undirected(e).size(1))],
    "one direction": lambda e: to_undirected(e)[:, to_undirected(e)[0] < to_undirected(e)[1]],
    "twice": lambda e: to_undirected(e).repeat_interleave(2, dim=1),
    "one entry is missing": lambda e: to_undirected(e)[:, 1:],
    "with loops": lambda e: torch.cat([to_undirected(e), torch.zeros(2, 2, dtype=torch.long)], dim=1),
    "loops in place of entries": lambda e: to_undirected(e).where(torch.arange(to_undirected(e).size(1)) > 1, 0),
}


def tensor(graph):
    return torch.tensor(list(graph.edges), dtype=torch.long).reshape(-1, 2).t()


@settings(max_examples=20, deadline=None)
@given(graphs)
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
@pytest.mark.parametrize("form", FORMS)
def test_values_of_edges_and_of_entries(form, dtype, graph):
    n, edge_index = graph.number_of_nodes(), FORMS[form](tensor(graph))
    pairs = edge_index.t().tolist()
    edges = sorted({(min(pair), max(pair)) for pair in pairs if pair[0] != pair[1]})
    entries = Entries(edge_index.to(dtype), n)
    assert entries.edges.key.tolist() == [u * n + v for u, v in edges]
    number = {edge: place for place, edge in enumerate(edges)}
    expected = [number.get((min(pair), max(pair)), -1) for pair in pairs]
    assert entries.per_entry(torch.arange(len(edges)), loops=-1).tolist() == expected
    values = torch.randn(len(pairs))
    groups = [[v for v, e in zip(values.tolist(), expected, strict=True) if e == edge] for edge in range(len(edges))]
    assert entries.per_edge(values, "amax").tolist() == [max(group) for group in groups]
    mean = torch.tensor([sum(group) / len(group) for group in groups], dtype=torch.float64)
    torch.testing.assert_close(entries.per_edge(values, "mean"), mean)


def test_in_blocks(monkeypatch):
    edge_index = to_undirected(tensor(nx.gnp_random_graph(40, 0.3, seed=0)))
    values = torch.randn(edge_index.size(1) // 2)
    whole = Entries(edge_index).per_entry(values, loops=0)
    monkeypatch.setattr("graphsparse.ops.blocks.blocks.__defaults__", (7,))
    assert torch.equal(Entries(edge_index).per_entry(values, loops=0), whole)
    assert torch.equal(Entries(edge_index).per_edge(whole, "amax"), values)


@settings(max_examples=20, deadline=None)
@given(graphs)
@pytest.mark.parametrize("bipartite", [False, True])
def test_directed(bipartite, graph):
    n, edge_index = graph.number_of_nodes(), tensor(graph)
    edge_index = torch.cat([edge_index, edge_index[:, :3], torch.zeros(2, 1, dtype=torch.long)], dim=1)
    pairs = [tuple(pair) for pair in edge_index.t().tolist()]
    edges = sorted({(u, v) for u, v in pairs if u != v or bipartite})
    entries = Entries(edge_index, (n, n) if bipartite else n, directed=True)
    assert entries.edges.key.tolist() == [u * 2 * n + n + v for u, v in edges]
    expected = [edges.index(pair) if pair in edges else -1 for pair in pairs]
    assert entries.per_entry(torch.arange(len(edges)), loops=-1).tolist() == expected
    assert entries.undirected().edges.num_nodes == (2 * n if bipartite else n)
