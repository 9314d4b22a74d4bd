import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

import graphsparse.edges.cores.forest as module
from graphsparse.edges import Sparsifier, edge_score, spanning_forest, sparsify_edge
from graphsparse.edges.cores import CORES
from graphsparse.edges.cores.forest import spanning_forest_mask
from graphsparse.edges.local_rank import local_score
from graphsparse.edges.undirected import undirected_edges

pair_lists = st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=150)


def tensor(pairs):
    return torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).t()


def make_edges(pairs, num_nodes=12):
    return undirected_edges(tensor(pairs), num_nodes)


def pairs_of(edges, mask=None):
    keys = edges.key if mask is None else edges.key[mask]
    return [divmod(key, edges.num_nodes) for key in keys.tolist()]


def slow_forest(edges, *scores):
    """Kruskal of networkx on the places of the edges in the order (scores, id), which are distinct."""
    graph = nx.empty_graph(edges.num_nodes)
    in_order = sorted(zip(*(score.tolist() for score in scores), range(edges.num_edges), pairs_of(edges), strict=True))
    graph.add_edges_from((*pair, {"weight": place}) for place, (*_, pair) in enumerate(in_order))
    return {(min(pair), max(pair)) for pair in nx.maximum_spanning_edges(graph, data=False)}


def components(edges, mask=None):
    """Return the smallest node of each node's component."""
    pairs = np.array(pairs_of(edges, mask), dtype=np.int64).reshape(-1, 2)
    shape = (edges.num_nodes, edges.num_nodes)
    _, label = connected_components(coo_matrix((np.ones(len(pairs)), pairs.T), shape), directed=False)
    return np.unique(label, return_index=True)[1][label].tolist()


def draw_scores(seed, size, kind, dtype):
    generator = torch.Generator().manual_seed(seed)
    if kind == "ties":
        return torch.randint(-1, 2, (size,), generator=generator).to(dtype)
    if dtype == torch.int64:
        return torch.randint(-(2**63), 2**63 - 1, (size,), generator=generator)
    return torch.randn(size, dtype=dtype, generator=generator)


