import copy
import pickle
import warnings
from collections import OrderedDict, namedtuple

import networkx as nx
import numpy as np
import pytest
import torch
import torch_geometric.transforms as T
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch_geometric import EdgeIndex
from torch_geometric.data import Batch, Data, HeteroData
from torch_geometric.loader import NeighborLoader
from torch_geometric.nn import GCN, GraphSAGE
from torch_geometric.transforms import ToSparseTensor

from graphsparse.testing import assert_undirected, random_graph
from graphsparse.transforms import ReorderNodes
from graphsparse.typing import has_module
from graphsparse.utils import partition_graph

METHODS = [ReorderNodes("metis"), ReorderNodes("rcm")]
each_method = pytest.mark.parametrize("transform", METHODS, ids=["metis", "rcm"])
needs_torch_sparse = pytest.mark.skipif(not has_module("torch_sparse"), reason="needs torch-sparse")


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Several parts in small graphs, so that they are put in another order."""
    monkeypatch.setattr("graphsparse.transforms.reorder_nodes._PART", 9)


def named_graph():
    """A directed graph whose attributes name the node or the edge that they belong to."""
    generator = torch.Generator().manual_seed(3)
    data = random_graph()
    edge_index = data.edge_index[:, torch.randperm(data.num_edges, generator=generator)[:150]]
    u, v = data.edge_index = torch.cat([edge_index, edge_index[:, :5], torch.tensor([[4, 4], [4, 4]])], dim=1)
    nodes = torch.arange(60)
    data.id_float, data.id_list, data.id_tuple = nodes.float(), [f"n{i}" for i in range(60)], tuple(range(60))
    data.edges_of_node = [f"n{i}" for i in range(60)]
    data.id_numpy, data.id_matrix = np.arange(60), nodes.view(60, 1).repeat(1, 3)
    data.parent_index = (nodes + 1) % 60
    data.train_index = torch.tensor([5, 0, 59])
    data.padded_index = torch.tensor([[3, -1], [7, 8]])
    data.numpy_index = np.array([1, 2])
    data.edge_weight, data.edge_attr = (u * 1000 + v).float(), torch.stack([u, v], dim=1)
    data.edge_name, data.edge_time = (
        [f"{a}-{b}" for a, b in zip(u.tolist(), v.tolist(), strict=True)],
        torch.arange(157),
    )
    data.edge_label_index, data.edge_label = torch.stack([nodes, nodes.flip(0)]), nodes.float()
    data.title, data.num_classes, data.global_feature = "stays", 3, torch.arange(4.0)
    return data


def same(a, b):
    if isinstance(a, torch.Tensor):
        if a.layout != torch.strided:
            a, b = (t.to_dense() for t in (a, b))
        return torch.equal(a, b)
    return np.array_equal(a, b) if isinstance(a, np.ndarray) else type(a) is type(b) and a == b


def assert_same_graph(a, b):
    assert set(a.to_dict()) == set(b.to_dict())
    assert [key for key, value in a.to_dict().items() if not same(value, b[key])] == []


def by_destination_order(edge_index):
    u, v = edge_index.tolist()
    return torch.tensor(sorted(range(len(u)), key=lambda e: (v[e], u[e])))


def by_destination(data):
    """The same graph with its edges sorted by destination, then source; equal ones stay in order."""
    order = by_destination_order(data.edge_index)
    out = copy.copy(data)
    for key in ("edge_index", "edge_weight", "edge_attr", "edge_time"):
        out[key] = data[key].index_select(1 if key == "edge_index" else 0, order)
    out.edge_name = [data.edge_name[e] for e in order.tolist()]
    return out


@each_method
def test_everything_follows(transform):
    data = named_graph()
    out = transform(data)
    order = out.n_id
    assert sorted(order.tolist()) == list(range(60))
    assert order.tolist() != list(range(60))
    for key in ("x", "y", "train_mask", "val_mask", "test_mask", "id_float", "id_matrix"):
        assert torch.equal(out[key], data[key][order]), key
    assert out.id_list == out.edges_of_node == [f"n{i}" for i in order.tolist()]
    assert out.id_tuple == tuple(order.tolist())
    assert np.array_equal(out.id_numpy, order.numpy())
    assert torch.equal(order[out.parent_index], (order + 1) % 60)
    assert order[out.train_index].tolist() == [5, 0, 59]
    assert order[torch.from_numpy(out.numpy_index)].tolist() == [1, 2]
    assert out.padded_index[0, 1] == -1
    assert order[out.padded_index[[0, 1, 1], [0, 0, 1]]].tolist() == [3, 7, 8]
    u, v = order[out.edge_index]
    assert torch.equal(out.edge_attr, torch.stack([u, v], dim=1))
    assert torch.equal(out.edge_weight, (u * 1000 + v).float())
    assert out.edge_name == [f"{a}-{b}" for a, b in zip(u.tolist(), v.tolist(), strict=True)]
    assert sorted(zip(*data.edge_index.tolist(), strict=True)) == sorted(zip(u.tolist(), v.tolist(), strict=True))
    assert torch.equal(order[out.edge_label_index], data.edge_label_index)
    assert torch.equal(out.edge_label, data.edge_label)
    assert (out.title, out.num_classes) == ("stays", 3)
    assert torch.equal(out.global_feature, data.global_feature)
    src, dst = out.edge_index.tolist()
    assert list(zip(dst, src, strict=True)) == sorted(zip(dst, src, strict=True))
    out.validate()


@each_method
def test_undoing_gives_the_same_graph(transform):
    data = named_graph()
    assert_same_graph(ReorderNodes.inverse(transform(data)), by_destination(data))
    twice = ReorderNodes("rcm")(transform(data))
    assert_same_graph(ReorderNodes.inverse(twice), by_destination(data))


@each_method
def test_input_is_not_changed(transform):
    data = named_graph()
    before = copy.deepcopy(data)
    out = transform(data)
    assert_same_graph(data, before)
    kept = copy.deepcopy(out)
    ReorderNodes.inverse(out)
    assert_same_graph(out, kept)


def test_old_numbers_compose():
    data = named_graph()
    once = ReorderNodes("metis")(data)
    twice = ReorderNodes("rcm")(once)
    assert torch.equal(twice.x, data.x[twice.n_id])
    assert torch.equal(twice.edge_attr, twice.n_id[twice.edge_index].t())
    part = random_graph().subgraph(torch.arange(10, 40))
    part.n_id = torch.arange(10, 40)
    out = ReorderNodes("rcm")(part)
    assert torch.equal(out.x, data.x[out.n_id])
    back = ReorderNodes.inverse(out)
    assert torch.equal(back.n_id, part.n_id)
    assert torch.equal(back.x, part.x)


@st.composite
def graphs(draw):
    num_nodes = draw(st.integers(1, 20))
    node = st.integers(0, num_nodes - 1)
    pairs = draw(st.lists(st.tuples(node, node), max_size=40))
    edge_index = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).t().contiguous()
    return Data(edge_index=edge_index, x=torch.arange(float(num_nodes)).view(-1, 1), num_nodes=num_nodes)


@given(graphs(), st.sampled_from(METHODS))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_laws_on_any_graph(data, transform):
    out = transform(data)
    assert sorted(out.n_id.tolist()) == list(range(data.num_nodes))
    assert torch.equal(out.x[:, 0].long(), out.n_id)
    edges = [tuple(e) for e in data.edge_index.t().tolist()]
    new = [tuple(e) for e in out.n_id[out.edge_index].t().tolist()]
    assert sorted(new) == sorted(edges)
    prediction = torch.empty_like(out.x)
    prediction[out.n_id] = out.x
    assert torch.equal(prediction, data.x)
    back = ReorderNodes.inverse(out)
    assert [tuple(e) for e in back.edge_index.t().tolist()] == sorted(edges, key=lambda e: (e[1], e[0]))
    assert_same_graph(Data(x=back.x), Data(x=data.x))


def bandwidth(edge_index):
    return int((edge_index[0] - edge_index[1]).abs().max())


def shuffled(graph, seed=0):
    edge_index = torch.tensor(list(graph.edges)).t()
    new = torch.randperm(len(graph), generator=torch.Generator().manual_seed(seed))
    edge_index = new[torch.cat([edge_index, edge_index.flip(0)], dim=1)]
    return Data(edge_index=edge_index, num_nodes=len(graph))


def test_orders_do_what_they_promise():
    grid = shuffled(nx.convert_node_labels_to_integers(nx.grid_2d_graph(8, 60)))
    assert bandwidth(grid.edge_index) > 300
    assert bandwidth(ReorderNodes("rcm")(grid).edge_index) <= 12  # 8 is the best there is
    distance = [(g.edge_index[0] - g.edge_index[1]).abs().float().mean() for g in (grid, ReorderNodes("metis")(grid))]
    assert distance[1] < 0.3 * distance[0]


def test_parts_of_256_nodes_lie_in_one_piece_in_old_order(monkeypatch):
    monkeypatch.undo()
    data = random_graph(1100)
    out = ReorderNodes("metis", seed=4)(data)
    part = partition_graph(data.edge_index, 4, 1100, seed=4)[out.n_id]
    assert torch.equal(part, part.sort().values)
    assert all(bool((out.n_id[part == p].diff() > 0).all()) for p in range(4))


@each_method
@pytest.mark.parametrize("sort_order", ["row", "col", None])
def test_edge_index_class_stays_valid(transform, sort_order):
    data = random_graph()
    plain = data.edge_index
    if sort_order is not None:
        major, minor = plain if sort_order == "row" else plain.flip(0)
        plain = plain[:, torch.argsort(major * 60 + minor)]
    data.edge_index = EdgeIndex(plain.contiguous(), sparse_size=(60, 60), sort_order=sort_order, is_undirected=True)
    data.edge_weight = (plain[0] * 1000 + plain[1]).float()
    out = transform(data)
    assert isinstance(out.edge_index, EdgeIndex)
    assert out.edge_index.sort_order == (sort_order or "col")
    assert out.edge_index.is_undirected
    out.edge_index.validate()
    u, v = out.n_id[out.edge_index.as_tensor()]
    assert torch.equal(out.edge_weight, (u * 1000 + v).float())
    assert_undirected(out.edge_index.as_tensor())
    back = ReorderNodes.inverse(out)
    back.edge_index.validate()
    order = by_destination_order(plain) if sort_order != "row" else torch.arange(plain.size(1))
    assert torch.equal(back.edge_index.as_tensor(), plain[:, order])
    assert torch.equal(back.edge_weight, data.edge_weight[order])


def test_edge_index_class_that_knows_fewer_nodes():
    edge_index = EdgeIndex(torch.tensor([[0, 0], [1, 2]]), sparse_size=(3, 3), sort_order="row")
    out = ReorderNodes("rcm")(Data(edge_index=edge_index, x=torch.ones(6, 1)))
    out.edge_index.validate()
    assert out.edge_index.sparse_size() == (6, 6)


@each_method
def test_torch_csr_follows(transform):
    data = random_graph()
    data.edge_weight = torch.rand(data.num_edges, generator=torch.Generator().manual_seed(0))
    data.edge_name = data.edge_index.t().clone()
    sparse = ToSparseTensor(attr="edge_weight", layout=torch.sparse_csr)(data.clone())
    assert "edge_index" not in sparse
    out = transform(sparse)
    dense = sparse.adj_t.to_dense()
    assert out.adj_t.layout == torch.sparse_csr
    assert torch.equal(out.adj_t.to_dense(), dense[out.n_id][:, out.n_id])
    assert torch.equal(out.n_id, transform(data).n_id)
    torch.sparse_csr_tensor(
        out.adj_t.crow_indices(), out.adj_t.col_indices(), out.adj_t.values(), (60, 60), check_invariants=True
    )
    dst, src = out.adj_t.to_sparse_coo().indices()
    assert torch.equal(out.edge_name, out.n_id[torch.stack([src, dst])].t())
    back = ReorderNodes.inverse(out)
    for part in ("crow_indices", "col_indices", "values"):
        assert torch.equal(getattr(back.adj_t, part)(), getattr(sparse.adj_t, part)())
    assert torch.equal(back.edge_name, sparse.edge_name)
    assert "n_id" not in back


@pytest.mark.parametrize("to", ["to_sparse_coo", "to_sparse_csc"])
def test_other_sparse_matrices_follow(to):
    data = random_graph()
    data.edge_weight = torch.rand(data.num_edges)
    sparse = ToSparseTensor(layout=torch.sparse_csr)(data)
    dense = sparse.adj_t.to_dense()
    sparse.adj_t = getattr(sparse.adj_t, to)()
    out = ReorderNodes("rcm")(sparse)
    assert out.adj_t.layout == sparse.adj_t.layout
    assert torch.equal(out.adj_t.to_dense(), dense[out.n_id][:, out.n_id])
    assert torch.equal(ReorderNodes.inverse(out).adj_t.to_dense(), dense)


@needs_torch_sparse
@pytest.mark.parametrize("attr", ["edge_weight", None])
@each_method
def test_sparse_tensor_follows(transform, attr):
    data = random_graph()
    data.edge_weight = torch.rand(data.num_edges, generator=torch.Generator().manual_seed(0))
    sparse = ToSparseTensor(attr=attr, layout=None)(data.clone())
    out = transform(sparse)
    assert torch.equal(out.n_id, transform(data).n_id)
    assert torch.equal(out.adj_t.to_dense(), sparse.adj_t.to_dense()[out.n_id][:, out.n_id])
    assert out.adj_t.has_value() == (attr is not None)
    row, col, _ = out.adj_t.coo()
    assert bool((row * 60 + col).diff().gt(0).all())
    assert torch.equal(ReorderNodes.inverse(out).adj_t.to_dense(), sparse.adj_t.to_dense())


def test_matrix_and_edge_index_together():
    data = random_graph(20)
    data.adj_t = torch.rand(20, 20).to_sparse_csr()
    both = ReorderNodes("rcm")(data)
    assert torch.equal(both.adj_t.to_dense(), data.adj_t.to_dense()[both.n_id][:, both.n_id])
    assert torch.equal(both.edge_index, ReorderNodes("rcm")(random_graph(20)).edge_index)


@pytest.mark.parametrize("layout", ["csr", pytest.param("SparseTensor", marks=needs_torch_sparse)])
def test_sparse_features_follow(layout):
    data = random_graph()
    dense = data.x * (data.x > 0.5)
    dense[3] = 0
    if layout == "SparseTensor":
        from torch_sparse import SparseTensor

        data.x = SparseTensor.from_dense(dense)
        last = data.edge_index.max()  # a node without edges: nothing but x tells that it is there
        data.edge_index = data.edge_index[:, (data.edge_index != last).all(0)]
    else:
        data.x = dense.to_sparse_csr()
    out = ReorderNodes("rcm")(data)
    assert type(out.x) is type(data.x)
    assert getattr(out.x, "layout", "") == getattr(data.x, "layout", "")
    assert torch.equal(out.x.to_dense(), dense[out.n_id])
    assert torch.equal(ReorderNodes.inverse(out).x.to_dense(), dense)


def test_as_many_edges_as_nodes():
    cycle = torch.stack([torch.arange(6), (torch.arange(6) + 1) % 6])
    u, v = edge_index = torch.cat([cycle[:, :5], torch.tensor([[0], [3]])], dim=1)
    names = [f"{a}-{b}" for a, b in edge_index.t().tolist()]
    data = Data(x=torch.arange(6.0).view(6, 1), edge_index=edge_index, edge_weight=(10 * u + v), edge_name=names)
    data.y, data.names = torch.arange(6), list(range(6))
    data.e_id = torch.arange(6)
    out = ReorderNodes("rcm")(data)
    assert torch.equal(out.edge_weight, data.edge_weight[out.e_id])
    back = ReorderNodes.inverse(out)
    assert torch.equal(back.edge_index, edge_index[:, back.e_id])
    assert torch.equal(out.y, out.n_id)
    assert out.names == out.n_id.tolist()
    u, v = out.n_id[out.edge_index]
    assert torch.equal(out.edge_weight, 10 * u + v)
    assert out.edge_name == [f"{a}-{b}" for a, b in zip(u.tolist(), v.tolist(), strict=True)]


def with_links():
    """A graph with OGB's dictionary of links; those to train on are its edges."""
    data = random_graph()
    links = data.edge_index[:, data.edge_index[0] < data.edge_index[1]].t().contiguous()
    other = torch.randint(60, (9, 2), generator=torch.Generator().manual_seed(0))
    data.split_edge = {
        "train": {"edge": links, "weight": torch.ones(len(links)), "year": torch.arange(len(links))},
        "valid": {"edge": links[:5], "edge_neg": other},
        "test": {"source_node": other[:, 0], "target_node": other[:, 1], "target_node_neg": other[:4].numpy()},
    }
    return data


