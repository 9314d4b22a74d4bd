import inspect
from itertools import combinations

import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.loader import ClusterData as PyGClusterData
from torch_geometric.loader import ClusterLoader

from graphsparse.loader import ClusterData, parts
from graphsparse.loader.parts import ClusterBatches, RandomNodeBatches, stored_partition
from graphsparse.testing import random_graph
from graphsparse.utils import partition_graph

DATA = random_graph()
EDGES = DATA.edge_index


def assert_induced(batch):
    """The batch has exactly the edges of the graph with both ends in it."""
    known = set(batch.n_id.tolist())
    expected = [i for i, (u, v) in enumerate(DATA.edge_index.t().tolist()) if u in known and v in known]
    assert sorted(batch.e_id.tolist()) == expected
    assert torch.equal(batch.n_id[batch.edge_index], DATA.edge_index[:, batch.e_id])
    for key in ("x", "y", "train_mask"):
        assert torch.equal(batch[key], DATA[key][batch.n_id])


def test_clusters_with_the_edges_between_them():
    part = partition_graph(DATA.edge_index, 5, 60, seed=7)
    loader = ClusterBatches(DATA, num_parts=5, parts_per_batch=2, partition_seed=7)
    epochs = [list(loader) for _ in range(12)]
    seen = set()
    for epoch in epochs:
        assert len(epoch) == len(loader) == 3
        assert sorted(torch.cat([batch.n_id for batch in epoch]).tolist()) == list(range(60))
        for batch in epoch:
            assert_induced(batch)
            drawn = tuple(part[batch.n_id].unique().tolist())
            assert sorted(batch.n_id.tolist()) == torch.isin(part, torch.tensor(drawn)).nonzero().flatten().tolist()
            seen.add(drawn)
    # 24 pairs are drawn from 10; one given pair is missing with a probability of (3 / 5)^12 at most: 0.2 %
    assert {drawn for drawn in seen if len(drawn) == 2} == set(combinations(range(5), 2))


def test_many_trainings_share_a_partition(tmp_path):
    first, second = (
        ClusterBatches(DATA, num_parts=6, parts_per_batch=1, save_dir=tmp_path, seed=seed) for seed in (0, 1)
    )
    assert len(list(tmp_path.iterdir())) == 1
    groups = [[tuple(batch.n_id.tolist()) for batch in loader] for loader in (first, second)]
    assert sorted(groups[0]) == sorted(groups[1])
    assert groups[0] != groups[1]


def test_weights_of_nodes_reach_the_partition():
    weight = torch.ones(60)
    weight[:6] = 100
    loader = ClusterBatches(DATA, num_parts=6, parts_per_batch=1, node_weight=weight)
    assert max(int((batch.n_id < 6).sum()) for batch in loader) <= 2


def test_random_nodes():
    loader = RandomNodeBatches(DATA, num_parts=7)
    first, second = list(loader), list(loader)
    assert len(loader) == len(first) == 7
    for epoch in (first, second):
        assert sorted(torch.cat([batch.n_id for batch in epoch]).tolist()) == list(range(60))
        assert {batch.num_nodes for batch in epoch} == {8, 9}
        for batch in epoch:
            assert_induced(batch)
    assert first[0].n_id.tolist() != second[0].n_id.tolist()


@pytest.mark.parametrize(
    ("make", "options", "error", "message"),
    [
        (ClusterBatches, {"num_parts": 61}, ValueError, "'num_parts' must be between 1 and the number of nodes"),
        (ClusterBatches, {"num_parts": 3, "parts_per_batch": 4}, ValueError, "'parts_per_batch' must be at most"),
        (ClusterBatches, {"parts_per_batch": 0}, ValueError, "'parts_per_batch' must be at least 1"),
        (RandomNodeBatches, {"num_parts": 61}, ValueError, "'num_parts' must be at most the number of nodes, 60"),
        (RandomNodeBatches, {"num_parts": 2.0}, TypeError, "'num_parts' must be an integer"),
    ],
)
def test_bad_options(make, options, error, message):
    with pytest.raises(error, match=message):
        make(DATA, **options)


