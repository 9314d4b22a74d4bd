"""Local rules: ranks of edges at each node, against a plain loop over networkx graphs."""

import math

import networkx as nx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric import EdgeIndex
from torch_geometric.utils import degree, to_undirected

from graphsparse.edges import Sparsifier, edge_score, edge_score_rule, sparsify_edge
from graphsparse.edges.local_rank import local_ranks, local_score
from graphsparse.edges.undirected import undirected_edges

graphs = st.builds(
    lambda n, density, seed: nx.gnp_random_graph(n, density, seed=seed),
    st.integers(2, 14),
    st.floats(0.1, 1.0),
    st.integers(0, 10**6),
)
#: Scores of each type that rules return; most with many ties.
DRAWS = {
    "int64, all bits": lambda m: torch.randint(-(2**63), 2**63 - 1, (m,)),
    "int64, first bits equal": lambda m: 2**62 + torch.randint(0, 3, (m,)) - (2**63 - 1) * (torch.rand(m) < 0.3),
    "int64, small": lambda m: torch.randint(0, 4, (m,)),
    "float32": lambda m: torch.randn(m).round(decimals=0),
    "float64": lambda m: torch.randn(m, dtype=torch.float64),
    "float64, near": lambda m: 1 + torch.randint(0, 3, (m,)) * 2.0**-52,
    "infinite": lambda m: torch.tensor([-torch.inf, 0.0, -0.0, torch.inf])[torch.randint(0, 4, (m,))],
}


def tensor(graph):
    return torch.tensor(list(graph.edges), dtype=torch.long).reshape(-1, 2).t()


def slow_rank(graph, value, i, j):
    """1 and the number of neighbours that node i values more than j."""
    return 1 + sum(value[i, k] > value[i, j] for k in graph[i])


@settings(max_examples=15, deadline=None)
@given(graphs, st.booleans())
@pytest.mark.parametrize("kind", DRAWS)
def test_ranks(kind, graph, two):
    edges = undirected_edges(tensor(graph), graph.number_of_nodes())
    score = torch.stack([DRAWS[kind](edges.num_edges) for _ in range(2)]) if two else DRAWS[kind](edges.num_edges)
    both = score.tolist() if two else [score.tolist()] * 2
    pairs = sorted(tuple(sorted(edge)) for edge in graph.edges)
    value = {(u, v): s for (u, v), s in zip(pairs, both[0], strict=True)}
    value |= {(v, u): s for (u, v), s in zip(pairs, both[1], strict=True)}
    rank, found = local_ranks(edges, score)
    assert rank.tolist() == [[slow_rank(graph, value, u, v) for u, v in p] for p in (pairs, [(v, u) for u, v in pairs])]
    assert found.tolist() == [graph.degree[node] for node in range(graph.number_of_nodes())]


def test_blocks_of_rows_and_a_hub(monkeypatch):
    graph = nx.barabasi_albert_graph(200, 3, seed=0)
    graph.add_edges_from((0, node) for node in range(1, 200))
    edges = undirected_edges(tensor(graph), 200)
    score = torch.randint(0, 2**40, (edges.num_edges,))
    whole = local_ranks(edges, score)[0]
    monkeypatch.setattr("graphsparse.edges.local_rank.blocks_by_size.__defaults__", (16,))
    assert torch.equal(local_ranks(edges, score)[0], whole)


@settings(max_examples=30, deadline=None)
@given(graphs, st.integers(0, 20))
def test_exponent_keeps_the_first_edges_of_each_node(graph, percent):
    """Exponent c keeps exactly the edges whose rank at one end is at most d^c."""
    c = percent / 20 + 1e-9
    edge_index, n = tensor(graph), graph.number_of_nodes()
    value = {}
    for (u, v), s in zip(edge_index.t().tolist(), edge_score(edge_index, "jaccard", num_nodes=n).tolist(), strict=True):
        value[u, v] = value[v, u] = s
    expected = [
        any(slow_rank(graph, value, i, j) <= graph.degree[i] ** c + 1e-6 for i, j in ((u, v), (v, u)))
        for u, v in edge_index.t().tolist()
    ]
    kept = sparsify_edge(edge_index, score=Sparsifier("jaccard", local="exponent"), threshold=1 - c, num_nodes=n)[1]
    assert kept.tolist() == expected


