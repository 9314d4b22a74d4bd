import math
import warnings

import networkx as nx
import pytest
import torch
from both_devices import there
from hypothesis import given, settings
from hypothesis import strategies as st

from graphsparse.edges import edge_score, effective_resistance

graphs = st.builds(
    lambda seed, density: nx.gnp_random_graph(14, density, seed=seed), st.integers(0, 10**6), st.floats(0.05, 1.0)
)


def one_way(graph):
    return torch.tensor(list(graph.edges), dtype=torch.long).reshape(-1, 2).t()


def weights_of(edge_index, seed=0):
    """Weights between 0.1 and 10."""
    generator = torch.Generator().manual_seed(seed)
    return 10 ** (2 * torch.rand(edge_index.size(1), generator=generator, dtype=torch.float64) - 1)


def reference(edge_index, weight, num_nodes):
    """What networkx says, component by component."""
    graph = nx.Graph()
    graph.add_nodes_from(range(num_nodes))
    for (u, v), w in zip(edge_index.t().tolist(), weight.tolist(), strict=True):
        graph.add_edge(u, v, weight=w)
    distance = {}
    for nodes in nx.connected_components(graph):
        part = graph.subgraph(nodes)
        for u, to in nx.resistance_distance(part, weight="weight", invert_weight=False).items():
            distance |= {(u, v): value for v, value in to.items()}
    return torch.tensor([distance[u, v] for u, v in edge_index.t().tolist()], dtype=torch.float64)


def bounds(edge_index, weight, num_nodes):
    """The least and the largest resistance that degrees allow."""
    strength = torch.zeros(num_nodes, dtype=torch.float64)
    for row in edge_index:
        strength.index_add_(0, row, weight)
    u, v = strength[edge_index] - weight
    around = torch.where(u + v > 0, u * v / (u + v).clamp(min=1e-300), 0)
    return 1 / (weight + around), 1 / weight


@settings(max_examples=15, deadline=None)
@given(graphs, st.integers(0, 99))
def test_exact_equals_networkx(graph, seed):
    edge_index = one_way(graph)
    weight = weights_of(edge_index, seed)
    for w, given_weight in ((weight, weight), (torch.ones_like(weight), None)):
        found = effective_resistance(edge_index, given_weight, num_nodes=14, exact=True)
        torch.testing.assert_close(found, reference(edge_index, w, 14), rtol=1e-9, atol=0)


@settings(max_examples=15, deadline=None)
@given(graphs, st.integers(0, 99))
def test_estimates_keep_the_bounds_and_are_close(graph, seed):
    edge_index = one_way(graph)
    weight = weights_of(edge_index, seed)
    exact = effective_resistance(edge_index, weight, num_nodes=14, exact=True)
    found = effective_resistance(edge_index, weight, num_nodes=14, probes=128, seed=seed, tol=1e-3).double()
    least, most = bounds(edge_index, weight, 14)
    assert (found >= least * (1 - 1e-6)).all()
    assert (found <= most * (1 + 1e-6)).all()
    # 6 standard deviations of squares of normal numbers, of what is estimated: never more than the resistance.
    assert ((found - exact).abs() <= 6 * math.sqrt(2 / 128) * exact + 1e-3 * most).all()


@settings(max_examples=15, deadline=None)
@given(graphs, st.integers(0, 99))
def test_exact_leverages_sum_to_nodes_less_components_and_are_1_at_bridges(graph, seed):
    edge_index = one_way(graph)
    weight = weights_of(edge_index, seed)
    options = {"num_nodes": 14, "edge_weight": weight}
    leverage = edge_score(edge_index, "resistance", options={"exact": True}, **options)
    assert float(leverage.sum()) == pytest.approx(14 - nx.number_connected_components(graph))
    bridges = set(nx.bridges(graph))
    bridge = torch.tensor(
        [(u, v) in bridges or (v, u) in bridges for u, v in edge_index.t().tolist()], dtype=torch.bool
    )
    assert (leverage[bridge] - 1).abs().le(1e-9).all()
    assert (leverage[~bridge] < 1 - 1e-9).all()