@each_method
def test_links_in_dictionaries_stay_the_edges_they_were(transform):
    data = with_links()
    out = transform(data)
    assert_undirected(out.edge_index)
    edges = set(map(tuple, out.edge_index.t().tolist()))
    assert all(tuple(link) in edges for link in out.split_edge["train"]["edge"].tolist())
    for part, files in data.split_edge.items():
        for name, old in files.items():
            new, old = torch.as_tensor(out.split_edge[part][name]), torch.as_tensor(old)
            assert torch.equal(new if name in ("weight", "year") else out.n_id[new], old), name
    assert isinstance(out.split_edge["test"]["target_node_neg"], np.ndarray)
    back = ReorderNodes.inverse(out)
    assert torch.equal(back.split_edge["train"]["edge"], data.split_edge["train"]["edge"])


Pair = namedtuple("Pair", "first second")
NODES = torch.tensor([1, 5, 59])


@pytest.mark.parametrize(
    "value",
    [
        [NODES, NODES + 0],
        (NODES, torch.ones(2)),
        Pair(NODES, NODES.numpy()),
        [[NODES], [NODES, NODES.view(3, 1)]],
        {"train_index": NODES, "weight": torch.ones(3)},
        OrderedDict(a={"root_index": 5}),
        7,
        NODES[0],
    ],
)
def test_node_numbers_by_the_rule_of_pyg(value):
    """Names with 'index' in them: that of a list, the inner one in a dictionary, as PyG joins graphs."""
    data = random_graph()
    data.some_index = value
    out = ReorderNodes("rcm")(data)
    back = ReorderNodes.inverse(out)
    assert type(out.some_index) is type(value)
    assert repr(back.some_index) == repr(value)
    assert repr(out.some_index) != repr(value)
    shifted = Batch.from_data_list([data, data])  # PyG's own word: what it moves by the number of nodes is one
    if isinstance(value, torch.Tensor) and value.dim() > 0:
        assert torch.equal(shifted.some_index[len(value) :], value + 60)


