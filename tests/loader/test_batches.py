import warnings

import pytest
import torch
from models import MODELS
from resuming import assert_same_result
from torch_geometric.data import Data
from torch_geometric.transforms import GCNNorm

from graphsparse.loader import make_loader
from graphsparse.loader.batches import (
    Batches,
    FullBatch,
    check_graph,
    cut_out,
    shuffled_groups,
    train_nodes,
)
from graphsparse.loader.in_graph import InGraph
from graphsparse.testing import random_graph
from graphsparse.training import build_model, fit


def changed(**more):
    data = GCNNorm()(random_graph())
    for key, value in more.items():
        data[key] = value
    return data


def test_a_batch_is_the_subgraph_of_pyg():
    data = random_graph()
    data.edge_attr = torch.rand(data.num_edges, 2)
    data.name, data.scale = "graph", torch.tensor(3.0)
    nodes = torch.tensor([4, 7, 9, 20, 21, 50])
    graph = InGraph(data.edge_index, 60)
    edge_index, place = graph.between(nodes)
    ours, theirs = cut_out(data, nodes, edge_index, graph.edge_id(place)), data.subgraph(nodes)
    for key in ("x", "y", "train_mask", "val_mask", "test_mask", "scale"):
        assert torch.equal(ours[key], theirs[key]), key
    assert ours.name == "graph"
    assert torch.equal(ours.n_id, nodes)
    assert torch.equal(nodes[ours.edge_index], data.edge_index[:, ours.e_id])
    assert torch.equal(ours.edge_attr, data.edge_attr[ours.e_id])
    order = lambda edges: edges[0].mul(10).add(edges[1]).argsort()  # noqa: E731
    assert torch.equal(ours.edge_index[:, order(ours.edge_index)], theirs.edge_index[:, order(theirs.edge_index)])
    assert data.edge_index.size(1) == data.edge_attr.size(0)
    assert "n_id" not in data


def test_the_number_of_nodes_may_be_given_and_lists_are_cut():
    data = Data(edge_index=torch.tensor([[0, 1], [1, 0]]), num_nodes=3, names=["a", "b", "c"])
    batch = cut_out(data, torch.tensor([2, 0]), torch.empty(2, 0, dtype=torch.int64), torch.empty(0, dtype=torch.int64))
    assert batch.num_nodes == 2
    assert batch.names == ["c", "a"]
    assert data.num_nodes == 3


def test_as_many_edges_as_nodes():
    data = Data(x=torch.arange(2.0)[:, None], edge_index=torch.tensor([[0, 1], [1, 1]]), edge_weight=torch.rand(2))
    batch = cut_out(data, torch.tensor([1]), torch.tensor([[0], [0]]), torch.tensor([1]))
    assert torch.equal(batch.edge_weight, data.edge_weight[1:])
    assert torch.equal(batch.x, data.x[1:])


@pytest.mark.parametrize(
    "make", [torch.Tensor.clone, torch.Tensor.numpy, lambda t: tuple(t.tolist()), torch.Tensor.tolist]
)
def test_what_belongs_to_nodes_and_edges_keeps_its_type(make):
    data = random_graph()
    data.weight_of_node, data.edge_note = make(torch.arange(60)), make(torch.arange(data.num_edges))
    batch = next(iter(make_loader("random_node", data, seed=0)))
    for key, index in (("weight_of_node", batch.n_id), ("edge_note", batch.e_id)):
        assert type(batch[key]) is type(data[key])
        assert list(batch[key]) == index.tolist()


PAIRS = torch.tensor([[1, 5], [7, 59]])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("edge_label_index", PAIRS),
        ("neg_edge_index", random_graph().edge_index.flip(0)),
        ("parent_index", torch.arange(60).flip(0)),
        ("face", torch.randint(60, (3, 60))),
        ("train_idx", PAIRS[0]),
        ("split_edge", {"train": {"edge": PAIRS}}),
        ("split_idx", {"train": PAIRS[0].numpy()}),
        ("paths", [PAIRS[0], (PAIRS[1],)]),
    ],
)
@pytest.mark.parametrize("sampler", ["cluster", "neighbor", "fastgcn"])
def test_node_numbers_of_the_whole_graph_are_in_no_batch(key, value, sampler):
    data = changed(**{key: value})
    with pytest.warns(UserWarning, match=f"'{key}' is in no batch"):
        loader = make_loader(sampler, data, seed=0, **({"num_parts": 6} if sampler == "cluster" else {}))
    batch = next(iter(loader))
    assert key not in batch
    assert data[key] is value
    plain = next(iter(make_loader(sampler, changed(), seed=0, **({"num_parts": 6} if sampler == "cluster" else {}))))
    assert torch.equal(batch.x, plain.x)
    assert list(make_loader("full", data, seed=0)) == [data]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("y", torch.arange(12), "'y' has as many entries, 12, as there are edges"),
        ("names", list("abcdefghijkl"), "'names' has as many entries, 12, as there are edges"),
        ("class_names", tuple("abcdefg"), "'class_names' has as many entries, 7, as there are nodes"),
        ("edge_feature_names", list("abcdefg"), "'edge_feature_names' has as many entries, 7, as there are nodes"),
        ("counts", torch.arange(3), "'counts' is the same in every batch"),
        ("edge_label", torch.ones(12), None),
        ("edge_label", torch.ones(7), None),
        ("meta", {"name": "tree", "sizes": (7, 12)}, None),
    ],
)
def test_what_belongs_to_neither_is_the_same_in_every_batch(key, value, message):
    path = torch.stack([torch.arange(6), torch.arange(6) + 1])
    data = Data(x=torch.ones(7, 1), edge_index=torch.cat([path, path.flip(0)], dim=1))
    data[key] = value
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loader = make_loader("random_node", data, seed=0, num_parts=2)
    assert [message in str(warning.message) for warning in caught] == [True] * (message is not None)
    assert all(batch[key] is value for batch in loader)


