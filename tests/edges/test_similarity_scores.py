"""Scores of shared neighbours, of weights and of features, against plain formulas and against NetworKit."""

import itertools
import math

import networkx as nx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.nn.conv.gcn_conv import gcn_norm
from torch_geometric.utils import to_undirected

from graphsparse.edges import edge_score
from graphsparse.edges.entries import Entries
from graphsparse.edges.local_rank import local_score
from graphsparse.edges.score import score_edges

graphs = st.builds(
    lambda n, density, seed: nx.gnp_random_graph(n, density, seed=seed),
    st.integers(2, 14),
    st.floats(0.1, 1.0),
    st.integers(0, 10**6),
)


def edges_of(graph):
    pairs = sorted(tuple(sorted(edge)) for edge in graph.edges)
    return pairs, torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).t()


def shared(graph):
    return {frozenset(edge): len(set(graph[edge[0]]) & set(graph[edge[1]])) for edge in graph.edges}


def slow_disparity(graph, weight):
    def at(i, j):
        total = sum(weight[frozenset((i, k))] for k in graph[i])
        return 0.0 if total == 0 else 1 - (1 - weight[frozenset((i, j))] / total) ** (graph.degree[i] - 1)

    return lambda u, v: max(at(u, v), at(v, u))


def slow_simmelian(graph, max_rank=None):
    """Look at every rank; ranks begin with 1, and equal numbers of triangles share the best."""
    t = shared(graph)
    rank = {
        (i, j): 1 + sum(t[frozenset((i, k))] > t[frozenset((i, j))] for k in graph[i]) for i in graph for j in graph[i]
    }

    def within(i, other, r):
        return {k for k in graph[i] if rank[i, k] <= r and k != other}

    def score(u, v):
        if max_rank is not None:
            return len(within(u, v, max_rank) & within(v, u, max_rank))
        both = [(within(u, v, r), within(v, u, r)) for r in range(1, len(graph))]
        return max((len(a & b) / len(a | b) for a, b in both if a | b), default=0.0)

    return score


def lift(graph):
    def score(u, v):
        t, expected = shared(graph)[frozenset((u, v))], (graph.degree[u] - 1) * (graph.degree[v] - 1)
        return t * (len(graph) - 2) / expected if expected else 1.0

    return score


FORMULAS = {
    "scan": lambda g: (
        lambda u, v: (shared(g)[frozenset((u, v))] + 1) / math.sqrt((g.degree[u] + 1) * (g.degree[v] + 1))
    ),
    "triangles": lambda g: lambda u, v: shared(g)[frozenset((u, v))],
    "triangle_lift": lift,
    "disparity": lambda g: slow_disparity(g, dict.fromkeys(map(frozenset, g.edges), 1)),
    "triangle_multiscale": lambda g: slow_disparity(g, shared(g)),
    "simmelian": slow_simmelian,
    "simmelian_overlap": lambda g: slow_simmelian(g, 10),
}


@settings(max_examples=20, deadline=None)
@given(graphs)
@pytest.mark.parametrize("name", FORMULAS)
def test_formula(name, graph):
    pairs, edge_index = edges_of(graph)
    score, formula = edge_score(edge_index, name, num_nodes=len(graph)), FORMULAS[name](graph)
    expected = torch.tensor([formula(u, v) for u, v in pairs], dtype=torch.float64)
    torch.testing.assert_close(score.double(), expected, rtol=1e-12, atol=1e-12)


def test_blocks(monkeypatch):
    edge_index = edges_of(nx.powerlaw_cluster_graph(80, 5, 0.6, seed=0))[1]
    whole = edge_score(edge_index, "simmelian")
    monkeypatch.setattr("graphsparse.ops.rows.BLOCK", 32)
    assert torch.equal(edge_score(edge_index, "simmelian"), whole)


@pytest.mark.parametrize("seed", range(3))
def test_networkit(seed):
    networkit = pytest.importorskip("networkit")
    graph = nx.powerlaw_cluster_graph(60, 5, 0.6, seed=seed)
    graph.add_edge(0, 60)
    pairs, edge_index = edges_of(graph)
    other = networkit.Graph(61)
    for u, v in pairs:
        other.addEdge(u, v)
    other.indexEdges()
    of = networkit.sparsification
    triangles = of.TriangleEdgeScore(other).run().scores()
    theirs = {
        "triangles": triangles,
        "jaccard": of.JaccardSimilaritySparsifier().scores(other),
        "scan": of.SCANStructuralSimilarityScore(other, triangles).run().scores(),
        "triangle_multiscale": of.MultiscaleScore(other, [float(t) for t in triangles]).run().scores(),
        "simmelian": of.SimmelianSparsifierNonParametric().scores(other),
        "simmelian_overlap": of.SimmelianSparsifierParametric(9).scores(other),  # its ranks begin with 0
    }
    for name, scores in theirs.items():
        expected = torch.tensor([scores[other.edgeId(u, v)] for u, v in pairs], dtype=torch.float64)
        exact = 1e-7 if name == "jaccard" else 1e-12  # that one is float32
        torch.testing.assert_close(edge_score(edge_index, name).double(), expected, rtol=0, atol=exact)