@pytest.mark.parametrize("first", [1, 4])
@settings(max_examples=40)
@given(
    pair_lists,
    st.integers(0, 10**6),
    st.sampled_from(["distinct", "ties"]),
    st.sampled_from([torch.float32, torch.float64, torch.int64]),
)
def test_equals_the_forest_of_networkx(first, pairs, seed, kind, dtype):
    edges = make_edges(pairs)
    score = draw_scores(seed, edges.num_edges, kind, dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_FIRST", first)
        mask = spanning_forest_mask(edges, score)
    assert mask.dtype == torch.bool
    assert set(pairs_of(edges, mask)) == slow_forest(edges, score)
    assert components(edges, mask) == components(edges)
    assert int(mask.sum()) == edges.num_nodes - len(set(components(edges)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
def test_many_passes_on_a_larger_graph(dtype):
    graph = nx.disjoint_union(nx.barabasi_albert_graph(300, 12, seed=2), nx.gnp_random_graph(200, 0.2, seed=3))
    edges = make_edges(list(graph.edges), 510)
    score = draw_scores(0, edges.num_edges, "distinct", dtype)
    assert set(pairs_of(edges, spanning_forest_mask(edges, score))) == slow_forest(edges, score)


def test_best_edges_that_lie_close_together():
    # The best 4n edges join 50 nodes only: all others are looked at again.
    graph = nx.gnp_random_graph(200, 0.3, seed=1)
    edges = make_edges(list(graph.edges), 200)
    score = -torch.tensor([max(pair) for pair in pairs_of(edges)], dtype=torch.float32)
    assert set(pairs_of(edges, spanning_forest_mask(edges, score))) == slow_forest(edges, score)


@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        (nx.empty_graph(0), []),
        (nx.empty_graph(4), []),
        (nx.path_graph(2), [True]),
        (nx.star_graph(5), [True] * 5),
        (nx.cycle_graph(5), [False] + [True] * 4),  # all tied: the edge with the lowest id goes
        (nx.disjoint_union(nx.cycle_graph(3), nx.cycle_graph(3)), [False, True, True] * 2),
        (nx.disjoint_union(nx.empty_graph(2), nx.cycle_graph(3)), [False, True, True]),
    ],
)
def test_plain_graphs_with_equal_scores(graph, expected):
    edges = make_edges(list(graph.edges), len(graph))
    assert spanning_forest_mask(edges, torch.ones(edges.num_edges)).tolist() == expected


@pytest.mark.parametrize(
    "score",
    [
        torch.tensor([-(2**63), 0, 2**63 - 1]),
        torch.tensor([-torch.inf, 0.0, torch.inf]),
        torch.tensor([-0.0, 0.0, 0.0], dtype=torch.float64),  # equal numbers: the lowest id goes
    ],
)
def test_extreme_scores(score):
    edges = make_edges([(0, 1), (0, 2), (1, 2)], 3)
    assert spanning_forest_mask(edges, score).tolist() == [False, True, True]


def test_all_scores_the_lowest_there_is():
    edges = make_edges([(0, 1), (0, 2), (1, 2)], 3)
    for score in (torch.full((3,), -torch.inf), torch.full((3,), -(2**63))):
        assert spanning_forest_mask(edges, score).tolist() == [False, True, True]


def test_the_forest_of_one_edge_less_is_nested():
    """Without its worst edge a graph has the same forest, or that of a graph that fell apart."""
    edges = make_edges(list(nx.gnp_random_graph(30, 0.3, seed=5).edges), 30)
    score = draw_scores(1, edges.num_edges, "ties", torch.float32)
    forest = set(pairs_of(edges, spanning_forest_mask(edges, score)))
    order = sorted(range(edges.num_edges), key=lambda e: (score[e].item(), e))
    for gone in (1, 20, 60):
        left = torch.ones(edges.num_edges, dtype=torch.bool)
        left[order[:gone]] = False
        rest = edges._replace(key=edges.key[left])
        assert set(pairs_of(rest, spanning_forest_mask(rest, score[left]))) >= forest & set(pairs_of(rest))


@settings(max_examples=25)
@given(pair_lists, st.integers(0, 10**6))
def test_further_scores_decide_between_equal_ones(pairs, seed):
    edges = make_edges(pairs)
    first = draw_scores(seed, edges.num_edges, "ties", torch.float32)
    second = draw_scores(seed + 1, edges.num_edges, "ties", torch.int64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_FIRST", 1)
        mask = spanning_forest_mask(edges, first, second)
    assert set(pairs_of(edges, mask)) == slow_forest(edges, first, second)


@settings(max_examples=25)
@given(pair_lists, st.randoms(use_true_random=False), st.sampled_from(["random", "degree", "jaccard"]))
def test_public_function_on_any_edge_list(pairs, random, name):
    """Both directions and duplicates stay together, loops stay, and neither order nor direction matters."""
    edge_index = tensor(pairs)
    mask = spanning_forest(edge_index, name, num_nodes=12, seed=3)
    kept = {(min(pair), max(pair)) for pair, stays in zip(pairs, mask.tolist(), strict=True) if stays}
    assert mask.tolist() == [u == v or (min(u, v), max(u, v)) in kept for u, v in pairs]
    edges = make_edges(pairs)
    score = edge_score(tensor(pairs_of(edges)), name, num_nodes=12, seed=3)
    assert {(u, v) for u, v in kept if u != v} == slow_forest(edges, score)
    order = random.sample(range(len(pairs)), len(pairs))
    turned = [pairs[i][:: random.choice([1, -1])] for i in order]
    again = spanning_forest(tensor(turned), name, num_nodes=12, seed=3)
    assert again.tolist() == [mask.tolist()[i] for i in order]


def test_public_function_with_weights_and_types():
    edge_index = torch.tensor([[0, 0, 0, 3, 1, 2], [1, 2, 3, 4, 2, 2]])
    weight = torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0, 1.0])  # weight 0: the edge is not there
    assert spanning_forest(edge_index, edge_weight=weight).tolist() == [False, True, True, False, True, True]
    by_callable = spanning_forest(
        edge_index, lambda edge_index, num_nodes: torch.tensor([1.0, 2.0, 0.0, 0.0, 3.0, 0.0])
    )
    assert by_callable.tolist() == [False, True, True, True, True, True]
    bipartite = torch.tensor([[0, 0, 1, 1], [0, 1, 0, 1]])
    assert int(spanning_forest(bipartite, num_nodes=(2, 2), seed=0).sum()) == 3
    with pytest.raises(ValueError, match="'score' must be a callable or one of"):
        spanning_forest(edge_index, "no_score")