@pytest.mark.parametrize("weighted", [False, True])
def test_mean_of_many_probes_is_the_resistance(weighted):
    edge_index = one_way(nx.gnp_random_graph(40, 0.3, seed=0))
    weight = weights_of(edge_index) if weighted else torch.ones(edge_index.size(1), dtype=torch.float64)
    exact = effective_resistance(edge_index, weight, exact=True)
    found = effective_resistance(edge_index, weight, probes=1024, tol=1e-3).double()
    # All but the part that degrees give is a mean of squares, of numbers that are nearly normal.
    strength = torch.zeros(40, dtype=torch.float64)
    for row in edge_index:
        strength.index_add_(0, row, weight)
    u, v = strength[edge_index]
    spread = (exact - (1 / u + 1 / v - 2 * weight / (u * v))) * math.sqrt(2 / 1024)
    least, most = bounds(edge_index, weight, 40)
    free = (exact - least > 5 * spread) & (most - exact > 5 * spread)  # else it may be cut, and its mean is another one
    assert free.sum() > 50
    z = ((found - exact) / spread)[free]
    assert z.abs().max() < 5
    assert 0.5 < z.std() < 1.3


def test_bridges_of_a_tree_and_a_path():
    tree = one_way(nx.random_labeled_tree(300, seed=0))
    leverage = edge_score(tree, "resistance", seed=0)
    assert (leverage - 1).abs().max() < 0.3
    assert abs(float(leverage.mean()) - 1) < 0.03
    degree = torch.bincount(tree.flatten())
    assert (leverage[(degree[tree] == 1).any(0)] == 1).all()  # by the lower bound


def test_long_path_warns_with_its_residual_or_converges():
    path = torch.stack([torch.arange(3000), torch.arange(1, 3001)])
    with pytest.warns(UserWarning, match=r"after 20 iterations the largest relative residual is 0\.\d+, above 'tol'"):
        effective_resistance(path, probes=4, max_iter=20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = effective_resistance(path[:, :200], probes=64)
    assert (found - 1).abs().max() < 0.35


def test_order_direction_duplicates_loops_and_types_change_nothing():
    edge_index = one_way(nx.gnp_random_graph(40, 0.15, seed=3))
    found = effective_resistance(edge_index, num_nodes=40, seed=5)
    assert (found > 0).all()
    order = torch.randperm(found.numel(), generator=torch.Generator().manual_seed(0))
    assert torch.equal(effective_resistance(edge_index[:, order].flip(0), num_nodes=40, seed=5), found[order])
    many = torch.cat([edge_index, torch.tensor([[3, 7], [3, 7]]), edge_index.flip(0), edge_index[:, :5]], 1)
    again = effective_resistance(many.int(), num_nodes=40, seed=5)
    expected = torch.cat([found, torch.zeros(2), found, found[:5]])
    assert torch.equal(again, expected)
    assert not torch.equal(effective_resistance(edge_index, num_nodes=40, seed=6), found)


def test_more_probes_begin_with_the_same_ones():
    edge_index = one_way(nx.gnp_random_graph(40, 0.3, seed=3))
    values = {k: effective_resistance(edge_index, probes=k, tol=1e-5).double() for k in (16, 32)}
    degree = torch.bincount(edge_index.flatten()).double()
    u, v = degree[edge_index]
    known = 1 / u + 1 / v - 2 / (u * v)
    inner = (values[16] < 0.99) & (values[32] > bounds(edge_index, torch.ones_like(u), 40)[0] + 1e-4)
    assert inner.any()
    # The squares only add up.
    assert (32 * (values[32] - known) >= 16 * (values[16] - known) - 1e-4)[inner].all()


@pytest.mark.parametrize("exact", [False, True])
def test_numbering_of_nodes_changes_signs_only(exact):
    graph = nx.gnp_random_graph(40, 0.3, seed=3)
    edge_index = one_way(graph)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    first, second = (effective_resistance(e, exact=exact, probes=256).double() for e in (edge_index, order[edge_index]))
    torch.testing.assert_close(first, second, rtol=0 if exact else 0.1, atol=1e-12)


def test_edges_without_weight_are_not_there_and_entries_count_by_their_mean():
    square = torch.tensor([[0, 1, 2, 3, 0, 1], [1, 2, 3, 0, 2, 1]])
    weight = torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0, 5.0])
    found = effective_resistance(square, weight, num_nodes=6, exact=True)
    torch.testing.assert_close(found, torch.tensor([0.75] * 4 + [0.0] * 2, dtype=torch.float64))
    both = torch.tensor([[0, 1, 1], [1, 0, 2]])
    found = effective_resistance(both, torch.tensor([1.0, 3.0, 4.0]))
    assert found.tolist() == [0.5, 0.5, 0.25]


