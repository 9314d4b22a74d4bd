import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric import EdgeIndex
from torch_geometric.loader import ClusterData, ClusterLoader

from graphsparse.testing import random_graph
from graphsparse.utils import partition_graph


def edges_of(graph):
    return torch.tensor(list(graph.edges), dtype=torch.int64).reshape(-1, 2).t()


def planted(groups=8, size=50, seed=0):
    """Dense groups with few edges between them, nodes shuffled; directed, each edge once."""
    graph = nx.planted_partition_graph(groups, size, 0.3, 0.005, seed=seed)
    new = torch.randperm(groups * size, generator=torch.Generator().manual_seed(seed))
    return new[edges_of(graph)], new


def cut(edge_index, part):
    return int((part[edge_index[0]] != part[edge_index[1]]).sum())


def random_parts(num_nodes, num_parts):
    return torch.randperm(num_nodes, generator=torch.Generator().manual_seed(0)) % num_parts


@st.composite
def graphs(draw):
    num_nodes = draw(st.integers(1, 25))
    node = st.integers(0, num_nodes - 1)
    pairs = draw(st.lists(st.tuples(node, node), max_size=60))
    return torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).t(), num_nodes


@pytest.mark.parametrize("num_parts", [4, 8, 16])
def test_metis_cuts_far_less_than_random(num_parts):
    edge_index, _ = planted()
    metis = partition_graph(edge_index, num_parts)
    random = random_parts(400, num_parts)
    assert cut(edge_index, random) > 0.6 * edge_index.size(1)
    assert cut(edge_index, metis) < (0.2 if num_parts <= 8 else 0.6) * cut(edge_index, random)
    size = metis.bincount(minlength=num_parts)
    assert size.max() <= 1.1 * size.float().mean()


def test_metis_finds_the_planted_groups():
    edge_index, new = planted()
    part = partition_graph(edge_index, 8)[new].view(8, 50)
    assert (part == part[:, :1]).float().mean() > 0.98
    assert part[:, 0].unique().numel() == 8


@given(graphs(), st.data(), st.integers(0, 2**40))
@settings(max_examples=80, deadline=None)
def test_every_part_is_used_and_the_same_seed_gives_the_same_parts(graph, data, seed):
    edge_index, num_nodes = graph
    num_parts = data.draw(st.integers(1, num_nodes))
    part = partition_graph(edge_index, num_parts, num_nodes, seed=seed)
    assert part.dtype == torch.int64
    assert part.shape == (num_nodes,)
    assert part.unique().tolist() == list(range(num_parts))
    assert torch.equal(part, partition_graph(edge_index, num_parts, num_nodes, seed=seed))


def test_only_the_undirected_graph_counts():
    edge_index, _ = planted()
    expected = partition_graph(edge_index, 12, 400)
    order = torch.randperm(edge_index.size(1), generator=torch.Generator().manual_seed(0))
    loops = torch.arange(400).repeat(2, 1)
    for same in (
        edge_index[:, order],
        edge_index.flip(0),
        torch.cat([edge_index, edge_index.flip(0)], dim=1),
        torch.cat([edge_index, loops, edge_index[:, :50]], dim=1),
        edge_index.int(),
        EdgeIndex(edge_index.contiguous(), sparse_size=(400, 400)),
    ):
        part = partition_graph(same, 12, 400)
        assert torch.equal(part, expected)
        assert type(part) is torch.Tensor


def test_seed_matters_and_global_random_state_does_not():
    edge_index = torch.randint(3000, (2, 20000), generator=torch.Generator().manual_seed(0))
    state = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    parts = {tuple(partition_graph(edge_index, 10, 3000, seed=s).tolist()) for s in (0, 1, 2, 2**40)}
    assert len(parts) == 4
    assert torch.equal(torch.random.get_rng_state(), state[0])
    assert np.array_equal(np.random.get_state()[1], state[1])  # noqa: NPY002


def test_small_and_empty_graphs(capfd):
    empty = torch.empty(2, 0, dtype=torch.int64)
    assert partition_graph(empty, 3).tolist() == []
    assert partition_graph(empty, 3, 0).tolist() == []
    assert partition_graph(empty, 3, 8).bincount().tolist() in ([3, 3, 2], [3, 2, 3], [2, 3, 3])
    loops = torch.tensor([[0, 1, 1], [0, 1, 1]])
    assert sorted(partition_graph(loops, 2).tolist()) == [0, 1]
    assert partition_graph(torch.tensor([[0], [1]]), 1, 5).tolist() == [0] * 5
    path = torch.stack([torch.arange(9), torch.arange(1, 10)])
    for num_parts in range(1, 11):
        assert partition_graph(path, num_parts).unique().numel() == num_parts
    assert capfd.readouterr() == ("", "")  # METIS writes to the terminal when it gives up


def test_isolated_nodes_are_dealt_out():
    edge_index, _ = planted(4, 25)
    part = partition_graph(edge_index, 4, 200)
    assert part.bincount(minlength=4).max() <= 55
    assert partition_graph(edge_index, 20, 200).unique().numel() == 20


def spread(values, part, num_parts):
    load = torch.zeros(num_parts, dtype=torch.float64).index_add_(0, part, values.double())
    return float(load.max() - load.min())


