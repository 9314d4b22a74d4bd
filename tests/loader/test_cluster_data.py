import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.loader import ClusterLoader

from graphsparse.loader import ClusterData
from graphsparse.testing import random_graph
from graphsparse.utils import partition_graph


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


def test_random_parts_and_weights():
    data = random_graph()
    weight = 1 + 50 * data.val_mask.long()
    clusters = ClusterData(data, 5, method="random", node_weight=weight, seed=3)
    assert [int(cluster.val_mask.sum()) for cluster in clusters] == [4] * 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sparse_format": "coo"}, "'sparse_format' must be 'csr' or 'csc'"),
        ({"num_parts": 0}, "'num_parts'"),
        ({"method": "x"}, "'method'"),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(ValueError, match=message):
        ClusterData(directed(), **{"num_parts": 3, **options})
    with pytest.raises(ValueError, match="'data' must hold 'edge_index'"):
        ClusterData(Data(x=torch.ones(3, 1)), 2)
