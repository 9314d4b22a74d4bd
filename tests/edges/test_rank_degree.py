import networkx as nx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import graphsparse.edges.scores.rank_degree as module
from graphsparse.edges import edge_score
from graphsparse.edges.scores.rank_degree import rank_degree
from graphsparse.edges.undirected import undirected_edges


def edges_of(graph):
    return undirected_edges(torch.tensor(list(graph.edges), dtype=torch.long).reshape(-1, 2).t(), len(graph))


def reference(graph, seed, rho, seeds):
    """Node by node; only the hashes are shared."""
    n = len(graph)

    number = {bits: module._hash(torch.arange(n * n), seed, bits).tolist() for bits in (22, 31, 62)}

    def tie(u, v, bits):
        return number[bits][min(u, v) * n + max(u, v)]

    best = {
        v: sorted(graph[v], key=lambda w, v=v: (-graph.degree[w], -tie(v, w, 22)))[: max(1, int(rho * graph.degree[v]))]
        for v in graph
    }
    waiting = sorted((v for v in graph if graph.degree[v]), key=number[62].__getitem__)
    turn, been, taken, front = 0, set(), {}, []
    while True:
        if not front:
            front = [v for v in waiting if v not in been][:seeds]
            if not front:
                break
        been.update(front)
        for v in front:
            for w in best[v]:
                taken.setdefault((min(v, w), max(v, w)), turn)
        front = {w for v in front for w in best[v] if w not in been}
        turn += 1
    keys = sorted(tuple(sorted(edge)) for edge in graph.edges)
    return [(-taken.get(key, 2**31 - 1), tie(*key, 31)) for key in keys]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.0, 0.5), st.sampled_from([0.1, 0.3, 1.0]), st.integers(1, 4))
@pytest.mark.parametrize("window", [2, 256])
def test_equals_a_walk_node_by_node(window, seed, density, rho, seeds):
    graph = nx.gnp_random_graph(24, density, seed=seed)
    old, module._WINDOW = module._WINDOW, window
    try:
        score = rank_degree(edges_of(graph), seed, rho=rho, seeds=seeds)
    finally:
        module._WINDOW = old
    assert [(value >> 31, value & 2**31 - 1) for value in score.tolist()] == reference(graph, seed, rho, seeds)


def test_hubs_come_first_and_what_is_never_taken_last():
    graph = nx.barabasi_albert_graph(400, 4, seed=2)
    edges = edges_of(graph)
    score = rank_degree(edges, 0)
    never = score >> 31 == -(2**31 - 1)
    assert 0.3 < never.double().mean() < 0.9
    assert score[~never].min() > score[never].max()
    degree = edges.degree().double()
    ends = edges.fill(lambda u, v: torch.maximum(degree[u], degree[v]))
    assert ends[score.argsort(descending=True)[:100]].mean() > 1.5 * ends.mean()


def test_edge_order_changes_nothing_and_seeds_do():
    pairs = torch.tensor(list(nx.barabasi_albert_graph(80, 3, seed=1).edges)).t()
    score = edge_score(pairs, "rank_degree", seed=1)
    order = torch.randperm(pairs.size(1))
    assert torch.equal(edge_score(pairs[:, order].flip(0), "rank_degree", seed=1), score[order])
    assert not torch.equal(edge_score(pairs, "rank_degree", seed=2), score)


def test_no_edges():
    assert rank_degree(edges_of(nx.empty_graph(3)), 0).shape == (0,)


@pytest.mark.parametrize("options", [{"rho": 0}, {"rho": 1.5}, {"seeds": 0}])
def test_bad_options(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        rank_degree(edges_of(nx.path_graph(3)), 0, **options)


@pytest.mark.cuda
def test_same_walk_on_a_device(device):
    edges = edges_of(nx.barabasi_albert_graph(100, 4, seed=4))
    there = edges._replace(key=edges.key.to(device))
    assert torch.equal(rank_degree(there, 5).cpu(), rank_degree(edges, 5))