@pytest.mark.parametrize("rule", ["exponent", "linear", "rank"])
@pytest.mark.parametrize("combine", ["either", "both"])
def test_values_by_hand(rule, combine):
    # A star of three leaves with one more edge: the hub 0 has the edges 0-1, 0-2, 0-3 of scores 3, 2, 2; 1-2 has 1.
    edges = undirected_edges(torch.tensor([[0, 0, 0, 1], [1, 2, 3, 2]]))
    local, second = local_score(edges, torch.tensor([3.0, 2.0, 2.0, 1.0]), rule, combine)
    at_lower = {"exponent": [1, 1 - math.log(2) / math.log(3)], "linear": [1, 0.5], "rank": [-1, -2]}[rule]
    # At 0: ranks 1, 2, 2. At 1: 1, 2. At 2: 1, 2. At 3: 1.
    worst = {"exponent": 0.0, "linear": 0.0, "rank": -2}[rule]
    best = {"exponent": 1.0, "linear": 1.0, "rank": -1}[rule]
    expected = [best, best, best, worst] if combine == "either" else [best, at_lower[1], at_lower[1], worst]
    torch.testing.assert_close(local.double(), torch.tensor(expected, dtype=torch.float64))
    assert second.tolist() == [3, 2, 2, 1]


@settings(max_examples=30, deadline=None)
@given(graphs, st.integers(1, 4), st.integers(0, 10**6))
def test_k_neighbor(graph, k, seed):
    edge_index, n = to_undirected(tensor(graph)), graph.number_of_nodes()
    method = Sparsifier("random", local="rank")
    kept, mask = sparsify_edge(edge_index, score=method, num_neighbors=k, num_nodes=n, seed=seed)
    before, after = degree(edge_index[0], n), degree(kept[0], n)
    assert (after >= before.clamp(max=k)).all()
    draw = edge_score(edge_index, "random", num_nodes=n, seed=seed)
    value = {(u, v): s for (u, v), s in zip(edge_index.t().tolist(), draw.tolist(), strict=True)}
    expected = [
        slow_rank(graph, value, u, v) <= k or slow_rank(graph, value, v, u) <= k for u, v in edge_index.t().tolist()
    ]
    assert mask.tolist() == expected


@settings(max_examples=30, deadline=None)
@given(
    st.integers(2, 12), st.floats(0.1, 1.0), st.integers(0, 10**6), st.integers(1, 4), st.sampled_from(["dst", "src"])
)
def test_k_neighbor_of_a_directed_graph_bounds_what_a_layer_reads(n, density, seed, k, side):
    graph = nx.gnp_random_graph(n, density, seed=seed, directed=True)
    edge_index = torch.cat([tensor(graph), torch.arange(n).expand(2, -1)], dim=1)
    method = Sparsifier("random", local="rank", directed=True, side=side)
    kept = sparsify_edge(edge_index, score=method, num_neighbors=k, num_nodes=n, seed=seed)[0]
    end = int(side == "dst")
    before, after = (degree(edges[end][edges[0] != edges[1]], n) for edges in (edge_index, kept))
    assert torch.equal(after, before.clamp(max=k))
    assert int((kept[0] == kept[1]).sum()) == n


