import pytest
import torch
from torch_geometric import EdgeIndex
from torch_geometric.data import Data

from graphsparse.soups.store.stored_graph import graph_digests, read_graph, training_graph, write_graph
from graphsparse.testing import random_graph
from graphsparse.typing import has_module


def test_nothing_of_the_test_part_is_left():
    data = random_graph()
    data.test_labels = data.y[data.test_mask]
    graph = training_graph(data)
    assert sorted(graph.keys()) == ["edge_index", "train_mask", "val_mask", "x", "y"]
    seen = data.train_mask | data.val_mask
    assert torch.equal(graph.y[seen], data.y[seen])
    assert (graph.y[~seen] == -1).all()
    assert (data.y >= 0).all()
    assert graph.x.data_ptr() == data.x.data_ptr()


def test_test_labels_do_not_change_anything():
    data, other = random_graph(), random_graph()
    other.y[other.test_mask] = 0
    other.test_mask = ~other.test_mask
    assert graph_digests(training_graph(data)) == graph_digests(training_graph(other))


@pytest.mark.parametrize("key", ["x", "edge_index", "y", "train_mask", "val_mask"])
def test_each_tensor_has_its_digest(key):
    first, second = training_graph(random_graph()), training_graph(random_graph())
    second[key] = second[key].roll(1, 0)
    changed = {k for k, v in graph_digests(first).items() if graph_digests(second)[k] != v}
    assert changed == {f"data.{key}"}


def assert_same(graph, found):
    assert list(graph.keys()) == list(found.keys())
    assert graph_digests(graph) == graph_digests(found)


def test_comes_back_mapped(tmp_path):
    graph = training_graph(random_graph())
    graph.edge_index = graph.edge_index.flip(0)[:, ::2]  # not contiguous
    write_graph(graph, tmp_path / "graph.pt")
    found = read_graph(tmp_path / "graph.pt")
    assert_same(graph, found)
    assert [path.name for path in tmp_path.iterdir()] == ["graph.pt"]
    found.x[0] = 7  # a map of its own: the file stays
    assert_same(graph, read_graph(tmp_path / "graph.pt"))


def test_plain_tensors_in_place_of_their_classes(tmp_path):
    data = random_graph()
    data.edge_index = EdgeIndex(data.edge_index, sparse_size=(60, 60))
    graph = training_graph(data)
    assert type(graph.edge_index) is torch.Tensor
    write_graph(graph, tmp_path / "graph.pt")
    assert_same(training_graph(random_graph()), read_graph(tmp_path / "graph.pt"))


def matrices():
    yield "coo", lambda a: a.to_sparse()
    yield "csr", lambda a: a.to_sparse_csr()
    if has_module("torch_sparse"):
        from torch_sparse import SparseTensor

        yield "torch_sparse", SparseTensor.from_dense


@pytest.mark.parametrize(("name", "make"), [pytest.param(*entry, id=entry[0]) for entry in matrices()])
def test_matrices_come_back(tmp_path, name, make, request):
    if name == "torch_sparse" and request.config.getoption("--without-extensions"):
        pytest.skip("blocked")
    dense = (torch.rand(60, 60) < 0.1) * torch.rand(60, 60)
    data = random_graph()
    graph = Data(x=data.x, adj_t=make(dense), y=data.y, train_mask=data.train_mask, val_mask=data.val_mask)
    write_graph(training_graph(graph), tmp_path / "graph.pt")
    found = read_graph(tmp_path / "graph.pt")
    assert type(found.adj_t) is type(graph.adj_t)
    assert torch.equal(found.adj_t.to_dense(), dense)
    assert graph_digests(found) == graph_digests(training_graph(graph))


def test_a_flipped_bit_is_noticed(tmp_path):
    graph = training_graph(random_graph())
    digests = graph_digests(graph)
    write_graph(graph, tmp_path / "graph.pt")
    assert_same(graph, read_graph(tmp_path / "graph.pt", digests))
    graph.x.view(torch.int32)[3, 2] ^= 1
    write_graph(graph, tmp_path / "graph.pt")
    with pytest.raises(ValueError, match="graph.pt' cannot be read: .* it is the graph of a store: delete it"):
        read_graph(tmp_path / "graph.pt", digests)


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "graph.pt").write_bytes(b"no graph")
    with pytest.raises(ValueError, match="graph.pt' cannot be read"):
        read_graph(tmp_path / "graph.pt")


def test_indices_beyond_the_graph_are_refused(tmp_path):
    """Products would read memory that is not theirs, and digests do not tell: who edits a store can edit both files."""
    path, graph = tmp_path / "graph.pt", training_graph(random_graph())
    for edges in (graph.edge_index + 60, graph.edge_index - 60):
        torch.save({**{key: graph[key] for key in ("x", "y")}, "edge_index": edges}, path)
        with pytest.raises(ValueError, match="graph.pt' cannot be read: 'edge_index'"):
            read_graph(path)
    good = graph.x.t().to_sparse_csr()
    parts = [good.crow_indices(), good.col_indices() + 60, good.values()]
    torch.save({"adj_t": torch.sparse_csr_tensor(*parts, good.shape, check_invariants=False)}, path)
    with pytest.raises(ValueError, match="graph.pt' cannot be read"):
        read_graph(path)
    torch.save({"adj_t": {"parts": parts, "sizes": list(good.shape)}}, path)
    with pytest.raises(ValueError, match="graph.pt' cannot be read"):
        read_graph(path)
