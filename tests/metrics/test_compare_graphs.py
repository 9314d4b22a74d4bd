import math

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch_geometric.data import Batch, Data, HeteroData
from torch_geometric.transforms import ToSparseTensor
from torch_geometric.utils import homophily

import graphsparse.metrics.distances as distances_module
import graphsparse.metrics.graph_measures as measures_module
from graphsparse.edges.undirected import undirected_edges
from graphsparse.metrics import GraphComparison, compare_graphs
from graphsparse.metrics.compare_graphs import read_graph
from graphsparse.metrics.distances import _by_products, hop_distances
from graphsparse.metrics.graph_measures import MEASURES
from graphsparse.testing import random_graph
from graphsparse.transforms import SparsifyEdges
from graphsparse.utils import partition_graph
from graphsparse.utils.counter_random import CounterRandom


def network(data, weight="edge_weight"):
    """The graph as networkx has it; each edge comes in both directions with one weight."""
    graph = nx.empty_graph(data.num_nodes)
    values = data.get(weight, torch.ones(data.num_edges)).tolist()
    pairs = data.edge_index.t().tolist()
    graph.add_weighted_edges_from((u, v, w) for (u, v), w in zip(pairs, values, strict=True) if u != v and w)
    return graph


def weighted(data, seed=0):
    """The same graph with a weight for each edge, equal in both directions."""
    u, v = data.edge_index
    table = torch.rand(60, 60, generator=torch.Generator().manual_seed(seed)) + 0.1
    return Data(edge_index=data.edge_index, edge_weight=(table + table.t())[u, v], y=data.y, num_nodes=data.num_nodes)


def some_pair(weights, seed=0):
    before = random_graph(seed=seed)
    after = SparsifyEdges(0.6, "random", seed=seed)(before)
    return (weighted(before, 1), weighted(after, 2)) if weights else (before, after)


PAIRS = pytest.mark.parametrize("weights", [False, True])


def numbers(before, after, measure, **options):
    return compare_graphs(before, after, measures=[measure], **options).to_dict()


def test_sizes_equal_networkx():
    before, after = some_pair(False)
    found = numbers(before, after, "size")
    for end, data in (("before", before), ("after", after)):
        graph = network(data)
        assert found[f"edges {end}"] == graph.number_of_edges()
        assert found[f"isolated nodes {end}"] == nx.number_of_isolates(graph)
        assert found[f"components {end}"] == nx.number_connected_components(graph)
        largest = max(map(len, nx.connected_components(graph)))
        assert found[f"share of nodes in the largest component {end}"] == largest / 60
    assert found["components"] == found["components after"] - found["components before"] > 0
    assert found["share of edges kept"] == found["edges after"] / found["edges before"]


def test_an_edge_that_is_new_is_not_kept():
    before, after = (
        Data(edge_index=torch.tensor(edges), num_nodes=4) for edges in ([[0, 1], [1, 2]], [[0, 2], [1, 3]])
    )
    assert numbers(before, after, "size")["share of edges kept"] == 0.5


@PAIRS
def test_degrees_equal_networkx_and_scipy(weights):
    before, after = some_pair(weights)
    found = numbers(before, after, "degree")
    old, new = (np.array([d for _, d in network(data).degree(weight="weight")]) for data in (before, after))
    assert found["degree KS distance"] == pytest.approx(stats.ks_2samp(old, new).statistic)
    assert found["degree rank correlation"] == pytest.approx(stats.spearmanr(old, new).statistic)
    assert found["degree rms relative error"] == pytest.approx(np.sqrt(np.mean((new / old - 1)[old > 0] ** 2)))


def test_clustering_equals_networkx():
    before, after = some_pair(False)
    found = numbers(before, after, "clustering")
    for end, data in (("before", before), ("after", after)):
        assert found[f"transitivity {end}"] == pytest.approx(nx.transitivity(network(data)))
        assert found[f"mean local clustering {end}"] == pytest.approx(nx.average_clustering(network(data)))
    assert "transitivity error" not in found