def test_metis_balances_validation_nodes():
    graph = nx.planted_partition_graph(40, 50, 0.2, 0.002, seed=1)
    edge_index, num_nodes = edges_of(graph), 2000
    val = torch.zeros(num_nodes, dtype=torch.int64)
    val[:250] = 1  # all of them in five of the forty groups
    plain = partition_graph(edge_index, 10, num_nodes)
    weighted = partition_graph(edge_index, 10, num_nodes, node_weight=1 + 50 * val)
    assert spread(val, plain, 10) >= 50
    assert spread(val, weighted, 10) <= 10
    weight = 1 + 50 * val
    total = torch.zeros(10).index_add_(0, weighted, weight.float())
    assert total.max() <= 1.1 * total.mean()
    assert cut(edge_index, weighted) < 0.5 * cut(edge_index, random_parts(num_nodes, 10))


def test_float_weights_mean_their_proportions():
    edge_index, _ = planted()
    weight = torch.rand(400, generator=torch.Generator().manual_seed(0)) ** 4
    expected = partition_graph(edge_index, 16, node_weight=weight)
    # Powers of two scale without rounding.
    for factor in (2.0**-120, 2.0**60):
        assert torch.equal(partition_graph(edge_index, 16, node_weight=weight.double() * factor), expected)
    total = torch.zeros(16).index_add_(0, expected, weight)
    assert total.max() <= 1.15 * total.mean()
    huge = torch.full((400,), 2**55)
    assert partition_graph(edge_index, 16, node_weight=huge).bincount().max() <= 1.1 * 25


@given(
    st.lists(st.integers(0, 1000), min_size=1, max_size=60).filter(any),
    st.integers(1, 12),
    st.integers(0, 100),
)
@settings(max_examples=100, deadline=None)
def test_without_edges_nodes_and_weights_are_balanced_at_once(values, num_parts, seed):
    num_parts = min(num_parts, len(values))
    weight = torch.tensor(values)
    empty = torch.empty(2, 0, dtype=torch.int64)
    part = partition_graph(empty, num_parts, len(values), node_weight=weight, seed=seed)
    assert part.bincount(minlength=num_parts).max() - part.bincount(minlength=num_parts).min() <= 1
    assert spread(weight, part, num_parts) <= max(values)


class _Clusters(ClusterData):
    def _metis(self, edge_index, num_nodes):
        return partition_graph(edge_index, self.num_parts, num_nodes)


def test_cluster_loader_takes_it():
    data = random_graph(200)
    data.n_id = torch.arange(200)
    loader = ClusterLoader(_Clusters(data, num_parts=10, log=False), batch_size=10)
    (batch,) = loader
    assert sorted(batch.n_id.tolist()) == list(range(200))
    back = {tuple(pair) for pair in batch.n_id[batch.edge_index].t().tolist()}
    assert back == set(map(tuple, data.edge_index.t().tolist()))


def test_real_graph(data_root):
    from graphsparse.datasets import load

    data = load("cora", data_root)
    part = partition_graph(data.edge_index, 32, data.num_nodes)
    random = random_parts(data.num_nodes, 32)
    assert cut(data.edge_index, part) < 0.25 * cut(data.edge_index, random)
    size = part.bincount(minlength=32)
    assert 0.8 * size.float().mean() < size.min()
    assert size.max() < 1.1 * size.float().mean()


PATH = torch.tensor([[0, 1, 2], [1, 2, 3]])


@pytest.mark.parametrize(
    ("error", "match", "kwargs"),
    [
        (ValueError, r"'num_parts' must be between 1 and the number of nodes, 4 \(got 0\)", {"num_parts": 0}),
        (ValueError, r"'num_parts'.*\(got 5\)", {"num_parts": 5}),
        (TypeError, r"'num_parts' must be an integer \(got 2\.0", {"num_parts": 2.0}),
        (TypeError, r"'num_parts' must be an integer \(got True", {"num_parts": True}),
        (TypeError, r"'seed' must be an integer \(got None", {"seed": None}),
        (ValueError, r"'seed' must be at least 0 \(got -1\)", {"seed": -1}),
        (TypeError, r"'num_nodes' must be an integer \(got \(4, 4\)", {"num_nodes": (4, 4)}),
        (ValueError, r"holds the index 3, which is not below 'num_nodes'", {"num_nodes": 3}),
        (TypeError, r"'edge_index' must be a tensor", {"edge_index": [[0], [1]]}),
        (TypeError, r"'edge_index' must be a dense int64", {"edge_index": PATH.float()}),
        (ValueError, r"'edge_index' must have shape", {"edge_index": PATH.t()}),
        (ValueError, r"must not hold negative indices", {"edge_index": PATH - 1}),
        (TypeError, r"'node_weight' must be a dense tensor", {"node_weight": [1, 1, 1, 1]}),
        (TypeError, r"1 \+ w \* mask", {"node_weight": torch.ones(4, dtype=torch.bool)}),
        (ValueError, r"'node_weight' must have shape \[4\] \(got \[8\]\)", {"node_weight": torch.ones(8)}),
        (ValueError, r"'node_weight' must have shape \[4\] \(got \[4, 1\]\)", {"node_weight": torch.ones(4, 1)}),
        (ValueError, r"'node_weight' must be finite", {"node_weight": torch.tensor([1, 1, -1, 1])}),
        (ValueError, r"'node_weight' must be finite", {"node_weight": torch.tensor([1, 1, float("nan"), 1])}),
        (ValueError, r"'node_weight' must be finite", {"node_weight": torch.tensor([1, 1, float("inf"), 1])}),
        (ValueError, r"'node_weight' must be finite.*all zero", {"node_weight": torch.zeros(4)}),
    ],
)
def test_bad_input(error, match, kwargs):
    with pytest.raises(error, match=match):
        partition_graph(**{"edge_index": PATH, "num_parts": 2, **kwargs})