def test_a_common_factor_of_all_weights_divides():
    edge_index = one_way(nx.gnp_random_graph(40, 0.3, seed=3))
    plain, large = (effective_resistance(edge_index, torch.full((edge_index.size(1),), w)) for w in (1.0, 2.0**60))
    assert torch.equal(plain, large * 2.0**60)
    assert torch.equal(plain, effective_resistance(edge_index))


def test_nothing_and_hardly_anything():
    for exact in (False, True):
        empty = torch.empty(2, 0, dtype=torch.long)
        assert effective_resistance(empty, num_nodes=3, exact=exact).shape == (0,)
        assert effective_resistance(torch.tensor([[2], [2]]), exact=exact).tolist() == [0]
        assert effective_resistance(torch.tensor([[1, 5], [4, 7]]), num_nodes=9, exact=exact).tolist() == [1, 1]


def test_bipartite_graph():
    edge_index = torch.tensor([[0, 0, 1, 1], [0, 1, 0, 1]])
    assert effective_resistance(edge_index, num_nodes=(2, 2), exact=True).tolist() == pytest.approx([0.75] * 4)


def test_the_score_is_weight_times_resistance():
    edge_index = one_way(nx.gnp_random_graph(40, 0.3, seed=3))
    weight = weights_of(edge_index)
    score = edge_score(edge_index, "resistance", seed=4, edge_weight=weight)
    torch.testing.assert_close(score, (effective_resistance(edge_index, weight, seed=4) * weight).float())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first, second = (edge_score(edge_index, "resistance") for _ in range(2))
    assert not torch.equal(first, second)


BAD = {
    "probes": ({"probes": 0}, ValueError, "'probes' must be at least 1"),
    "seed": ({"seed": -1}, ValueError, "'seed' must be between"),
    "tol": ({"tol": 0.0}, ValueError, "'tol' must be a finite number above 0"),
    "max_iter": ({"max_iter": 1.5}, TypeError, "'max_iter' must be an integer"),
    "negative": ({"edge_weight": torch.tensor([1.0, -1.0])}, ValueError, "'edge_weight' must be finite and not neg"),
    "weights": ({"edge_weight": torch.ones(3)}, ValueError, r"'edge_weight' must have shape \[2\]"),
    "index": ({"num_nodes": 2}, ValueError, "'edge_index' holds the index 2"),
    "large": ({"num_nodes": 2001, "exact": True}, ValueError, "at most 2000 nodes .got 2001."),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments(case):
    options, error, message = BAD[case]
    with pytest.raises(error, match=message):
        effective_resistance(torch.tensor([[0, 1], [1, 2]]), **options)


def test_heavy_tailed_graph_with_the_defaults():
    graph = nx.disjoint_union(nx.powerlaw_cluster_graph(600, 4, 0.3, seed=0), nx.barabasi_albert_graph(200, 2, seed=0))
    edge_index = one_way(graph)
    found, exact = (effective_resistance(edge_index, exact=exact).double() for exact in (False, True))
    assert float((found / exact - 1).square().mean().sqrt()) < 0.05
    assert float(found.sum()) == pytest.approx(798, rel=0.005)


@pytest.mark.cuda
def test_devices(device):
    edge_index = one_way(nx.gnp_random_graph(60, 0.2, seed=2))
    weight = weights_of(edge_index)
    for exact in (False, True):
        here = effective_resistance(edge_index, weight, exact=exact)
        found = effective_resistance(there(edge_index, device), there(weight, device), exact=exact)
        assert found.device == device
        torch.testing.assert_close(found.cpu(), here, rtol=1e-3, atol=0)