def test_drawn_wedges_are_within_their_error_of_networkx(monkeypatch):
    before, after = some_pair(False)
    monkeypatch.setattr(measures_module, "_WEDGES", 0)
    monkeypatch.setattr(measures_module, "_DRAWN_WEDGES", 20_000)
    for seed in range(3):
        found = numbers(before, after, "clustering", seed=seed)
        for name, exact in (("transitivity", nx.transitivity), ("mean local clustering", nx.average_clustering)):
            expected = exact(network(after)) - exact(network(before))
            assert 0 < found[f"{name} error"] < 0.01
            assert abs(found[name] - expected) < 4 * found[f"{name} error"]
    assert numbers(before, before, "clustering")["transitivity"] == 0
    no_wedge = Data(edge_index=torch.tensor([[0], [1]]), num_nodes=60)
    assert numbers(before, no_wedge, "clustering")["transitivity after"] == 0


def test_homophily_equals_pyg_and_networkx():
    before, after = some_pair(False)
    y = before.y.clone()
    y[:10] = -1
    found = numbers(before, after, "homophily", y=y)
    for end, data in (("before", before), ("after", after)):
        known = data.edge_index[:, (y[data.edge_index] >= 0).all(0)]
        assert found[f"edge homophily {end}"] == pytest.approx(homophily(known, y))
        graph = network(Data(edge_index=known, num_nodes=60))
        nx.set_node_attributes(graph, dict(enumerate(y.tolist())), "y")
        assortativity = nx.attribute_assortativity_coefficient(graph, "y")
        assert found[f"adjusted homophily {end}"] == pytest.approx(assortativity)
    removed = set(map(frozenset, network(before).edges)) - set(map(frozenset, network(after).edges))
    labels = [{int(y[v]) for v in edge} for edge in removed if all(y[v] >= 0 for v in edge)]
    expected = sum(len(label) == 2 for label in labels) / len(labels)
    assert found["share of removed edges between classes"] == pytest.approx(expected)


def test_classes_come_with_the_graph_in_any_form():
    before, after = some_pair(False)
    expected = numbers(before, after, "homophily")
    assert numbers(before, after, "homophily", y=1000 * before.y.view(-1, 1).int() - 100) != expected  # -100: no class
    assert numbers(before, after, "homophily", y=1000 * before.y.view(-1, 1).int() + 7) == expected


def laplacian(data):
    return nx.laplacian_matrix(network(data), range(data.num_nodes)).toarray()


@PAIRS
def test_quadratic_form_equals_networkx(weights):
    before, after = some_pair(weights)
    found = numbers(before, after, "quadratic_form", vectors=11, seed=5)
    old, new = laplacian(before), laplacian(after)
    x = np.stack([CounterRandom(5, f"vector {i}").normal(60).double().numpy() for i in range(11)], 1)
    walk = np.eye(60) - 0.5 * np.diag(1 / np.maximum(old.diagonal(), 1e-30)) @ old  # an isolated node keeps its value
    for kind, vectors in (("white", x), ("smooth", np.linalg.matrix_power(walk, 10) @ x)):
        error = np.abs(
            np.einsum("ik,ij,jk->k", vectors, new, vectors) / np.einsum("ik,ij,jk->k", vectors, old, vectors) - 1
        )
        assert found[f"mean error of x'Lx, {kind} x"] == pytest.approx(error.mean(), rel=1e-4)
        assert found[f"largest error of x'Lx, {kind} x"] == pytest.approx(error.max(), rel=1e-4)
        assert found[f"mean error of x'Lx, {kind} x error"] == pytest.approx(error.std(ddof=1) / np.sqrt(11), rel=1e-4)


@PAIRS
def test_pagerank_equals_networkx(weights, monkeypatch):
    monkeypatch.setattr(measures_module, "_TOP", 10)
    before, after = some_pair(weights)
    directed = Data(edge_index=after.edge_index[:, after.edge_index[0] < after.edge_index[1]], num_nodes=60)
    if weights:
        directed.edge_weight = after.edge_weight[after.edge_index[0] < after.edge_index[1]]
    found = numbers(before, directed, "pagerank")
    old, new = (np.array([*nx.pagerank(network(data), tol=1e-13, max_iter=1000).values()]) for data in (before, after))
    assert found["PageRank rank correlation"] == pytest.approx(stats.spearmanr(old, new).statistic, abs=2e-3)
    common = set(np.argsort(-old, kind="stable")[:10]) & set(np.argsort(-new, kind="stable")[:10])
    assert found["share of the top 10 by PageRank in common"] == len(common) / 10