def test_random_forests_differ_from_seed_to_seed():
    edge_index = torch.tensor(list(nx.complete_graph(6).edges)).t()
    forests = {tuple(spanning_forest(edge_index, seed=seed).tolist()) for seed in range(20)}
    assert len(forests) > 10
    assert all(sum(forest) == 5 for forest in forests)


@pytest.mark.parametrize("method", [Sparsifier("random"), Sparsifier("degree"), Sparsifier("random", local="rank")])
def test_core_keeps_components_at_every_sparsity_that_allows_it(method):
    graph = nx.disjoint_union(nx.barabasi_albert_graph(60, 4, seed=1), nx.cycle_graph(8))
    edge_index = torch.tensor(list(graph.edges)).t()
    edges, size = make_edges(list(graph.edges), 70), {"num_nodes": 70, "seed": 4}
    floor = 1 - (70 - len(set(components(edges)))) / edges.num_edges
    forest = spanning_forest(edge_index, method, **size)
    with_core = Sparsifier(method.score, local=method.local, core="forest")
    assert torch.equal(sparsify_edge(edge_index, None, with_core, **size)[1], forest)
    before = torch.ones_like(forest)
    for sparsity in (0, 0.2, 0.5, 0.7, floor):
        kept, mask = sparsify_edge(edge_index, sparsity, with_core, **size)
        assert kept.size(1) == edges.num_edges - int(sparsity * edges.num_edges)
        assert components(make_edges(kept.t().tolist(), 70)) == components(edges)
        assert bool((forest <= mask).all())
        assert bool((mask <= before).all())
        before = mask
    with pytest.raises(ValueError, match=f"'sparsity' must be at most {floor:.4f}"):
        sparsify_edge(edge_index, 0.9, with_core, **size)


def test_local_ranks_that_tie_are_decided_by_the_score_behind_them():
    edges = make_edges(list(nx.gnp_random_graph(40, 0.3, seed=6).edges), 40)
    edge_index = tensor(pairs_of(edges))
    local, second = local_score(edges, edge_score(edge_index, "random", seed=2), "rank", "either")
    forest = slow_forest(edges, local, second)
    assert forest != slow_forest(edges, local)
    mask = spanning_forest(edge_index, Sparsifier("random", local="rank"), seed=2)
    assert set(pairs_of(edges, mask)) == forest


def test_directed_edges_of_the_forest_all_stay():
    graph = nx.gnp_random_graph(30, 0.3, seed=7, directed=True)
    edge_index = tensor(list(graph.edges))
    mask = sparsify_edge(edge_index, None, Sparsifier("random", core="forest", directed=True), seed=0)[1]
    kept = {(min(pair), max(pair)) for pair in edge_index[:, mask].t().tolist()}
    assert len(kept) == 29
    assert mask.tolist() == [(min(pair), max(pair)) in kept for pair in graph.edges]


@pytest.mark.cuda
@pytest.mark.parametrize("name", CORES)
def test_cores_are_the_same_on_a_device(name, device):
    edges = make_edges(list(nx.barabasi_albert_graph(60, 6, seed=1).edges), 62)
    score = draw_scores(0, edges.num_edges, "ties", torch.int64)
    second = draw_scores(1, edges.num_edges, "distinct", torch.float32)
    weight = draw_scores(2, edges.num_edges, "distinct", torch.float64).abs() + 0.01
    there = edges._replace(key=edges.key.to(device))
    mask = CORES[name](there, score.to(device), second.to(device), edge_weight=weight.to(device))
    assert mask.device == there.key.device
    assert torch.equal(mask.cpu(), CORES[name](edges, score, second, edge_weight=weight))