@pytest.mark.parametrize("score", ["jaccard", "random", "teddy"])
def test_every_node_keeps_an_edge_and_the_count_is_exact(score):
    edge_index = tensor(nx.barabasi_albert_graph(300, 4, seed=1))
    edges, m = undirected_edges(edge_index), edge_index.size(1)
    local, _ = local_score(edges, edge_score(edge_index, score, seed=0), "exponent", "either")
    most = 1 - int((local == 1).sum()) / m  # with fewer edges not every best edge can stay
    for sparsity in (0.0, most / 2, most):
        kept = sparsify_edge(edge_index, sparsity, Sparsifier(score, local="exponent"), seed=0)[0]
        assert kept.size(1) == m - math.floor(sparsity * m)
        assert kept.unique().numel() == 300


def test_a_score_decides_between_equal_ranks():
    # Two stars: the best edge of each leaf has rank 1, whatever its score; the worst scores go first all the same.
    edge_index = torch.tensor([[0, 0, 0, 4, 4], [1, 2, 3, 5, 6]])
    draw = lambda edges, n: torch.tensor([5.0, 4.0, 1.0, 3.0, 2.0])  # noqa: E731
    mask = sparsify_edge(edge_index, 0.4, Sparsifier(draw, local="rank"))[1]
    assert mask.tolist() == [True, True, False, True, False]


@edge_score_rule("far_degree")
def far_degree(edges, seed):
    d = edges.degree()
    return torch.stack([edges.fill(lambda u, v: d[v]), edges.fill(lambda u, v: d[u])])


def test_a_score_of_ends_needs_a_local_rule():
    edge_index = torch.tensor([[0, 0, 0, 1], [1, 2, 3, 4]])
    for call in (lambda: edge_score(edge_index, "far_degree"), lambda: sparsify_edge(edge_index, 0.5, "far_degree")):
        with pytest.raises(ValueError, match="each end of an edge: it needs a (local|'local') rule"):
            call()
    # Node 0 values 1 (degree 2) most; 2 and 3 value 0, 4 values 1, and these are their only edges.
    kept = sparsify_edge(edge_index, score=Sparsifier("far_degree", local="rank", combine="both"), num_neighbors=1)[0]
    assert kept.tolist() == [[0], [1]]


def test_directed_counts_and_degrees():
    edge_index = torch.tensor([[0, 1, 0, 2, 3, 1, 1], [1, 0, 2, 3, 0, 1, 2]])
    directed = Sparsifier("degree", directed=True)
    mask = sparsify_edge(edge_index, 0.5, directed)[1]
    assert int(mask.sum()) == 7 - 3  # six edges that are no self-loop
    out, into = torch.tensor([2, 2, 1, 1]), torch.tensor([2, 1, 2, 1])
    score = 1 / (out[edge_index[0]] * into[edge_index[1]])
    removed = sorted((float(s), u, v) for s, (u, v) in zip(score, edge_index.t().tolist(), strict=True) if u != v)[:3]
    assert {(u, v) for _, u, v in removed} == {tuple(e) for e in edge_index[:, ~mask].t().tolist()}
    both = EdgeIndex(to_undirected(edge_index), is_undirected=True, sparse_size=(4, 4))
    assert not sparsify_edge(both, 0.5, directed)[0].is_undirected
    assert sparsify_edge(both, 0.5, Sparsifier("degree"))[0].is_undirected


BAD = {
    "two sizes": (lambda e: sparsify_edge(e, 0.5, num_neighbors=2), "'sparsity' and 'num_neighbors' both"),
    "no size": (lambda e: sparsify_edge(e), "'sparsity' must be given"),
    "no rank": (lambda e: sparsify_edge(e, num_neighbors=2), "needs the local rule 'rank'"),
    "zero neighbours": (
        lambda e: sparsify_edge(e, score="k_neighbor", num_neighbors=0),
        "'num_neighbors' must be at least 1",
    ),
    "local": (lambda e: Sparsifier(local="best"), r"'local' must be one of \[None, 'exponent'"),
    "side": (lambda e: Sparsifier(side="in"), "'side' must be one of"),
    "options": (lambda e: Sparsifier("random", options={"burn": 1}), r"'options' of the score 'random' may be \[\]"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments(case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call(torch.tensor([[0, 1], [1, 2]]))