def test_node_numbers_that_a_class_of_the_user_declares():
    class Anchored(Data):
        def __inc__(self, key, value, *args, **kwargs):
            return self.num_nodes if key == "anchors" else super().__inc__(key, value, *args, **kwargs)

    data = Anchored(**random_graph().to_dict(), anchors=[NODES])
    out = ReorderNodes("rcm")(data)
    assert torch.equal(out.n_id[out.anchors[0]], NODES)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train_idx", NODES),
        ("split_idx", {"train": NODES, "valid": NODES, "test": NODES}),
        ("split_edge", {"train": {"pairs": NODES}}),
        ("paths", [NODES, NODES]),
        ("paths", (NODES.numpy(), 1.0)),
        ("folds", [{"train": NODES}]),
        ("train_nodes", [1, 5, 59]),
        ("train_nodes", {1, 5, 59}),
        ("seeds", NODES.int()),
        ("pos_edges", NODES.view(3, 1)),
        ("nearest_idx", torch.arange(60)),
        ("ptr", torch.tensor([0, 30, 60])),
    ],
)
def test_what_may_be_node_numbers_is_refused_by_name(key, value):
    data = random_graph()
    data[key] = value
    with pytest.raises(ValueError, match=f"'{key}' may hold node numbers"):
        ReorderNodes("rcm")(data)


