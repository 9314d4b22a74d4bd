"""The laws of every published sparsifier, on every form of graph."""

import itertools
import math
from pathlib import Path

import networkx as nx
import pytest
import sparsifier_table
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Data, HeteroData
from torch_geometric.transforms import ToSparseTensor
from torch_geometric.utils import to_undirected

from graphsparse.edges import SPARSIFIERS, Sparsifier, edge_score, sample_edge, sparsifier, sparsify_edge
from graphsparse.transforms import SparsifyEdges

#: The count is random, with the right mean.
NOT_EXACT = {name for name, row in SPARSIFIERS.items() if row.design in ("poisson", "replacement")}
SPARSITIES = [0.0, 0.3, 0.5, 0.9]


def tensor(graph):
    return torch.tensor(list(graph.edges), dtype=torch.long).reshape(-1, 2).t()


def kept_by(method, edge_index, sparsity, num_nodes):
    """Return the mask, or ``None`` where the core is larger than what may stay."""
    method = sparsifier(method) if isinstance(method, str) else method
    key = edge_index.amin(0) * num_nodes + edge_index.amax(0)
    options = {"num_nodes": num_nodes, "seed": 1, "x": torch.arange(num_nodes * 3.0).view(num_nodes, 3) % 7}
    options["edge_weight"] = 1.0 + key % 5
    try:
        if method.reweights:
            return sample_edge(edge_index, sparsity, method, **options).mask
        return sparsify_edge(edge_index, sparsity, method, **options)[1]
    except ValueError as error:
        if "'sparsity' must be at most" not in str(error):
            raise
        assert method.core is not None
        return None


def undirected(edge_index):
    return {(min(u, v), max(u, v)) for u, v in edge_index.t().tolist() if u != v}


SMALL = {
    "empty": nx.empty_graph(4),
    "one edge": nx.path_graph(2),
    "star": nx.star_graph(8),
    "cycle": nx.cycle_graph(9),
    "isolated nodes": nx.disjoint_union(nx.empty_graph(3), nx.complete_graph(5)),
    "two components": nx.disjoint_union(nx.complete_graph(5), nx.path_graph(6)),
    "hubs": nx.barabasi_albert_graph(40, 3, seed=0),
}


@pytest.mark.parametrize("name", SPARSIFIERS)
@pytest.mark.parametrize("kind", SMALL)
def test_count_and_entries(name, kind):
    """Exact counts; directions and duplicates go together, self-loops stay; the order of the edges does not matter."""
    graph = SMALL[kind]
    n, one_way = len(graph), tensor(graph)
    edge_index = torch.cat(
        [to_undirected(one_way, num_nodes=n), one_way[:, :2], torch.zeros(2, 1, dtype=torch.long)], 1
    )
    order = torch.randperm(edge_index.size(1))
    for sparsity in SPARSITIES:
        mask = kept_by(name, edge_index, sparsity, n)
        if mask is None:
            continue
        m = graph.number_of_edges()
        kept = undirected(edge_index[:, mask])
        if name not in NOT_EXACT:
            assert len(kept) == m - math.floor(sparsity * m)
        assert not kept & undirected(edge_index[:, ~mask])
        assert bool(mask[edge_index[0] == edge_index[1]].all())
        assert torch.equal(kept_by(name, edge_index[:, order], sparsity, n), mask[order])
        assert torch.equal(kept_by(name, edge_index.int(), sparsity, n), mask)


@pytest.mark.parametrize("name", [name for name, row in SPARSIFIERS.items() if row.nested])
def test_nested_unless_drawn(name):
    edge_index = tensor(nx.barabasi_albert_graph(60, 4, seed=2))
    masks = [kept_by(name, edge_index, sparsity, 60) for sparsity in (0.02, 0.04, 0.3, 0.5, 0.7)]
    masks = [mask for mask in masks if mask is not None]
    assert len(masks) >= 2
    for less, more in itertools.pairwise(masks):
        assert not bool((more & ~less).any())


@settings(max_examples=10, deadline=None)
@given(st.integers(2, 12), st.floats(0.2, 1.0), st.integers(0, 10**6), st.sampled_from(SPARSITIES))
@pytest.mark.parametrize("name", ["k_neighbor", "local_degree", "l_spar", "teddy", "dspar", "scan", "resistance"])
def test_directed(name, n, density, seed, sparsity):
    """Each direction is a thing of its own, and the count is that of directed edges."""
    edge_index = tensor(nx.gnp_random_graph(n, density, seed=seed, directed=True))
    edge_index = torch.cat([edge_index, torch.arange(n).expand(2, -1)], dim=1)
    method = sparsifier(name, directed=True)
    mask = kept_by(method, edge_index, sparsity, n)
    m = edge_index.size(1) - n
    assert int(mask.sum()) == n + m - math.floor(sparsity * m)
    order = torch.randperm(edge_index.size(1))
    assert torch.equal(kept_by(method, edge_index[:, order], sparsity, n), mask[order])


