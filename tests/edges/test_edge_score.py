import math

import networkx as nx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric import EdgeIndex

from graphsparse.edges import edge_score
from graphsparse.testing import toy_edge_index

NAMES = ["teddy", "reverse_teddy", "degree", "inverse_degree_sum", "jaccard", "random"]
SYMMETRIC_IN_RELABELLING = [name for name in NAMES if name != "random"]
graphs = st.builds(
    lambda seed, density: nx.gnp_random_graph(12, density, seed=seed), st.integers(0, 10**6), st.floats(0.0, 1.0)
)


def both_directions(graph):
    pairs = [(u, v) for u, v in graph.edges] + [(v, u) for u, v in graph.edges]
    return torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).t()


def reference(graph, name):
    """The formulas, node by node, on a networkx graph."""
    d = dict(graph.degree)
    t = {v: sum(d[w] ** -0.5 for w in graph[v]) / d[v] ** 2 if d[v] else 0.0 for v in graph}
    formulas = {
        "teddy": lambda u, v: t[u] * t[v],
        "reverse_teddy": lambda u, v: -t[u] * t[v],
        "degree": lambda u, v: 1 / (d[u] * d[v]),
        "inverse_degree_sum": lambda u, v: 1 / d[u] + 1 / d[v],
        "jaccard": lambda u, v: next(nx.jaccard_coefficient(graph, [(u, v)]))[2],
    }
    return formulas[name]


# The values of the specification of the score, computed with the authors' function on this graph.
TOY = {(0, 1): 0.07568736, (0, 2): 0.07568736, (0, 3): 0.09294625, (1, 2): 0.10311436, (3, 4): 0.27883875}


def test_toy_graph():
    edge_index = toy_edge_index()
    for (u, v), value in zip(edge_index.t().tolist(), edge_score(edge_index).tolist(), strict=True):
        assert abs(value - TOY[min(u, v), max(u, v)]) < 1e-7


@settings(max_examples=40)
@given(graphs)
@pytest.mark.parametrize("name", SYMMETRIC_IN_RELABELLING)
def test_equals_the_formula_on_networkx(name, graph):
    edge_index = both_directions(graph)
    score, formula = edge_score(edge_index, name, num_nodes=12), reference(graph, name)
    expected = torch.tensor([formula(u, v) for u, v in edge_index.t().tolist()])
    torch.testing.assert_close(score, expected, rtol=1e-6, atol=1e-9)


@settings(max_examples=25)
@given(graphs, st.randoms(use_true_random=False))
@pytest.mark.parametrize("name", NAMES)
def test_bitwise_equal_in_both_directions_and_in_every_order(name, graph, random):
    edge_index = both_directions(graph)
    score = edge_score(edge_index, name, num_nodes=12, seed=3)
    half = edge_index.size(1) // 2
    assert torch.equal(score[:half], score[half:])
    order = list(range(edge_index.size(1)))
    random.shuffle(order)
    assert torch.equal(edge_score(edge_index[:, order], name, num_nodes=12, seed=3), score[order])


@settings(max_examples=25)
@given(graphs, st.permutations(range(12)))
@pytest.mark.parametrize("name", SYMMETRIC_IN_RELABELLING)
def test_bitwise_equal_under_renumbering_of_nodes(name, graph, order):
    edge_index = both_directions(graph)
    renumbered = torch.tensor(order)[edge_index]
    assert torch.equal(edge_score(renumbered, name, num_nodes=12), edge_score(edge_index, name, num_nodes=12))


@pytest.mark.parametrize("name", NAMES)
def test_directions_duplicates_and_loops_do_not_change_a_score(name):
    edge_index = toy_edge_index()
    score = edge_score(edge_index, name, num_nodes=5, seed=0)
    one_way = edge_index[:, edge_index[0] < edge_index[1]]
    extra = torch.cat([one_way, one_way, torch.tensor([[2, 4], [2, 4]])], dim=1)
    many = edge_score(extra, name, num_nodes=5, seed=0)
    assert torch.equal(many[:5], score[edge_index[0] < edge_index[1]])
    assert torch.equal(many[5:10], many[:5])
    assert (many[10:] >= score.max()).all()