def test_other_attributes_stay_and_doubtful_ones_are_named():
    data = random_graph()
    data.names, data.scale, data.flags = {"a": "b", "sizes": (3, 4)}, [torch.ones(3)], {"m": torch.ones(3).bool()}
    data.edge_label, data.kept_classes = torch.arange(7), torch.arange(3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        out = ReorderNodes("rcm")(data)
    for key in ("names", "scale", "flags", "edge_label", "kept_classes"):
        assert out[key] is data[key]
    data.queries = NODES
    with pytest.warns(UserWarning, match="'queries' is left as it is"):
        assert ReorderNodes("rcm")(data).queries is NODES
    data.train_index = torch.tensor([60])
    with pytest.raises(ValueError, match=r"'train_index' must hold node numbers below 60 \(got 60\)"):
        ReorderNodes("rcm")(data)


def test_isolated_nodes_and_no_edges():
    with pytest.warns(UserWarning, match="Unable to accurately infer 'num_nodes'"):  # PyG's
        out = ReorderNodes("rcm")(Data(edge_index=torch.tensor([[5, 5], [3, 3]])))
    assert out.num_nodes == 6
    assert sorted(out.n_id.tolist()) == list(range(6))
    for transform in METHODS:
        for num_nodes in (0, 5):
            empty = Data(edge_index=torch.empty(2, 0, dtype=torch.int64), x=torch.arange(float(num_nodes)).view(-1, 1))
            out = transform(empty)
            assert sorted(out.n_id.tolist()) == list(range(num_nodes))
            assert torch.equal(out.x[:, 0].long(), out.n_id)


@each_method
@pytest.mark.parametrize("make", [GCN, GraphSAGE], ids=["gcn", "sage"])
def test_models_say_the_same(make, transform):
    torch.manual_seed(0)
    data = random_graph()
    model = make(8, 16, 3, 3).eval()
    out = transform(data)
    with torch.no_grad():
        expected, got = model(data.x, data.edge_index), model(out.x, out.edge_index)
        back = torch.empty_like(got)
        back[out.n_id] = got
        torch.testing.assert_close(back, expected, rtol=1e-5, atol=1e-5)
        sparse = ToSparseTensor(layout=torch.sparse_csr)(data.clone())
        reordered = transform(sparse)
        back[reordered.n_id] = model(reordered.x, reordered.adj_t)
    torch.testing.assert_close(back, expected, rtol=1e-5, atol=1e-5)


@each_method
@pytest.mark.parametrize("make", [GCN, GraphSAGE], ids=["gcn", "sage"])
def test_real_graph(make, transform, data_root):
    from graphsparse.datasets import load

    torch.manual_seed(0)
    data = load("cora", data_root)
    out = transform(data)
    assert data.num_nodes == out.num_nodes
    assert torch.equal(out.y, data.y[out.n_id])
    model = make(data.num_features, 16, 2, data.num_classes).eval()
    with torch.no_grad():
        expected, got = model(data.x, data.edge_index), model(out.x, out.edge_index)
    back = torch.empty_like(got)
    back[out.n_id] = got
    torch.testing.assert_close(back, expected, rtol=1e-5, atol=1e-5)
    distance = [(g.edge_index[0] - g.edge_index[1]).abs().float().mean() for g in (data, out)]
    assert distance[1] < 0.75 * distance[0]
    back = ReorderNodes.inverse(out)
    assert torch.equal(back.edge_index, data.edge_index[:, by_destination_order(data.edge_index)])
    del back.edge_index, data.edge_index
    assert_same_graph(back, data)


@pytest.mark.skipif(not has_module("torch_sparse") and not has_module("pyg_lib"), reason="NeighborLoader needs one")
def test_batches_know_the_old_numbers():
    data = random_graph()
    out = ReorderNodes("metis")(data)
    edges = set(map(tuple, data.edge_index.t().tolist()))
    for batch in NeighborLoader(out, [-1], input_nodes=out.train_mask, batch_size=7):
        assert torch.equal(batch.x, data.x[batch.n_id])
        assert set(map(tuple, batch.n_id[batch.edge_index].t().tolist())) <= edges


def test_same_seed_same_order(monkeypatch):
    monkeypatch.setattr("graphsparse.transforms.reorder_nodes._PART", 80)
    data = random_graph(400)
    expected = ReorderNodes("metis", 5)(data)
    assert_same_graph(ReorderNodes("metis", 5)(data), expected)
    compose = pickle.loads(pickle.dumps(T.Compose([ReorderNodes("metis", seed=5)])))
    assert_same_graph(compose(data), expected)
    assert len({tuple(ReorderNodes("metis", seed)(data).n_id.tolist()) for seed in range(4)}) > 1


def test_repr_holds_every_argument():
    assert str(ReorderNodes()) == "ReorderNodes(method='metis', seed=0)"
    assert str(ReorderNodes("rcm", seed=1)) == "ReorderNodes(method='rcm', seed=1)"


def test_same_result_without_extensions(without_extensions):
    test_torch_csr_follows(METHODS[0])
    test_undoing_gives_the_same_graph(METHODS[0])


@pytest.mark.parametrize(
    ("error", "match", "args", "kwargs"),
    [
        (ValueError, r"'method' must be one of .*\(got 'mets'\)", ("mets",), {}),
        (ValueError, r"'method' must be one of .*\(got 4\)", (4,), {}),
        (TypeError, r"'seed' must be an integer \(got None", (), {"seed": None}),
        (ValueError, r"'seed' must be at least 0 \(got -1\)", (), {"seed": -1}),
    ],
)
def test_bad_arguments(error, match, args, kwargs):
    with pytest.raises(error, match=match):
        ReorderNodes(*args, **kwargs)


def test_bad_graphs():
    data, transform = random_graph(), ReorderNodes("rcm")
    with pytest.raises(TypeError, match=r"'data' must be a homogeneous Data \(got HeteroData\)"):
        transform(HeteroData())
    with pytest.raises(ValueError, match=r"'data' must be one graph \(got a Batch\)"):
        transform(Batch.from_data_list([data, data]))
    with pytest.raises(ValueError, match="'data' must hold 'edge_index' or 'adj_t'"):
        transform(Data(x=torch.ones(3, 1)))
    with pytest.raises(ValueError, match="'adj_t' must be a torch CSR"):
        transform(Data(adj_t=torch.eye(3), num_nodes=3))
    with pytest.raises(ValueError, match="'edge_weight' must have one entry for each of"):
        transform(Data(x=torch.ones(3, 1), edge_weight=torch.ones(3), edge_index=torch.tensor([[0], [1]])))
    csc = Data(adj_t=torch.eye(3).to_sparse_csc(), edge_type=torch.arange(3), num_nodes=3)
    with pytest.raises(ValueError, match="'edge_type' is in the order of rows or of columns of 'adj_t'"):
        transform(csc)
    with pytest.raises(ValueError, match="'x' must be dense or CSR"):
        transform(Data(x=torch.eye(3).to_sparse_csc(), edge_index=torch.tensor([[0], [1]])))
    with pytest.raises(ValueError, match="'n_id' must be an integer tensor of shape"):
        transform(Data(x=torch.ones(3, 1), n_id=torch.ones(3), edge_index=torch.tensor([[0], [1]])))
    with pytest.raises(ValueError, match="'data' must hold 'n_id'"):
        ReorderNodes.inverse(data)
    with pytest.raises(ValueError, match="'n_id' must name every node once"):
        ReorderNodes.inverse(Data(n_id=torch.zeros(3).long(), edge_index=torch.tensor([[0], [1]])))