def test_a_partition_is_computed_once(tmp_path, monkeypatch):
    expected = partition_graph(EDGES, 4, 60)
    assert torch.equal(stored_partition(EDGES, 4, 60), expected)
    folder = tmp_path / "new" / "folder"
    assert torch.equal(stored_partition(EDGES, 4, 60, save_dir=folder), expected)
    assert len(list(folder.iterdir())) == 1
    monkeypatch.setattr(parts, "partition_graph", None)
    assert torch.equal(stored_partition(EDGES, 4, 60, save_dir=str(folder)), expected)


def test_whatever_changes_the_parts_changes_the_file(tmp_path):
    weight = torch.ones(60)
    heavier, flipped = weight.clone(), EDGES.clone()
    heavier[0] = 2
    flipped[:, 0] = EDGES[:, 0].flip(0)
    calls = [
        ((EDGES, 4, 60), {}),
        ((EDGES[:, 1:], 4, 60), {}),
        ((flipped, 4, 60), {}),
        ((EDGES, 5, 60), {}),
        ((EDGES, 4, 61), {}),
        ((EDGES, 4, 60), {"seed": 1}),
        ((EDGES, 4, 60), {"node_weight": weight}),
        ((EDGES, 4, 60), {"node_weight": heavier}),
        ((EDGES, 4, 60), {"node_weight": weight.long()}),
    ]
    for args, options in [*calls, ((EDGES, 4, 60), {"node_weight": weight.clone()})]:
        stored_partition(*args, **options, save_dir=tmp_path)
    assert len(list(tmp_path.iterdir())) == len(calls)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"nothing", "it is a partition"),
        (torch.zeros(59).long(), "holds no partition of 60 nodes"),
        (torch.zeros(60), "holds no partition of 60 nodes"),
        (torch.full((60,), 4), "holds other than 4 parts"),
        (torch.full((60,), -1), "holds other than 4 parts"),
    ],
)
def test_a_damaged_file_is_said_to_be_one(content, message, tmp_path):
    stored_partition(EDGES, 4, 60, save_dir=tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(ValueError, match=message) as error:
        stored_partition(EDGES, 4, 60, save_dir=tmp_path)
    assert str(path) in str(error.value)


def test_nothing_half_written_stays(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(parts.torch, "save", fail)
    with pytest.raises(OSError, match="no space"):
        stored_partition(EDGES, 4, 60, save_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_bad_arguments_leave_no_file(tmp_path):
    with pytest.raises(TypeError, match="'node_weight' must be a dense tensor"):
        stored_partition(EDGES, 4, 60, node_weight=[1] * 60, save_dir=tmp_path)
    with pytest.raises(ValueError, match="'node_weight' must have shape"):
        stored_partition(EDGES, 4, 60, node_weight=torch.ones(3), save_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


def directed(seed=0, num_edges=300):
    """A directed graph with a self-loop, a repeated edge, isolated nodes, and a number on every node and edge."""
    generator = torch.Generator().manual_seed(seed)
    edge_index = torch.randint(50, (2, num_edges), generator=generator)
    edge_index[:, 0] = 3
    edge_index[:, 1] = edge_index[:, 2]
    x = torch.arange(60.0)[:, None]
    return Data(x=x, edge_index=edge_index, edge_attr=torch.arange(float(num_edges)), train_mask=x[:, 0] < 20)


def edges_of(batch):
    ends = batch.x[:, 0].long()[batch.edge_index]
    return sorted(zip(batch.edge_attr.long().tolist(), *ends.tolist(), strict=True))


@pytest.mark.usefixtures("without_extensions")
@pytest.mark.parametrize("sparse_format", ["csr", "csc"])
def test_cluster_loader_gives_the_induced_subgraphs(sparse_format):
    data = directed()
    part = partition_graph(data.edge_index, 6, 60, seed=2)
    clusters = ClusterData(data, 6, seed=2, sparse_format=sparse_format)
    assert len(clusters) == 6
    nodes = []
    for batch in ClusterLoader(clusters, batch_size=3, shuffle=True):
        inside = batch.x[:, 0].long()
        nodes += inside.tolist()
        assert torch.equal(batch.train_mask, inside < 20)
        drawn = torch.isin(part, part[inside].unique())
        assert len(inside) == drawn.sum()
        kept = drawn[data.edge_index].all(0)
        numbers = kept.nonzero().flatten()
        assert edges_of(batch) == sorted(zip(numbers.tolist(), *data.edge_index[:, kept].tolist(), strict=True))
    assert sorted(nodes) == list(range(60))


def test_single_clusters():
    data = directed()
    part = partition_graph(data.edge_index, 4, 60)
    for cluster in ClusterData(data, 4):
        inside = cluster.x[:, 0].long()
        kept = torch.isin(data.edge_index, inside).all(0)
        assert len(part[inside].unique()) == 1
        assert edges_of(cluster) == sorted(
            zip(kept.nonzero().flatten().tolist(), *data.edge_index[:, kept].tolist(), strict=True)
        )
    number = sum(cluster.num_edges for cluster in ClusterData(data, 4, keep_inter_cluster_edges=True))
    assert number == data.num_edges


def test_another_graph_never_gets_a_stale_partition(tmp_path, capfd):
    """PyG names the file after the number of parts alone."""
    for seed, num_edges in ((0, 300), (1, 300), (0, 310)):
        data = directed(seed, num_edges)
        fresh = ClusterData(data, 5)
        for _ in range(2):
            stored = ClusterData(data, 5, save_dir=tmp_path)
            assert torch.equal(stored.partition.node_perm, fresh.partition.node_perm)
            assert torch.equal(stored.partition.index, fresh.partition.index)
    assert len(list(tmp_path.iterdir())) == 3
    assert capfd.readouterr() == ("", "")


def test_a_stored_partition_serves_both_formats(tmp_path):
    data = directed()
    ClusterData(data, 5, save_dir=tmp_path)
    stored = ClusterData(data, 5, save_dir=tmp_path, sparse_format="csc")
    assert stored.partition.sparse_format == "csc"
    assert torch.equal(stored.partition.index, ClusterData(data, 5, sparse_format="csc").partition.index)
    assert len(list(tmp_path.iterdir())) == 1


def test_takes_the_arguments_of_pyg_in_their_order(tmp_path, capfd):
    data = directed()
    expected = ClusterData(data, 5, keep_inter_cluster_edges=True, sparse_format="csc")
    for _ in range(2):
        clusters = ClusterData(data, 5, False, str(tmp_path), "metis.pt", True, True, "csc")
        assert torch.equal(clusters.partition.index, expected.partition.index)
        assert clusters.keep_inter_cluster_edges
    assert [path.name.split("-")[0] for path in tmp_path.iterdir()] == ["metis"]
    ClusterData(directed(1), 5, save_dir=tmp_path, filename="metis.pt")
    assert len(list(tmp_path.iterdir())) == 2
    assert capfd.readouterr() == ("", "")
    assert set(inspect.signature(PyGClusterData).parameters) < set(inspect.signature(ClusterData).parameters)


def few_edges(num_nodes, *edges, **more):
    edge_index = torch.tensor(edges, dtype=torch.int64).view(-1, 2).t()
    return Data(x=torch.ones(num_nodes, 1), edge_index=edge_index, **more)


@pytest.mark.parametrize(
    ("data", "num_parts", "options", "error", "message"),
    [
        (few_edges(6), 3, {"keep_inter_cluster_edges": True}, ValueError, "cluster 0 of 3 has no edge"),
        (few_edges(0), 1, {}, ValueError, "'data' is an empty graph: it has no nodes"),
        (few_edges(3, (0, 1)), 4, {}, ValueError, "'num_parts' must be between 1 and the number of nodes, 3"),
        (directed(), 0, {}, ValueError, "'num_parts' must be at least 1"),
        (directed(), 2.5, {}, TypeError, "'num_parts' must be an integer"),
        (directed(), 2, {"recursive": True}, ValueError, "'recursive' must be False"),
        (directed(), 2, {"sparse_format": "coo"}, ValueError, "'sparse_format' must be 'csr' or 'csc'"),
        (Data(x=torch.ones(3, 1)), 2, {}, ValueError, "'data' must hold 'edge_index'"),
    ],
)
def test_bad_clusters(data, num_parts, options, error, message):
    with pytest.raises(error, match=message):
        ClusterData(data, num_parts, **options)


@pytest.mark.parametrize("sparse_format", ["csr", "csc"])
@pytest.mark.parametrize("batch_size", [1, 2, 6])
@pytest.mark.parametrize(
    "edges", [[], [(0, 1), (1, 0)], [(2, 2), (5, 0), (5, 0)], [(0, 5), (1, 5), (2, 5), (3, 5), (4, 5)]]
)
def test_clusters_without_edges(edges, batch_size, sparse_format):
    data = few_edges(6, *edges, edge_attr=torch.arange(float(len(edges))), edge_time=torch.ones(len(edges), 2))
    data.x = torch.arange(6.0)[:, None]
    for num_parts in (1, 3, 6):
        clusters = ClusterData(data, num_parts, sparse_format=sparse_format)
        nodes = []
        for batch in [*ClusterLoader(clusters, batch_size=batch_size), *clusters]:
            inside = set(batch.x[:, 0].long().tolist())
            expected = [(i, u, v) for i, (u, v) in enumerate(edges) if u in inside and v in inside]
            assert edges_of(batch) == expected
            assert torch.equal(batch.edge_time, torch.ones(len(expected), 2))
            nodes += inside
        assert sorted(nodes) == sorted([*range(6), *range(6)])


def test_clusters_without_edges_that_make_as_many_entries_as_nodes():
    data = few_edges(6, (0, 1), (1, 0), (2, 3), (3, 2), (2, 2), edge_attr=torch.arange(5.0), time=torch.arange(5))
    data.x = torch.arange(6.0)[:, None]
    with pytest.warns(UserWarning, match="'time' is in no cluster"):
        clusters = ClusterData(data, 3)
    assert clusters.partition.edge_perm.numel() == 6
    for batch in ClusterLoader(clusters):
        assert "time" not in batch
        edges_of(batch)


def test_isolated_nodes_of_a_graph_without_features_are_in_clusters():
    data = Data(edge_index=torch.tensor([[0, 1, 2, 3], [1, 0, 3, 2]]), num_nodes=9)
    assert [batch.num_nodes for batch in ClusterLoader(ClusterData(data, 1))] == [9]
    assert sorted(batch.num_nodes for batch in ClusterLoader(ClusterData(data, 2))) in ([4, 5], [3, 6])


def test_clusters_hold_nothing_that_pyg_would_cut_wrongly():
    data = directed()
    data.neg_edge_index, data.split_edge = data.edge_index.flip(0), {"train": {"edge": data.edge_index.t()}}
    data.edge_label, data.names, data.y = torch.ones(300), ["n"] * 60, torch.arange(60)
    with pytest.warns(UserWarning, match="is in no") as caught:
        clusters = ClusterData(data, 3)
    left_out = {str(warning.message).split("'")[1] for warning in caught}
    assert left_out == {"neg_edge_index", "split_edge", "edge_label", "names"}
    for batch in ClusterLoader(clusters, batch_size=2):
        assert not left_out & set(batch.keys())
        assert torch.equal(batch.y, batch.x[:, 0].long())
        edges_of(batch)
