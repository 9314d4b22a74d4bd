import random

import networkx as nx
import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

import graphsparse.edges.scores.forest_fire as module
from graphsparse.edges import edge_score
from graphsparse.edges.scores.forest_fire import burnt, forest_fire
from graphsparse.edges.undirected import undirected_edges


def edges_of(graph):
    return undirected_edges(torch.tensor(list(graph.edges), dtype=torch.long).reshape(-1, 2).t(), len(graph))


def one_after_the_other(graph, burn, least, rng):
    """Fires one by one, node by node."""
    count = dict.fromkeys((tuple(sorted(edge)) for edge in graph.edges), 0)
    nodes, total = list(graph), 0
    while total < least:
        queue, visited = [rng.choice(nodes)], set()
        while queue:
            v = queue.pop(0)
            free = [x for x in graph[v] if x not in visited]
            while free and rng.random() < burn:
                x = free.pop(rng.randrange(len(free)))
                visited.add(x)
                queue.append(x)
                count[min(v, x), max(v, x)] += 1
                total += 1
    return np.array([count[key] for key in sorted(count)])


@pytest.mark.parametrize("burn", [0.3, 0.7])
@pytest.mark.parametrize("few", [0, 2000])
def test_burns_as_fires_one_after_the_other(burn, few, monkeypatch):
    monkeypatch.setattr(module, "_FEW", few)  # tries at random first, or looks at all neighbours at once
    graph = nx.barabasi_albert_graph(20, 2, seed=1)
    graph.add_edges_from([(0, 20), (20, 21)])
    edges, rng, least = edges_of(graph), random.Random(0), 20_000
    ours = burnt(edges, 3, burn, least).double().numpy()
    theirs = one_after_the_other(graph, burn, least, rng)
    # A fire burns an edge twice at most: the variance of a count is about the count.
    assert (np.abs(ours - theirs) < 5 * np.sqrt(ours + theirs + 1)).all()
    assert spearmanr(ours, theirs)[0] > 0.9


def test_size_of_a_fire_on_a_star():
    # A leaf burns the centre with probability p, and the centre then min(X, leaves) leaves; they have the centre left.
    graph, p, fires = nx.star_graph(4), 0.5, 8000
    fire, _ = module._Forest(edges_of(graph), p).burn(0, fires, 7, small=True)
    sizes = torch.bincount(fire, minlength=fires).double()
    rng = random.Random(1)
    theirs = [one_after_the_other_size(graph, p, rng) for _ in range(fires)]
    assert abs(sizes.mean() - np.mean(theirs)) < 5 * np.std(theirs) * (2 / fires) ** 0.5
    assert abs((sizes == 0).double().mean() - (1 - p)) < 5 * (0.25 / fires) ** 0.5


def one_after_the_other_size(graph, burn, rng):
    queue, visited, size = [rng.choice(list(graph))], set(), 0
    while queue:
        free = [x for x in graph[queue.pop(0)] if x not in visited]
        while free and rng.random() < burn:
            x = free.pop(rng.randrange(len(free)))
            visited.add(x)
            queue.append(x)
            size += 1
    return size


def test_number_of_burns_and_whole_fires():
    edges = edges_of(nx.gnp_random_graph(60, 0.1, seed=2))
    for least in (1, 100, 5000):
        total = int(burnt(edges, 0, 0.6, least).sum())
        assert least <= total < least + edges.num_nodes
    score = forest_fire(edges, 0, ratio=3)
    assert int((score >> 32).sum()) == int(burnt(edges, 0, 0.6, 3 * edges.num_edges).sum())
    assert score.unique().numel() == edges.num_edges  # equal counts are told apart


@pytest.mark.parametrize("width", [7, 63])
def test_number_of_fires_at_a_time_changes_nothing(width, monkeypatch):
    monkeypatch.setattr(module, "_SMALL", 0)
    edges = edges_of(nx.barabasi_albert_graph(200, 4, seed=4))
    expected = burnt(edges, 5, 0.6, 3000)
    monkeypatch.setattr(module, "_FIRES", width)
    assert torch.equal(burnt(edges, 5, 0.6, 3000), expected)


def test_large_and_small_fires_are_the_same(monkeypatch):
    edges = edges_of(nx.barabasi_albert_graph(200, 4, seed=4))
    for burn in (0.2, 0.6):
        monkeypatch.setattr(module, "_SMALL", 0)
        expected = burnt(edges, 5, burn, 2000)
        monkeypatch.setattr(module, "_SMALL", 1000)
        assert torch.equal(burnt(edges, 5, burn, 2000), expected)


def test_shortcuts_of_the_cpu_change_nothing(monkeypatch):
    monkeypatch.setattr(module, "_SMALL", 0)
    edges = edges_of(nx.barabasi_albert_graph(300, 4, seed=4))
    expected = burnt(edges, 5, 0.6, 5000)
    monkeypatch.setattr(module._Forest, "_unreached", lambda forest, _: torch.full((forest.n,), -1))
    assert torch.equal(burnt(edges, 5, 0.6, 5000), expected)


def test_edge_order_changes_nothing_and_seeds_do():
    pairs = torch.tensor(list(nx.barabasi_albert_graph(80, 3, seed=1).edges)).t()
    score = edge_score(pairs, "forest_fire", seed=1)
    order = torch.randperm(pairs.size(1))
    assert torch.equal(edge_score(pairs[:, order].flip(0), "forest_fire", seed=1), score[order])
    assert not torch.equal(edge_score(pairs, "forest_fire", seed=2), score)


def test_few_and_no_edges():
    assert burnt(edges_of(nx.empty_graph(3)), 0, 0.6, 0).shape == (0,)
    graph = nx.empty_graph(1000)
    graph.add_edge(3, 5)
    assert burnt(edges_of(graph), 0, 0.6, 5) >= 5


@pytest.mark.parametrize("options", [{"burn": 1.0}, {"burn": 0}, {"ratio": 0}, {"ratio": float("inf")}])
def test_bad_options(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        forest_fire(edges_of(nx.path_graph(3)), 0, **options)


def test_as_like_networkit_as_that_is_to_itself():
    networkit = pytest.importorskip("networkit")
    graph = nx.powerlaw_cluster_graph(2000, 4, 0.3, seed=1)
    edges = edges_of(graph)
    other = networkit.nxadapter.nx2nk(graph)
    other.indexEdges()
    pairs = [divmod(key, edges.num_nodes) for key in edges.key.tolist()]
    theirs = []
    for seed in (1, 2):
        networkit.setSeed(seed, False)
        fire = networkit.sparsification.ForestFireScore(other, 0.6, 5.0)
        fire.run()
        scores = fire.scores()
        theirs.append([scores[other.edgeId(u, v)] for u, v in pairs])
    ours = burnt(edges, 0, 0.6, 5 * edges.num_edges)
    alike = spearmanr(theirs[0], theirs[1])[0]
    assert min(spearmanr(ours, scores)[0] for scores in theirs) > alike - 0.02


@pytest.mark.cuda
@pytest.mark.parametrize("small", [0, 1000])
def test_same_fires_on_a_device(small, device, monkeypatch):
    monkeypatch.setattr(module, "_SMALL", small)
    edges = edges_of(nx.barabasi_albert_graph(100, 4, seed=4))
    there = edges._replace(key=edges.key.to(device))
    assert torch.equal(forest_fire(there, 5).cpu(), forest_fire(edges, 5))
