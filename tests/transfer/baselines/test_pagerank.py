import networkx as nx
import pytest
import torch

from graphsparse.ops import spmm
from graphsparse.transfer.baselines import pagerank
from graphsparse.transfer.baselines.pagerank import PersonalizedPageRank


def both_ways(found):
    edges = torch.tensor([*found.edges]).t()
    return torch.cat([edges, edges.flip(0)], 1)


@pytest.mark.parametrize("block_size", [1, 3, None])
@pytest.mark.parametrize("share", [0.05, 0.3])  # with the former, some nodes have no links
def test_equals_networkx(share, block_size):
    found = nx.gnp_random_graph(25, share, seed=2)
    ranks = PersonalizedPageRank(both_ways(found), 25, symmetric=False, block_size=block_size, tol=1e-10)
    pairs = torch.cartesian_prod(torch.arange(25), torch.arange(25)).t()
    pairs = pairs[:, pairs[0] != pairs[1]]
    expected = [nx.pagerank(found, alpha=0.85, personalization={u: 1}, tol=1e-12, max_iter=1000) for u in range(25)]
    wanted = torch.tensor([expected[u][v] for u, v in pairs.t().tolist()])
    assert torch.allclose(ranks.score(pairs), wanted, atol=1e-6)
    pairs = pairs[:, torch.randperm(pairs.size(1), generator=torch.Generator().manual_seed(0))]
    wanted = torch.tensor([(expected[u][v] + expected[v][u]) / 2 for u, v in pairs.t().tolist()])
    both = PersonalizedPageRank(both_ways(found), 25, block_size=block_size, tol=1e-10)
    assert torch.allclose(both.score(pairs), wanted, atol=1e-6)


def test_directed_walks_follow_the_edges():
    found = nx.gnp_random_graph(20, 0.15, seed=1, directed=True)
    ranks = PersonalizedPageRank(torch.tensor([*found.edges]).t(), 20, symmetric=False, tol=1e-10)
    expected = nx.pagerank(found, personalization={3: 1}, tol=1e-12, max_iter=1000)
    ends = [v for v in range(20) if v != 3]
    found = ranks.score(torch.tensor([[3] * 19, ends]))
    assert torch.allclose(found, torch.tensor([expected[v] for v in ends]), atol=1e-6)


def test_undirected_graphs_take_less_than_half_of_the_steps(monkeypatch):
    products = []

    def counted(adj, x):
        products.append(x.size(1))
        return spmm(adj, x)

    monkeypatch.setattr(pagerank, "spmm", counted)
    found = nx.barbell_graph(12, 3)  # walks hardly ever cross it
    undirected = both_ways(found)
    directed = torch.cat([undirected, torch.tensor([[0], [26]])], 1)
    steps = []
    for edge_index in (undirected, directed):
        products.clear()
        walk = PersonalizedPageRank(edge_index, 27).walk(torch.arange(4))
        assert torch.allclose(walk.sum(0), torch.ones(4, dtype=torch.float64))
        steps.append(len(products))
    assert 2 * steps[0] < steps[1]


def test_columns_add_up_to_one():
    found = nx.gnp_random_graph(25, 0.05, seed=2)
    walk = PersonalizedPageRank(both_ways(found), 25).walk(torch.arange(25))
    assert torch.allclose(walk.sum(0), torch.ones(25, dtype=torch.float64))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"damping": 1.0}, ValueError, "'damping'"),
        ({"tol": 0.0}, ValueError, "'tol'"),
        ({"block_size": 0}, ValueError, "'block_size'"),
        ({"block_size": 1.5}, TypeError, "'block_size'"),
    ],
)
def test_what_is_refused(options, error, message):
    with pytest.raises(error, match=message):
        PersonalizedPageRank(torch.tensor([[0], [1]]), 2, **options)


def test_self_loops_are_refused():
    with pytest.raises(ValueError, match="'pairs' must hold no self-loops"):
        PersonalizedPageRank(torch.tensor([[0], [1]]), 2).score(torch.tensor([[1], [1]]))


def test_no_pairs():
    assert PersonalizedPageRank(torch.tensor([[0], [1]]), 2).score(torch.empty(2, 0, dtype=torch.int64)).shape == (0,)