@PAIRS
def test_pagerank_is_exact_after_its_products(weights):
    data = some_pair(weights)[1]
    assert (undirected_edges(data.edge_index, 60).degree() == 0).any()  # which hand on what they have to all
    found = measures_module._pagerank(read_graph(data, 60, "data"))
    expected = [*nx.pagerank(network(data), tol=1e-15, max_iter=1000).values()]
    assert found.tolist() == pytest.approx(expected, rel=1e-6)


def exact_distances(before, after):
    old, new = (dict(nx.all_pairs_shortest_path_length(network(data))) for data in (before, after))
    pairs = [(u, v) for u in old for v in old[u] if u != v]
    stretch = sorted(new[u][v] / old[u][v] for u, v in pairs if v in new[u])
    return 1 - len(stretch) / len(pairs), np.mean(stretch), stretch[math.ceil(0.95 * len(stretch)) - 1]


@pytest.mark.parametrize("seed", range(3))
def test_distances_from_all_nodes_equal_networkx(seed):
    before, after = some_pair(False, seed)
    found = numbers(before, after, "distances", sources=10**6)
    lost, mean, high = exact_distances(before, after)
    assert lost > 0
    assert mean > 1
    assert found["share of pairs lost"] == pytest.approx(lost)
    assert found["mean stretch"] == pytest.approx(mean)
    assert found["95 % stretch"] == pytest.approx(high)
    assert found["share of pairs lost error"] == found["mean stretch error"] == found["95 % stretch error"] == 0


def test_standard_errors_of_distances_are_as_large_as_estimates_scatter():
    before, after = some_pair(False)
    exact = dict(
        zip(("share of pairs lost", "mean stretch", "95 % stretch"), exact_distances(before, after), strict=True)
    )
    runs = [numbers(before, after, "distances", sources=20, seed=seed) for seed in range(30)]
    for name, value in exact.items():
        found, errors = (np.array([run[key] for run in runs]) for key in (name, f"{name} error"))
        rms = np.sqrt(np.mean((found - value) ** 2))
        assert 0.5 < np.sqrt(np.mean(errors**2)) / rms < 2, name
    assert len({run["mean stretch"] for run in runs}) > 15
    assert math.isnan(numbers(before, after, "distances", sources=1)["mean stretch error"])


def test_a_cut_graph_shows_the_pairs_it_lost():
    ring = Data(edge_index=torch.stack([torch.arange(8), torch.arange(1, 9) % 8]), num_nodes=8)
    cut = Data(edge_index=ring.edge_index[:, [0, 1, 2, 4, 5, 6]], num_nodes=8)  # 0-1-2-3 and 4-5-6-7
    found = numbers(ring, cut, "distances")
    assert found["share of pairs lost"] == pytest.approx(1 - 2 * 12 / 56)
    assert found["mean stretch"] == 1
    empty = Data(edge_index=ring.edge_index[:, :0], num_nodes=8)
    found = numbers(ring, empty, "distances")
    assert found["share of pairs lost"] == 1
    assert math.isnan(found["mean stretch"])
    assert math.isnan(found["95 % stretch"])


@PAIRS
def test_cuts_equal_networkx(weights):
    before, after = some_pair(weights)
    found = numbers(before, after, "cuts", seed=2)
    part = partition_graph(before.edge_index, 16, 60, seed=2)
    error = []
    for p in range(16):
        old, new = (
            nx.cut_size(network(data), (part == p).nonzero()[:, 0].tolist(), weight="weight")
            for data in (before, after)
        )
        error.append(abs(new / old - 1))
    assert found["mean error of 16 cuts"] == pytest.approx(np.mean(error))
    assert found["largest error of 16 cuts"] == pytest.approx(max(error))


def test_parts_of_a_sample_of_the_edges(monkeypatch):
    before, after = some_pair(False)
    exact = numbers(before, after, "cuts")
    monkeypatch.setattr(measures_module, "_EDGES_TO_CUT", 60)
    found = numbers(before, after, "cuts")
    assert found != exact
    assert abs(found["mean error of 16 cuts"] - exact["mean error of 16 cuts"]) < 0.2


graphs = st.builds(
    lambda size, pairs: Data(
        edge_index=torch.tensor([p for p in pairs if max(p) < size], dtype=torch.int64).view(-1, 2).t(),
        y=torch.arange(size) % 2,
        num_nodes=size,
    ),
    st.integers(1, 12),
    st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=30),
)
ONES = ("kept", "correlation", "in common", "stretch")