@pytest.mark.parametrize("name", SPARSIFIERS)
def test_forms_of_a_graph(name):
    """What a graph comes in changes nothing: edge list, CSR, one of several edge types."""
    graph = nx.barabasi_albert_graph(40, 4, seed=1)
    data = Data(edge_index=to_undirected(tensor(graph)), num_nodes=40, x=torch.rand(40, 3))
    data.edge_weight = 1.0 + (data.edge_index.amin(0) * 40 + data.edge_index.amax(0)) % 5
    sparsity = 0.05 if SPARSIFIERS[name].core else 0.3
    transform = SparsifyEdges(sparsity, name, seed=1)
    expected = transform(data)
    assert repr(transform) == repr(SparsifyEdges(sparsity, name, seed=1))
    matrix = ToSparseTensor(attr="edge_weight", layout=torch.sparse_csr, remove_edge_index=True)(data.clone())
    got = transform(matrix).adj_t.to_sparse_coo().coalesce()
    order = (expected.edge_index[1] * 40 + expected.edge_index[0]).argsort()
    assert torch.equal(got.indices().flip(0), expected.edge_index[:, order])
    torch.testing.assert_close(got.values(), expected.edge_weight[order])
    hetero = HeteroData(a={"x": data.x, "num_nodes": 40})
    hetero["a", "to", "a"].edge_index, hetero["a", "to", "a"].edge_weight = data.edge_index, data.edge_weight
    if name != "message_norm":  # an edge type has no features
        assert torch.equal(transform(hetero)["a", "to", "a"].edge_index, expected.edge_index)


@pytest.mark.parametrize("name", ["k_neighbor", "local_degree", "dspar", "scan", "forest"])
def test_an_edge_type_and_its_reverse_lose_the_same(name):
    edge_index = torch.stack([torch.arange(60) % 9, torch.arange(60) % 7])
    data = HeteroData(a={"num_nodes": 9}, b={"num_nodes": 7})
    data["a", "to", "b"].edge_index, data["b", "rev_to", "a"].edge_index = edge_index, edge_index.flip(0)
    out = SparsifyEdges(0.4, name, seed=2)(data)
    assert torch.equal(out["a", "to", "b"].edge_index, out["b", "rev_to", "a"].edge_index.flip(0))
    assert out["a", "to", "b"].edge_index.size(1) < 60


@pytest.mark.parametrize("score", ["random", "teddy", "jaccard", "neighbor_degree"])
@pytest.mark.parametrize("local", [None, "exponent", "rank"])
def test_a_forest_under_any_score_keeps_all_components(score, local):
    if score == "neighbor_degree" and local is None:
        return
    graph = nx.disjoint_union(nx.barabasi_albert_graph(50, 4, seed=3), nx.cycle_graph(10))
    edge_index, m = tensor(graph), graph.number_of_edges()
    method = Sparsifier(score, local=local, core="forest")
    most = (m - (60 - 2)) / m
    before = None
    for sparsity in (0.0, most / 2, most):
        kept, mask = sparsify_edge(edge_index, sparsity, method, num_nodes=60, seed=0)
        assert kept.size(1) == m - math.floor(sparsity * m)
        left = nx.Graph(kept.t().tolist())
        assert {frozenset(c) for c in nx.connected_components(left)} == {
            frozenset(c) for c in nx.connected_components(graph)
        }
        assert before is None or not bool((mask & ~before).any())
        before = mask
    with pytest.raises(ValueError, match=rf"'sparsity' must be at most {most:.4f}"):
        sparsify_edge(edge_index, most + 2 / m, method, num_nodes=60, seed=0)
    alone = sparsify_edge(edge_index, None, method, num_nodes=60, seed=0)[0]
    assert alone.size(1) == 58


def test_names():
    edge_index = tensor(nx.barabasi_albert_graph(30, 3, seed=0))
    for name, row in SPARSIFIERS.items():
        assert row.source
        if isinstance(row.score, str) and row.score == name and row.design == "top":
            assert row == Sparsifier(name)  # the name of a score means the score
    mask = sparsify_edge(edge_index, 0.5, "g_spar")[1]
    assert torch.equal(mask, sparsify_edge(edge_index, 0.5, "jaccard")[1])
    with pytest.raises(ValueError, match="'name' must be one of"):
        sparsifier("best")
    with pytest.raises(ValueError, match="new weights.*sample_edge"):
        sparsify_edge(edge_index, 0.5, "dspar")
    assert (
        int(sparsify_edge(edge_index, 0.5, sparsifier("dspar", reweight=False), seed=0)[1].sum())
        == edge_index.size(1) - edge_index.size(1) // 2
    )
    assert edge_score(edge_index, "random", seed=1).unique().numel() == edge_index.size(1)


def test_the_table_in_the_documents_is_that_of_the_code():
    page = (Path(__file__).parents[2] / "docs" / "sparsifiers.md").read_text()
    results = Path(__file__).parents[2] / "benchmarks" / "results" / "sparsifier_cost.csv"
    lines = sparsifier_table.table(sparsifier_table.cost(results))
    between = page.split(sparsifier_table.BEGIN)[1].split(sparsifier_table.END)[0]
    assert between.strip().splitlines() == lines
    assert len(lines) == 2 + len(SPARSIFIERS)
