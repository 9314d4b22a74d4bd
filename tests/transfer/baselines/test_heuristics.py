import math

import networkx as nx
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from transfer_pairs import small_pair

from graphsparse.ops import spmm
from graphsparse.transfer import BASELINES, XMCPropagation
from graphsparse.transfer.baselines import heuristics
from graphsparse.transfer.baselines.heuristics import CommonNeighbors, PersonalizedPageRank, PreferentialAttachment


def graph(n, share, seed):
    found = nx.gnp_random_graph(n, share, seed=seed)
    edges = torch.tensor([*found.edges], dtype=torch.int64).view(-1, 2).t()
    return found, torch.cat([edges, edges.flip(0)], 1)


def adamic_adar(found, u, v):  # that of networkx divides by 0 for a node of degree 1, which has no two neighbours
    return sum(1 / math.log(found.degree(w)) for w in nx.common_neighbors(found, u, v))


REFERENCES = {
    "common_neighbors": lambda found, u, v: len(list(nx.common_neighbors(found, u, v))),
    "adamic_adar": adamic_adar,
    "resource_allocation": lambda found, u, v: next(nx.resource_allocation_index(found, [(u, v)]))[2],
}


@pytest.mark.parametrize("weight", REFERENCES)
@settings(max_examples=25, deadline=None)
@given(n=st.integers(2, 25), share=st.floats(0, 1), seed=st.integers(0, 999), limit=st.integers(1, 50))
def test_equals_networkx_in_blocks_of_any_size(weight, n, share, seed, limit):
    found, edge_index = graph(n, share, seed)
    pairs = torch.randint(n, (2, 40), generator=torch.Generator().manual_seed(seed))
    pairs = pairs[:, pairs[0] != pairs[1]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(heuristics, "_BLOCK", limit)
        scores = CommonNeighbors(edge_index, n, weight).score(pairs)
    expected = [REFERENCES[weight](found, u, v) for u, v in pairs.t().tolist()]
    assert torch.allclose(scores, torch.tensor(expected, dtype=torch.float32), atol=1e-6)


def test_adamic_adar_equals_that_of_networkx():
    found, edge_index = graph(30, 0.3, 0)
    pairs = torch.tensor([*nx.non_edges(found)]).t()
    expected = [value for _, _, value in nx.adamic_adar_index(found, pairs.t().tolist())]
    assert torch.allclose(CommonNeighbors(edge_index, 30, "adamic_adar").score(pairs), torch.tensor(expected))


def test_self_loops_and_repeated_edges_do_not_count():
    _, edge_index = graph(12, 0.4, 1)
    pairs = torch.combinations(torch.arange(12)).t()
    messy = torch.cat([edge_index, edge_index[:, :7], torch.arange(12).repeat(2, 1)], 1)
    for weight in REFERENCES:
        expected = CommonNeighbors(edge_index, 12, weight).score(pairs)
        assert torch.equal(CommonNeighbors(messy, 12, weight).score(pairs), expected)


def test_preferential_attachment_equals_that_of_networkx():
    """On a graph with one link more at each node that is asked about, which is the one that is added to degrees."""
    found, edge_index = graph(30, 0.2, 0)
    pairs = torch.tensor([*nx.non_edges(found)]).t()
    found.add_edges_from((u, ("new", u)) for u in range(30))
    expected = [float(value) for _, _, value in nx.preferential_attachment(found, pairs.t().tolist())]
    assert PreferentialAttachment(edge_index, 30).score(pairs).tolist() == expected
    arcs = torch.tensor([[0, 0, 1], [1, 2, 2]])
    assert PreferentialAttachment(arcs, 3).score(torch.tensor([[0, 2], [2, 0]])).tolist() == [9.0, 1.0]


def both_ways(found):
    edges = torch.tensor([*found.edges]).t()
    return torch.cat([edges, edges.flip(0)], 1)


@pytest.mark.parametrize("block", [1, 3, None])
@pytest.mark.parametrize("share", [0.05, 0.3])  # with the former, some nodes have no links
def test_pagerank_equals_networkx(share, block, monkeypatch):
    if block is not None:
        monkeypatch.setattr(heuristics, "_NUMBERS", 25 * block)
        monkeypatch.setattr(heuristics, "_LEAST_COLUMNS", block)
    found = nx.gnp_random_graph(25, share, seed=2)
    ranks = PersonalizedPageRank(both_ways(found), 25, symmetric=False, tol=1e-10)
    pairs = torch.cartesian_prod(torch.arange(25), torch.arange(25)).t()
    pairs = pairs[:, pairs[0] != pairs[1]]
    expected = [nx.pagerank(found, alpha=0.85, personalization={u: 1}, tol=1e-12, max_iter=1000) for u in range(25)]
    wanted = torch.tensor([expected[u][v] for u, v in pairs.t().tolist()])
    assert torch.allclose(ranks.score(pairs), wanted, atol=1e-6)
    pairs = pairs[:, torch.randperm(pairs.size(1), generator=torch.Generator().manual_seed(0))]
    wanted = torch.tensor([(expected[u][v] + expected[v][u]) / 2 for u, v in pairs.t().tolist()])
    both = PersonalizedPageRank(both_ways(found), 25, tol=1e-10)
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

    monkeypatch.setattr(heuristics, "spmm", counted)
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


def test_columns_of_walks_add_up_to_one():
    found = nx.gnp_random_graph(25, 0.05, seed=2)
    walk = PersonalizedPageRank(both_ways(found), 25).walk(torch.arange(25))
    assert torch.allclose(walk.sum(0), torch.ones(25, dtype=torch.float64))


def test_no_pairs():
    none = torch.empty(2, 0, dtype=torch.int64)
    edges = torch.tensor([[0, 1], [1, 0]])
    assert PersonalizedPageRank(edges, 2).score(none).shape == CommonNeighbors(edges, 2).score(none).shape == (0,)


def test_baselines_go_along_the_links_that_their_names_say():
    pair, split = small_pair()
    for name, graph in (("", "target"), ("_enriched", "enriched_target")):
        edges = pair.graph(graph, without=split).edge_index
        for kind, scorer in (
            *((kind, CommonNeighbors(edges, pair.num_nodes, kind)) for kind in REFERENCES),
            ("pagerank", PersonalizedPageRank(edges, pair.num_nodes)),
            ("xmc", XMCPropagation().fit(edges, pair.num_nodes)),
        ):
            found = BASELINES[kind + name](pair, split).score(split.test)
            assert torch.equal(found, scorer.score(split.test))


def test_cosine_equals_that_of_torch():
    pair, split = small_pair()
    x = pair.target.x.clone()
    x[3] = 0
    pair = pair.with_x(torch.cat([x, pair.union().x[pair.num_nodes :]]))
    u, v = pairs = torch.combinations(torch.arange(20)).t()
    assert torch.allclose(BASELINES["cosine"](pair, split).score(pairs), F.cosine_similarity(x[u], x[v]), atol=1e-6)