@settings(max_examples=20, deadline=None)
@given(graphs, st.booleans())
def test_equal_graphs_differ_by_0_and_share_1(data, weights):
    if weights:
        data.edge_weight = torch.rand(data.num_edges, generator=torch.Generator().manual_seed(0)) + 0.1
    for figure in compare_graphs(data, data.clone(), sources=3, vectors=3).figures:
        expected = float(any(word in figure.name for word in ONES))
        nothing = math.isnan(figure.value) and (not undirected_edges(data.edge_index, data.num_nodes).num_edges)
        assert figure.value == expected or nothing or math.isnan(figure.before), figure
        assert figure.before == figure.after or math.isnan(figure.before)


@settings(max_examples=10, deadline=None)
@given(graphs, graphs, st.randoms())
def test_order_direction_and_duplicates_do_not_matter(before, after, random):
    after.num_nodes = before.num_nodes = 12
    before.y = torch.arange(12) % 2

    def shuffled(data):
        columns = [column if random.random() < 0.5 else column[::-1] for column in data.edge_index.t().tolist() * 2]
        random.shuffle(columns)
        edge_index = torch.tensor(columns, dtype=torch.int32).view(-1, 2).t()
        return Data(edge_index=edge_index, y=data.y, num_nodes=12)

    options = {"sources": 3, "vectors": 2}
    found = compare_graphs(shuffled(before), shuffled(after), **options).to_dict()
    assert found == pytest.approx(compare_graphs(before, after, **options).to_dict(), nan_ok=True)


def test_a_matrix_in_place_of_edges():
    before, after = (weighted(random_graph(), seed) for seed in (1, 2))
    expected = compare_graphs(before, after, y=before.y).to_dict()
    for layout in (torch.sparse_csr, torch.sparse_coo):
        matrices = [ToSparseTensor(attr="edge_weight", layout=layout)(data.clone()) for data in (before, after)]
        assert "edge_index" not in matrices[0]
        assert compare_graphs(*matrices).to_dict() == pytest.approx(expected)


def test_weights_are_means_and_edges_of_weight_0_are_not_there():
    edge_index = torch.tensor([[0, 1, 1, 2, 3], [1, 0, 2, 3, 3]])
    before = Data(edge_index=edge_index, edge_weight=torch.tensor([1.0, 3.0, 2.0, 0.0, 5.0]), num_nodes=4)
    after = Data(edge_index=torch.tensor([[0, 1], [1, 2]]), edge_weight=torch.tensor([2.0, 2.0]), num_nodes=4)
    found = compare_graphs(before, after)
    assert found.to_dict()["edges before"] == 2
    assert all(figure.value in (0, 1) for figure in found.figures)


def test_weights_of_1_are_no_weights():
    before, after = some_pair(False)
    ones = before.clone()
    ones.edge_weight = torch.ones(ones.num_edges, dtype=torch.float64)
    assert compare_graphs(ones, after).to_dict() == compare_graphs(before, after).to_dict()


def test_a_batch_is_one_graph():
    batch = Batch.from_data_list([random_graph(20, seed=i) for i in range(3)])
    found = numbers(batch, SparsifyEdges(0.5)(batch), "size")
    assert found["components before"] == nx.number_connected_components(network(batch))


def test_table_numbers_and_repr():
    before, after = some_pair(False)
    found = compare_graphs(before, after, measures=["size", "distances"], sources=5)
    assert repr(found) == "GraphComparison(8 figures of size, distances)"
    lines = found.table().splitlines()
    assert len(lines) == 2 + len(found.figures)
    assert len({line.count("|") for line in lines}) == 1
    stretch = next(line for line in lines if "mean stretch" in line).split("|")
    assert float(stretch[4]) == pytest.approx(found.to_dict()["mean stretch"], rel=1e-3)
    assert float(stretch[5]) == pytest.approx(found.to_dict()["mean stretch error"], rel=1e-3)
    assert compare_graphs(before, after, sources=5).to_dict().items() >= found.to_dict().items()
    assert isinstance(found, GraphComparison)


def test_homophily_is_left_out_without_classes():
    before, after = some_pair(False)
    before.y = torch.rand(60)
    found = compare_graphs(before, after)
    assert {figure.measure for figure in found.figures} == set(MEASURES) - {"homophily"}