def test_isolated_nodes_of_a_graph_that_only_edges_describe():
    with pytest.warns(UserWarning, match="Unable to accurately infer"):  # PyG's
        loader = make_loader("random_node", Data(edge_index=torch.tensor([[0, 5], [5, 0]])), seed=0, num_parts=2)
    assert [batch.num_nodes for batch in loader] == [3, 3]


def test_without_edges_nothing_is_known_of_them():
    batch = cut_out(changed(), torch.tensor([1, 2]))
    assert batch.edge_index is None
    assert "edge_weight" not in batch
    assert "e_id" not in batch


def test_training_nodes_in_random_groups():
    data = random_graph()
    assert train_nodes(data).tolist() == data.train_mask.nonzero().flatten().tolist()
    groups = list(shuffled_groups(torch.arange(7), 3, torch.Generator().manual_seed(0)))
    assert [len(group) for group in groups] == [3, 3, 1]
    assert sorted(torch.cat(groups).tolist()) == list(range(7)) != torch.cat(groups).tolist()


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (3, TypeError, "'data' must be a torch_geometric Data (got int)"),
        (Data(x=torch.ones(2, 1)), ValueError, "'data' must hold 'edge_index' to be cut into batches (got ['x'])"),
        (changed(edge_index=torch.tensor([[0], [60]])), ValueError, "'data.edge_index' holds the index 60"),
        (Data(edge_index=torch.empty(2, 0, dtype=torch.int64), num_nodes=0), ValueError, "it has no nodes"),
        (changed(x=torch.eye(60).to_sparse_csr()), TypeError, "'data.x' must be dense"),
        (changed(train_mask=None), ValueError, "'data.train_mask' must be a bool mask [60] (got NoneType)"),
        (changed(train_mask=torch.zeros(60).bool()), ValueError, "'data.train_mask' marks no node"),
        (random_graph(), ValueError, r"data = T.GCNNorm()(data), and take layers that do not normalise again"),
        (random_graph(), ValueError, r"GCN(..., normalize=False)"),
        (changed(edge_weight=torch.ones(3)), ValueError, "'data.edge_weight' must hold a float for each edge"),
        (changed(edge_weight=changed().edge_weight * -1), ValueError, "'data.edge_weight' must be finite and not"),
        (changed(edge_weight=changed().edge_weight / 0), ValueError, "'data.edge_weight' must be finite and not"),
    ],
)
def test_bad_graphs(data, error, message):
    with pytest.raises(error) as found:
        check_graph(data, train=True, weights=True)
    assert message in str(found.value)


def test_a_good_graph():
    check_graph(changed(), train=True, weights=True)


def test_a_loader_needs_a_seed():
    class Empty(Batches):
        def __iter__(self):
            return iter(())

        def __len__(self):
            return 0

    assert isinstance(Empty(random_graph(), 3).generator, torch.Generator)
    with pytest.raises(ValueError, match="'seed'"):
        Empty(random_graph(), -1)
    with pytest.raises(TypeError, match="'seed'"):
        Empty(random_graph(), None)


def test_a_full_batch_is_training_on_the_graph():
    data = random_graph()
    loader = FullBatch(data, seed=3)
    assert len(loader) == len(list(loader)) == len(list(loader)) == 1
    with_loader, without = (
        fit(build_model(MODELS["GCN"], 0), data, epochs=5, loader=given) for given in (loader, None)
    )
    assert_same_result(with_loader, without)


def test_a_full_batch_wants_a_graph():
    with pytest.raises(TypeError, match="'data' must be a torch_geometric Data"):
        FullBatch([random_graph()])