def test_self_loops_are_on_top():
    assert edge_score(torch.tensor([[0, 1, 1], [1, 0, 1]])).tolist() == [1.0, 1.0, math.inf]
    assert edge_score(torch.tensor([[2], [2]])).tolist() == [math.inf]


@pytest.mark.parametrize("degree", [2, 3, 6])
def test_regular_graph_scores_degree_to_minus_three(degree):
    graph = nx.random_regular_graph(degree, 20, seed=0)
    score = edge_score(both_directions(graph))
    torch.testing.assert_close(score, torch.full_like(score, degree**-3.0), rtol=1e-6, atol=0)
    assert score.unique().numel() == 1


def test_isolated_nodes_and_no_edges():
    assert edge_score(torch.tensor([[0, 1], [1, 0]]), num_nodes=10).tolist() == [1.0, 1.0]
    for name in NAMES:
        assert edge_score(torch.empty(2, 0, dtype=torch.long), name, num_nodes=3).shape == (0,)


def test_int32_and_edge_index_class():
    edge_index = toy_edge_index()
    expected = edge_score(edge_index)
    assert torch.equal(edge_score(edge_index.int()), expected)
    assert torch.equal(edge_score(EdgeIndex(edge_index, sparse_size=(5, 5))), expected)


def test_hub_of_a_large_star_does_not_overflow():
    leaves = 200_000
    star = torch.stack([torch.zeros(leaves, dtype=torch.long), torch.arange(1, leaves + 1)])
    # centre: gbar = 1, t = 1 / leaves; leaf: gbar = leaves^-1/2, t = leaves^-1/2
    expected = torch.full((leaves,), leaves**-1.5)
    torch.testing.assert_close(edge_score(star), expected, rtol=1e-6, atol=0)


def test_random_is_seeded_and_uniform():
    edge_index = torch.combinations(torch.arange(400)).t()
    first, again, other = (edge_score(edge_index, "random", seed=s) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert (first != other).all()
    assert first.unique().numel() == first.numel()
    # Ranks are uniform: the mean rank of any half of the edges is that of all, within 5 standard errors.
    rank = first.argsort().argsort().double() / first.numel()
    half = rank[edge_index[0] % 2 == 0]
    assert abs(half.mean() - 0.5) < 5 * (1 / 12 / half.numel()) ** 0.5
    # Two seeds are independent.
    second = other.argsort().argsort().double() / other.numel()
    assert abs(torch.corrcoef(torch.stack([rank, second]))[0, 1]) < 5 / first.numel() ** 0.5


def test_random_without_seed_follows_the_global_generator():
    edge_index = toy_edge_index()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first, second = edge_score(edge_index, "random"), edge_score(edge_index, "random")
        torch.manual_seed(0)
        assert torch.equal(edge_score(edge_index, "random"), first)
    assert not torch.equal(first, second)


def test_callable_gets_the_edges_as_given_and_the_best_entry_counts():
    edge_index = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 2]])
    seen = []

    def score(edges, num_nodes):
        seen.append((edges, num_nodes))
        return torch.tensor([1.0, 5.0, 2.0, 9.0])

    assert edge_score(edge_index, score).tolist() == [5.0, 5.0, 2.0, math.inf]
    assert seen[0][0] is edge_index
    assert seen[0][1] == 3
    assert edge_score(edge_index, lambda e, n: torch.tensor([1, 5, -2, 9])).tolist()[:3] == [5, 5, -2]


BAD = {
    "unknown name": ("effective_resistance", ValueError, "one of .*'teddy'.*effective_resistance"),
    "not callable": (3, TypeError, "name or a callable"),
    "too short": (lambda e, n: torch.ones(3), ValueError, r"shape \[10\] \(got \[3\]\)"),
    "two columns": (lambda e, n: torch.ones(10, 2), ValueError, r"got \[10, 2\]"),
    "a list": (lambda e, n: [1.0] * 10, ValueError, "got list"),
    "NaN": (lambda e, n: torch.full((10,), torch.nan), ValueError, "NaN"),
    "complex": (lambda e, n: torch.ones(10, dtype=torch.complex64), TypeError, "real numbers"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_score(case):
    score, error, message = BAD[case]
    with pytest.raises(error, match=message):
        edge_score(toy_edge_index(), score)