@settings(max_examples=20, deadline=None)
@given(graphs, st.integers(0, 10**6))
def test_weights(graph, seed):
    """Each direction has a weight of its own; the edge has their mean."""
    edge_index = edges_of(graph)[1]
    both = to_undirected(edge_index, num_nodes=len(graph))
    weight = torch.rand(both.size(1), generator=torch.Generator().manual_seed(seed)) + 0.1
    mean = {}
    for (u, v), w in zip(both.t().tolist(), weight.double().tolist(), strict=True):
        mean[frozenset((u, v))] = mean.get(frozenset((u, v)), 0.0) + w / 2
    expected = torch.tensor([mean[frozenset(edge)] for edge in both.t().tolist()], dtype=torch.float64)
    torch.testing.assert_close(edge_score(both, "weight", num_nodes=len(graph), edge_weight=weight), expected)
    formula = slow_disparity(graph, mean)
    expected = torch.tensor([formula(u, v) for u, v in both.t().tolist()], dtype=torch.float64)
    torch.testing.assert_close(edge_score(both, "disparity", num_nodes=len(graph), edge_weight=weight), expected)


def test_disparity_by_hand():
    # A node with ten edges, one of which has 0.1, 0.3 of its strength: the filter is 0.9^9 and 0.7^9.
    edge_index = torch.stack([torch.zeros(10, dtype=torch.long), torch.arange(1, 11)])
    for share, alpha in ((0.1, 0.387420489), (0.3, 0.040353607)):
        weight = torch.full((10,), (1 - share) / 9, dtype=torch.float64)
        weight[0] = share
        assert float(edge_score(edge_index, "disparity", edge_weight=weight)[0]) == pytest.approx(1 - alpha, abs=1e-9)


def test_message_norm_is_what_gcn_sends():
    graph = nx.gnp_random_graph(12, 0.4, seed=3)
    edge_index = to_undirected(edges_of(graph)[1])
    x = torch.randn(12, 5)
    index, norm = gcn_norm(edge_index, num_nodes=12)
    message = dict(zip(map(tuple, index.t().tolist()), (norm * x[index[0]].norm(dim=1)).tolist(), strict=True))
    expected = torch.tensor([max(message[u, v], message[v, u]) for u, v in edge_index.t().tolist()])
    torch.testing.assert_close(edge_score(edge_index, "message_norm", x=x).float(), expected)


@pytest.mark.parametrize(
    ("name", "message"), [("weight", "'edge_weight' must be given"), ("message_norm", "'x' must have")]
)
def test_what_a_score_needs(name, message):
    with pytest.raises(ValueError, match=message):
        edge_score(torch.tensor([[0, 1], [1, 2]]), name)


@pytest.mark.parametrize("name", [*FORMULAS, "weight", "message_norm"])
def test_small_graphs(name):
    for num_nodes, pairs in itertools.product((3,), ([], [[0, 1]], [[0, 1], [1, 0], [1, 1]])):
        edge_index = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).t()
        weight = torch.ones(edge_index.size(1))
        score = edge_score(edge_index, name, num_nodes=num_nodes, edge_weight=weight, x=torch.ones(3, 2))
        assert score.shape == weight.shape
        assert not score.isnan().any()


@settings(max_examples=4, deadline=None)
@given(graphs, st.randoms(use_true_random=False))
@pytest.mark.parametrize("name", FORMULAS)
def test_same_bits_in_every_order_and_numbering(name, graph, random):
    edge_index = edges_of(graph)[1]
    score = edge_score(edge_index, name, num_nodes=len(graph))
    order = random.sample(range(edge_index.size(1)), edge_index.size(1))
    assert torch.equal(edge_score(edge_index[:, order].flip(0), name, num_nodes=len(graph)), score[order])
    number = torch.tensor(random.sample(range(len(graph)), len(graph)))
    assert torch.equal(edge_score(number[edge_index], name, num_nodes=len(graph)), score)


def test_simmelian_overlap_refuses_no_rank():
    with pytest.raises(ValueError, match="'max_rank'"):
        edge_score(torch.tensor([[0], [1]]), "simmelian_overlap", options={"max_rank": 0})


def local_degree(graph):
    """Scores of local degree, and NetworKit's, edge by edge."""
    networkit = pytest.importorskip("networkit")
    pairs, edge_index = edges_of(graph)
    entries = Entries(edge_index, len(graph))
    ours = local_score(entries.edges, score_edges("neighbor_degree", entries), "exponent", "either")[0]
    other = networkit.Graph(len(graph))
    for u, v in pairs:
        other.addEdge(u, v)
    other.indexEdges()
    theirs = networkit.sparsification.LocalDegreeScore(other).run().scores()
    return ours, torch.tensor([theirs[other.edgeId(u, v)] for u, v in pairs], dtype=torch.float64)


def test_local_degree_equals_networkit_where_no_neighbours_tie():
    # Left node i and right node j are joined if i <= j: all degrees of a side differ.
    graph = nx.Graph((i, 9 + j) for i in range(9) for j in range(i, 9))
    ours, theirs = local_degree(graph)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    assert theirs.unique().numel() > 9


@pytest.mark.parametrize("graph", [nx.cycle_graph(6), nx.complete_graph(5)])
def test_local_degree_treats_equal_edges_alike(graph):
    ours, theirs = local_degree(graph)
    assert (ours == 1).all()
    assert theirs.min() == 0  # theirs ranks equal neighbours one after the other


def test_an_entry_of_weight_0_is_no_edge():
    edge_index = torch.tensor([[0, 0, 1, 0, 1], [1, 2, 2, 3, 0]])
    weight = torch.tensor([1.0, 2.0, 0.0, 3.0, 0.0])
    there = weight > 0
    score = edge_score(edge_index, "disparity", edge_weight=weight)
    assert torch.equal(
        score[there], edge_score(edge_index[:, there], "disparity", num_nodes=4, edge_weight=weight[there])
    )
    assert score[~there].tolist() == [-math.inf, -math.inf]
    for bad in (torch.tensor([1.0, -1.0, 1.0, 1.0, 1.0]), torch.full((5,), torch.nan), torch.ones(4)):
        with pytest.raises(ValueError, match="'edge_weight' must"):
            edge_score(edge_index, "disparity", edge_weight=bad)
