import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import graphsparse.datasets.window_pair as module
from graphsparse.datasets import load, synthetic_citation
from graphsparse.datasets.window_pair import common_neighbor_pairs, coupling_source, nearest_pairs, window_pair


def key_links(graph):
    return {tuple(sorted(pair)) for pair in graph.key[graph.edge_index].t().tolist()}


@pytest.fixture(scope="module")
def data():
    return synthetic_citation(300, num_features=50)


@pytest.mark.parametrize("seed", [0, 1])
def test_protocol_a(data, seed):
    pair = window_pair(data, "A", seed=seed)
    links = {tuple(sorted(pair)) for pair in data.edge_index.t().tolist()}
    source, target = set(pair.source.key.tolist()), set(pair.target.key.tolist())
    assert (len(source), len(target), len(source & target)) == (210, 210, 120)
    assert key_links(pair.source) == {link for link in links if source.issuperset(link)}
    inside = {link for link in links if target.issuperset(link)}
    between = {link for link in inside if source.issuperset(link)}
    found = key_links(pair.target)
    assert found - between == inside - between
    kept = len(found & between) / len(between)
    assert abs(kept - 0.2) < 5 * (0.16 / len(between)) ** 0.5
    assert pair.hold_out == "target_only_end"
    for graph in (pair.source, pair.target):
        graph.validate()
        assert graph.is_undirected()
        assert torch.equal(graph.x, data.x[graph.key])
        assert torch.equal(graph.y, data.y[graph.key])
    assert torch.equal(window_pair(data, "A", seed=seed).target.edge_index, pair.target.edge_index)


def test_protocol_b_looks_at_features_only(data):
    pair = window_pair(data, "B")
    assert pair.hold_out == "all"
    links = {tuple(sorted(pair)) for pair in data.edge_index.t().tolist()}
    target = set(pair.target.key.tolist())
    assert key_links(pair.target) == {link for link in links if target.issuperset(link)}
    poorer = data.clone()
    poorer.edge_index = data.edge_index[:, :0]
    assert torch.equal(window_pair(poorer, "B").source.edge_index, pair.source.edge_index)
    del poorer.x
    poorer.num_nodes = data.num_nodes
    with pytest.raises(ValueError, match="protocol 'B' needs features"):
        window_pair(poorer, "B")


def test_protocol_c_never_looks_at_links_inside_the_target(data):
    pair = window_pair(data, "C")
    inside = torch.zeros(300, dtype=torch.bool)
    inside[pair.target.key] = True
    poorer = data.clone()
    poorer.edge_index = data.edge_index[:, ~inside[data.edge_index].all(0)]
    assert torch.equal(window_pair(poorer, "C").source.edge_index, pair.source.edge_index)
    nothing = torch.empty(2, 0, dtype=torch.int64)
    assert torch.equal(coupling_source(data, pair, nothing).edge_index, pair.source.edge_index)

    train = pair.target.edge_index[:, ::4]
    source = coupling_source(data, pair, train)
    known = {tuple(sorted(link)) for link in poorer.edge_index.t().tolist()}
    known |= {tuple(sorted(link)) for link in pair.target.key[train].t().tolist()}
    near = {u: {v for link in known if u in link for v in link if v != u} for u in range(300)}
    nodes = sorted(pair.source.key.tolist())
    assert key_links(source) == {(u, v) for u in nodes for v in nodes if u < v and near[u] & near[v]}


@pytest.mark.parametrize(
    ("name", "nodes", "source", "target"), [("cora", (1896, 1895), 2648, 1695), ("citeseer", (2329, 2328), 2256, 1456)]
)
def test_sizes_on_real_graphs(data_root, name, nodes, source, target):
    data = load(name, data_root)
    pair = window_pair(data, "A")
    assert (pair.source.num_nodes, pair.target.num_nodes) == nodes
    assert pair.source.num_edges == 2 * source
    shared = torch.isin(pair.target.key, pair.source.key)
    assert int(shared.sum()) == {"cora": 1083, "citeseer": 1330}[name]
    assert int((~shared[pair.target.edge_index].all(0)).sum()) == 2 * target  # which may be held out
    if name == "cora":
        assert window_pair(data, "B").source.num_edges == pytest.approx(2 * 11436, abs=20)  # ties between neighbours


@pytest.mark.parametrize("block", [1 << 24, 100])
def test_nearest_against_all_similarities(block, monkeypatch):
    monkeypatch.setattr(module, "_SIMILARITIES", block)
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(0)).double()
    x[7] = 0
    expected = set()
    for u in range(40):
        like = torch.cosine_similarity(x[u : u + 1], x).tolist()
        near = sorted((v for v in range(40) if v != u and like[v] > 0), key=lambda v: -like[v])[:5]
        expected |= {(min(u, v), max(u, v)) for v in near}
    assert not any(7 in pair for pair in expected)
    found = nearest_pairs(x, 5)
    assert [tuple(pair) for pair in found.t().tolist()] == sorted(expected)


@settings(max_examples=40, deadline=None)
@given(st.sets(st.frozensets(st.integers(0, 9), min_size=2, max_size=2), max_size=20), st.sets(st.integers(0, 9)))
def test_common_neighbours_against_sets(links, among):
    pairs = torch.tensor([sorted(link) for link in links], dtype=torch.int64).view(-1, 2).t()
    near = {u: {v for link in links if u in link for v in link - {u}} for u in range(10)}
    expected = sorted((u, v) for u in among for v in among if u < v and near[u] & near[v])
    mark = torch.zeros(10, dtype=torch.bool)
    mark[sorted(among)] = True
    assert [tuple(pair) for pair in common_neighbor_pairs(pairs, mark).t().tolist()] == expected


def test_a_single_node_is_near_to_none():
    assert nearest_pairs(torch.ones(1, 2), 3).shape == (2, 0)