def plain(size, **options):
    return Data(edge_index=torch.tensor([[0], [1]]), num_nodes=size, **options)


HETERO = HeteroData({"a": {"x": torch.ones(2, 1)}, ("a", "to", "a"): {"edge_index": torch.tensor([[0], [1]])}})


@pytest.mark.parametrize(
    ("before", "after", "options", "error", "message"),
    [
        (HETERO, plain(2), {}, TypeError, "'before' must be a homogeneous Data"),
        (plain(2), plain(2).edge_index, {}, TypeError, "'after' must be a homogeneous Data"),
        (plain(2), plain(3), {}, ValueError, "the same nodes, at least one .got 2 and 3 nodes."),
        (Data(num_nodes=0), Data(num_nodes=0), {}, ValueError, "at least one .got 0 and 0"),
        (plain(2), Data(num_nodes=2), {}, ValueError, "'after' must have 'edge_index' or 'adj_t'"),
        (plain(2), plain(2), {"measures": ["size", "stretch"]}, ValueError, "'measures' must hold.*got 'stretch'"),
        (plain(2), plain(2), {"measures": "size"}, TypeError, "'measures' must be a list of names"),
        (plain(2), plain(2), {"measures": ["homophily"]}, ValueError, "needs a class of each node: pass 'y'"),
        (plain(2), plain(2), {"y": torch.ones(2)}, TypeError, "'y' must be an integer tensor"),
        (plain(2), plain(2), {"y": torch.ones(3).long()}, ValueError, "'y' must have one class for each of 2 nodes"),
        (plain(2), plain(2), {"y": torch.tensor([-1, -100])}, ValueError, "'y' holds no class"),
        (plain(2), plain(2), {"sources": 0}, ValueError, "'sources' must be at least 1"),
        (plain(2), plain(2), {"vectors": 1.5}, TypeError, "'vectors' must be an integer"),
        (plain(2), plain(2), {"seed": -1}, ValueError, "'seed' must be between"),
        (
            plain(2),
            plain(2, edge_weight=-torch.ones(1)),
            {},
            ValueError,
            "'after.edge_weight' must be finite and not neg",
        ),
        (
            plain(2),
            plain(2, edge_weight=torch.tensor([torch.nan])),
            {},
            ValueError,
            "'after.edge_weight' must be finite",
        ),
        (
            plain(2),
            plain(2, edge_weight=torch.ones(2)),
            {},
            ValueError,
            "'after.edge_weight' must have shape .1.",
        ),
        (plain(2), plain(1), {}, ValueError, "the same nodes"),
        (Data(edge_index=torch.tensor([[0], [5]]), num_nodes=2), plain(2), {}, ValueError, "'before.edge_index' holds"),
    ],
)
def test_bad_arguments(before, after, options, error, message):
    with pytest.raises(error, match=message):
        compare_graphs(before, after, **options)


@settings(max_examples=40, deadline=None)
@given(graphs, st.sampled_from([1, 16, 10**9]), st.sampled_from([2, 2**15 - 1]))
def test_steps_between_nodes_equal_networkx(data, sparse, largest):
    """Whether few nodes or all are looked at, and with distances too long for their type."""
    rowptr, col = undirected_edges(data.edge_index, data.num_nodes).csr()
    sources = torch.randperm(data.num_nodes)[: data.num_nodes // 2 + 1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distances_module, "_SPARSE", sparse)
        patch.setattr(distances_module, "_LARGEST", {torch.int16: largest})
        found = hop_distances(rowptr.int(), col.int(), sources)
        assert torch.equal(
            _by_products(rowptr.int(), col.int(), sources),
            found.to(torch.int32) if largest == 2 and (found >= 2).any() else found,
        )
    graph = network(data)
    for column, source in enumerate(sources.tolist()):
        steps = nx.single_source_shortest_path_length(graph, source)
        assert found[:, column].tolist() == [steps.get(v, -1) for v in range(data.num_nodes)]


def test_64_bits_of_a_word_and_one_more():
    path = torch.stack([torch.arange(199), torch.arange(1, 200)])
    rowptr, col = undirected_edges(path, 200).csr()
    sources = torch.randperm(200)[:130]
    place = torch.arange(200)
    assert torch.equal(hop_distances(rowptr.int(), col.int(), sources).long(), (place[:, None] - sources).abs())
