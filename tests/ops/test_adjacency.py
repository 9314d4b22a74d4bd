import copy
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sparse_reference import dense, edge_lists, of
from torch_geometric import EdgeIndex
from torch_geometric.data import Batch, Data, HeteroData

from graphsparse.ops import Adjacency, pattern
from graphsparse.testing import toy_edge_index


@given(edge_lists(bipartite=True), st.booleans())
def test_holds_the_edges_in_both_orders(graph, weighted):
    edge_index, size, generator = graph
    weight = torch.rand(edge_index.size(1), generator=generator) if weighted else None
    adj = Adjacency.from_edge_index(edge_index, weight, size)
    back, back_weight = adj.to_edge_index()
    assert torch.equal(back, edge_index)
    assert (back_weight is None) == (weight is None)
    row = adj.pattern.row().long()
    key = row * max(size[0], 1) + adj.col
    assert (key.diff() >= 0).all()
    if weighted:
        assert torch.equal(back_weight, weight)
        perm = torch.arange(len(weight)) if adj.pattern.perm is None else adj.pattern.perm
        assert torch.equal(adj.value, weight[perm.long()])
    matrix = torch.sparse_csr_tensor(
        adj.rowptr, adj.col, torch.ones(adj.num_edges), (size[1], size[0]), check_invariants=False
    )
    assert torch.equal(matrix.to_dense().double(), dense(edge_index, None, size))


@given(edge_lists(bipartite=True), st.data())
def test_select_equals_building_from_the_masked_edges(graph, data):
    edge_index, size, generator = graph
    weight = torch.rand(edge_index.size(1), generator=generator)
    mask = torch.rand(len(weight), generator=generator) < data.draw(st.sampled_from([0.0, 0.5, 1.0]))
    ours = Adjacency.from_edge_index(edge_index, weight, size).select(mask)
    built = Adjacency.from_edge_index(edge_index[:, mask], weight[mask], size)
    for name in ("rowptr", "col", "value"):
        assert torch.equal(getattr(ours, name), getattr(built, name)), name
    assert torch.equal(ours.to_edge_index()[0], edge_index[:, mask])
    again = ours.select(torch.ones(ours.num_edges, dtype=torch.bool))
    assert torch.equal(again.to_edge_index()[1], weight[mask])


@given(edge_lists(bipartite=True), st.booleans(), st.data())
def test_rows_equal_the_edges_into_them(graph, weighted, data):
    edge_index, size, generator = graph
    weight = torch.rand(edge_index.size(1), generator=generator) if weighted else None
    start = data.draw(st.integers(0, size[1]))
    stop = data.draw(st.integers(start, size[1]))
    block = Adjacency.from_edge_index(edge_index, weight, size).rows(start, stop)
    inside = (edge_index[1] >= start) & (edge_index[1] < stop)
    edges = edge_index[:, inside] - torch.tensor([[0], [start]])
    order = (edges[1] * 100 + edges[0]).argsort(stable=True)
    ours, ours_weight = block.to_edge_index()
    assert torch.equal(ours, edges[:, order])
    assert (ours_weight is None) if weight is None else torch.equal(ours_weight, weight[inside][order])
    assert (block.num_src, block.num_dst) == (size[0], stop - start)
    assert block.rowptr.tolist()[-1] == block.num_edges


def test_rows_need_no_sort_nor_copy_and_carry_gradients(monkeypatch):
    weight = torch.rand(10, dtype=torch.float64, requires_grad=True)
    adj = Adjacency.from_edge_index(toy_edge_index().flip(1), weight)
    for name in ("edge_order", "stable_order"):
        monkeypatch.setattr(pattern, name, None)
    blocks = [adj.rows(0, 2), adj.rows(2, 5)]
    assert [block.col.data_ptr() for block in blocks] == [adj.col[at:].data_ptr() for at in (0, blocks[0].num_edges)]
    assert all(block.pattern.perm is None for block in blocks)
    assert torch.equal(torch.cat([block.value for block in blocks]), adj.value)
    (grad,) = torch.autograd.grad(blocks[1].value.sum(), weight)
    assert torch.equal(grad, (adj.to_edge_index()[0][1] >= 2).double())


@given(edge_lists(bipartite=True), st.booleans())
def test_transpose(graph, weighted):
    edge_index, size, generator = graph
    weight = torch.rand(edge_index.size(1), generator=generator) if weighted else None
    adj = Adjacency.from_edge_index(edge_index, weight, size)
    turned = adj.t()
    assert torch.equal(of(turned), of(adj).t())
    assert adj.t() is turned
    assert turned.t() is adj
    if turned is not adj:
        assert torch.equal(turned.to_edge_index()[0], edge_index.flip(0))


@given(edge_lists(max_nodes=4), st.sampled_from(["directed", "mirrored", "values differ", "values mirrored"]))
def test_symmetry_is_found_exactly(graph, kind):
    edge_index, size, generator = graph
    weight = None
    if kind != "directed":
        edge_index = torch.cat([edge_index, edge_index.flip(0)], dim=1)
    if kind.startswith("values"):
        weight = torch.randint(1, 3, (edge_index.size(1),), generator=generator).float()
        if kind == "values mirrored":
            key = edge_index.amin(0) * 9 + edge_index.amax(0)  # a function of the pair
            weight = (key % 5).float()
    order = torch.randperm(edge_index.size(1), generator=generator)
    weight = None if weight is None else weight[order]
    adj = Adjacency.from_edge_index(edge_index[:, order], weight, size[0])
    expected = dense(edge_index[:, order], None, size)
    assert adj.pattern.is_symmetric() == torch.equal(expected, expected.t())
    if adj.is_symmetric:
        assert torch.equal(of(adj), of(adj).t())
        assert adj.t() is adj
    elif kind != "values differ":  # copies of an edge may differ in order and still add up to the same
        assert not torch.equal(of(adj), of(adj).t())
    if kind == "values mirrored":
        assert adj.is_symmetric


def test_asserted_symmetry_is_believed(monkeypatch):
    monkeypatch.setattr(pattern, "stable_order", None)
    adj = Adjacency.from_edge_index(toy_edge_index(), torch.ones(10), symmetric=True)
    assert adj.is_symmetric
    assert adj.t() is adj
    assert adj.gcn_norm().is_symmetric
    assert not Adjacency.from_edge_index(toy_edge_index(), symmetric=False).is_symmetric
    assert not Adjacency.from_edge_index(torch.tensor([[0, 0], [1, 2]])).is_symmetric  # the degrees tell


def test_what_is_constant_is_computed_once_and_what_is_learned_is_not():
    edge_index = torch.tensor([[2, 0, 1], [0, 1, 2]])
    adj = Adjacency.from_edge_index(edge_index)
    assert adj.gcn_norm() is adj.gcn_norm()
    assert adj.gcn_norm() is not adj.gcn_norm(dtype=torch.float64)
    weight = torch.rand(3, requires_grad=True)
    learned = adj.with_value(weight)
    assert learned.pattern is adj.pattern
    assert learned.pattern.perm is None
    for _ in range(2):  # a kept graph of gradients would fail the second time
        learned.gcn_norm().value.sum().backward()
        learned.t().value.sum().backward()
        learned.row_sum().sum().backward()
    with torch.no_grad():
        weight.fill_(3)
    torch.testing.assert_close(adj.with_value(weight).row_sum(), torch.full((3,), 3.0))


def test_values_do_not_change_with_the_callers_tensors():
    edge_index, weight = torch.tensor([[0, 1], [0, 1]]), torch.ones(2)
    adj = Adjacency.from_edge_index(edge_index, weight)
    edge_index.zero_()
    weight.zero_()
    assert of(adj).tolist() == [[1, 0], [0, 1]]


def test_what_inference_mode_has_kept_serves_in_training():
    adj = Adjacency.from_edge_index(torch.tensor([[0, 1, 2], [1, 2, 0]]))
    with torch.inference_mode():
        norm, turned = adj.gcn_norm(), adj.t()
    assert not norm.value.is_inference()
    assert not turned.col.is_inference()


@pytest.mark.parametrize("copies", [lambda a: pickle.loads(pickle.dumps(a)), copy.deepcopy])
def test_pickle_and_copy(copies):
    weight = torch.rand(10, requires_grad=True)
    adj = Adjacency.from_edge_index(toy_edge_index().flip(1), weight * 2, 6)
    adj.t(), adj.gcn_norm()
    back = copies(adj)
    for ours, theirs in zip(back.to_edge_index(), adj.to_edge_index(), strict=True):
        assert torch.equal(ours, theirs)
    assert not back.value.requires_grad
    plain = Adjacency.from_edge_index(toy_edge_index())
    size = len(pickle.dumps(plain))
    assert plain.is_symmetric
    plain.gcn_norm().t()
    assert len(pickle.dumps(plain)) <= size + 10  # what can be derived is left out
    assert copies(plain)._symmetric


def test_indices_are_int32_where_they_fit(monkeypatch):
    edge_index = toy_edge_index().flip(1)
    narrow = Adjacency.from_edge_index(edge_index)
    assert {narrow.rowptr.dtype, narrow.col.dtype, narrow.pattern.perm.dtype} == {torch.int32}
    for limit, dtype in ((10, torch.int32), (9, torch.int64)):
        monkeypatch.setattr("graphsparse.ops.sort.INT32_LIMIT", limit)
        adj = Adjacency.from_edge_index(edge_index)
        assert (adj.rowptr.dtype, adj.col.dtype) == (dtype, dtype)
        assert adj.t().col.dtype == dtype
        assert adj.gcn_norm().col.dtype == torch.int64  # 10 edges and 5 self-loops
        assert torch.equal(of(adj.gcn_norm()), of(narrow.gcn_norm()))
        assert torch.equal(adj.to_edge_index()[0], edge_index)
    assert adj.select(torch.arange(10) < 4).col.dtype == torch.int32


def test_repr():
    adj = Adjacency.from_edge_index(toy_edge_index(), torch.ones(10), 6, symmetric=True)
    assert repr(adj) == "Adjacency(num_dst=6, num_src=6, num_edges=10, value=torch.float32, symmetric=True)"


def test_to_the_same_device_is_itself():
    adj = Adjacency.from_edge_index(toy_edge_index())
    assert adj.to("cpu") is adj
    assert adj.to("meta").device.type == "meta"


@pytest.mark.cuda
def test_cuda(device):
    weight = torch.rand(10)
    adj = Adjacency.from_edge_index(toy_edge_index().flip(1), weight)
    moved = adj.to(device)
    built = Adjacency.from_edge_index(toy_edge_index().flip(1).to(device), weight.to(device))
    for other in (moved, built):
        assert other.device == device
        assert other.to(device) is other
        for name in ("rowptr", "col", "value"):
            assert torch.equal(getattr(other, name).cpu(), getattr(adj, name))
        torch.testing.assert_close(other.gcn_norm().to("cpu").value, adj.gcn_norm().value)
        assert torch.equal(other.t().to("cpu").value, adj.t().value)


EDGES = torch.tensor([[0, 1], [1, 2]])


BAD = [
    ({"edge_index": [[0], [1]]}, TypeError, "'edge_index' must be a tensor"),
    ({"edge_index": EDGES.float()}, TypeError, "int64 or int32"),
    ({"edge_index": EDGES[0]}, ValueError, "shape [2, E]"),
    ({"edge_index": EDGES - 1}, ValueError, "negative"),
    ({"edge_index": EDGES, "num_nodes": 2}, ValueError, "not below 'num_nodes'"),
    ({"edge_index": EDGES, "num_nodes": (2, 2)}, ValueError, "not below 'num_nodes'"),
    ({"edge_index": EDGES, "num_nodes": 2.5}, TypeError, "'num_nodes'"),
    ({"edge_index": EDGES, "edge_weight": torch.ones(3)}, ValueError, "'edge_weight' must have one entry per edge"),
    ({"edge_index": EDGES, "edge_weight": torch.ones(2, 1)}, ValueError, "'edge_weight' must have one entry per edge"),
    ({"edge_index": EDGES, "edge_weight": torch.ones(2).long()}, TypeError, "floating point"),
    ({"edge_index": EDGES, "edge_weight": [1.0, 1.0]}, TypeError, "floating point"),
    ({"edge_index": EDGES, "edge_weight": torch.ones(2, device="meta")}, ValueError, "on the device of the edges"),
    ({"edge_index": EDGES, "num_nodes": (3, 4), "symmetric": True}, ValueError, "as many sources as destinations"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), BAD)
def test_bad_edge_lists(arguments, error, message):
    with pytest.raises(error) as raised:
        Adjacency.from_edge_index(**arguments)
    assert message in str(raised.value)


CALLS = [
    (lambda adj: adj.select([True, True]), TypeError, "'edge_mask' must be a bool tensor"),
    (lambda adj: adj.select(torch.ones(2)), TypeError, "'edge_mask' must be a bool tensor"),
    (lambda adj: adj.select(torch.ones(3, dtype=torch.bool)), ValueError, "'edge_mask' must have one entry per edge"),
    (lambda adj: adj.with_value(torch.ones(3)), ValueError, "'edge_weight' must have one entry per edge"),
    (lambda adj: adj.rows(0, 2.0), TypeError, "'stop' must be an integer (got 2.0 of type float)"),
    (lambda adj: adj.rows(True, 2), TypeError, "'start' must be an integer"),
    (lambda adj: adj.rows(-1, 2), ValueError, "0 <= start <= stop <= 4 (got -1, 2)"),
    (lambda adj: adj.rows(2, 1), ValueError, "0 <= start <= stop <= 4 (got 2, 1)"),
    (lambda adj: adj.rows(0, 5), ValueError, "0 <= start <= stop <= 4 (got 0, 5)"),
    (lambda adj: adj.gcn_norm(), ValueError, "'gcn_norm' needs as many"),
]


@pytest.mark.parametrize(("call", "error", "message"), CALLS)
def test_bad_calls(call, error, message):
    adj = Adjacency.from_edge_index(EDGES, num_nodes=(3, 4))
    with pytest.raises(error) as raised:
        call(adj)
    assert message in str(raised.value)


@given(edge_lists(bipartite=True), st.booleans())
def test_torch_csr_and_back(graph, weighted):
    edge_index, size, generator = graph
    weight = torch.rand(edge_index.size(1), generator=generator, dtype=torch.float64) if weighted else None
    adj = Adjacency.from_edge_index(edge_index, weight, size)
    assert torch.equal(adj.to_torch_csr().to_dense().double(), of(adj))
    assert torch.equal(of(Adjacency.from_torch_csr(adj.to_torch_csr())), of(adj))


def test_sparse_tensor_is_taken():
    torch_sparse = pytest.importorskip("torch_sparse")
    edge_index, weight = torch.tensor([[0, 3, 1], [1, 0, 1]]), torch.tensor([1.0, 2.0, 3.0])
    theirs = torch_sparse.SparseTensor.from_edge_index(edge_index, weight, (4, 2)).t()
    assert torch.equal(of(Adjacency.from_sparse_tensor(theirs)), dense(edge_index, weight, (4, 2)))
    assert Adjacency.from_sparse_tensor(theirs.set_value(None)).value is None


def test_sparse_tensor_says_what_is_missing(without_extensions):
    with pytest.raises(ImportError, match="'torch_sparse' is needed here"):
        Adjacency.from_sparse_tensor(None)


def test_edge_index_of_pyg_gives_its_size_and_symmetry():
    edge_index = EdgeIndex(toy_edge_index(), sparse_size=(7, 7), is_undirected=True)
    adj = Adjacency.from_edge_index(edge_index)
    assert (adj.num_src, adj.num_dst) == (7, 7)
    assert adj.pattern.symmetric
    assert type(adj.col) is torch.Tensor
    bipartite = EdgeIndex(torch.tensor([[0, 1], [0, 0]]), sparse_size=(3, 2))
    assert Adjacency.from_edge_index(bipartite).num_dst == 2


def bad_csr(rowptr, col):
    return torch.sparse_csr_tensor(
        torch.tensor(rowptr), torch.tensor(col), torch.ones(len(col)), (2, 2), check_invariants=False
    )


MATRICES = [
    (lambda: Adjacency.from_torch_csr(torch.eye(2)), TypeError, "torch CSR tensor (got torch.strided)"),
    (lambda: Adjacency.from_torch_csr(bad_csr([0, 1, 2], [0, 2])), ValueError, "column of 'matrix' is outside [0, 2)"),
    (lambda: Adjacency.from_torch_csr(bad_csr([0, 1, 3], [0, 1])), ValueError, "row offsets of 'matrix'"),
    (lambda: Adjacency.from_torch_csr(bad_csr([0, 3, 2], [0, 1])), ValueError, "row offsets of 'matrix'"),
    (lambda: Adjacency.from_torch_csr([[0.0]]), TypeError, "torch CSR tensor (got list)"),
    (lambda: Adjacency.from_torch_csr(torch.eye(2).to_sparse_coo()), TypeError, "(got torch.sparse_coo)"),
    (lambda: Adjacency.from_torch_csr(bad_csr([1, 1, 2], [0, 1])), ValueError, "row offsets of 'matrix'"),
    (lambda: Adjacency.from_torch_csr(bad_csr([0, 1, 2], [0, -1])), ValueError, "column of 'matrix' is outside [0, 2)"),
]


@pytest.mark.parametrize(("call", "error", "message"), MATRICES)
def test_bad_matrices(call, error, message):
    with pytest.raises(error) as raised:
        call()
    assert message in str(raised.value)


def test_symmetry_can_be_asserted_of_a_matrix():
    matrix = Adjacency.from_edge_index(toy_edge_index()).to_torch_csr()
    assert Adjacency.from_torch_csr(matrix, symmetric=True)._symmetric


def test_edges_keep_the_history_of_their_values():
    weight = torch.rand(10, requires_grad=True)
    _, back = Adjacency.from_edge_index(toy_edge_index().flip(1), weight).to_edge_index()
    probe = torch.arange(10.0)
    (grad,) = torch.autograd.grad((back * probe).sum(), weight)
    assert torch.equal(grad, probe)


@pytest.mark.parametrize("move", ["to", "cpu", "pin_memory"])
@pytest.mark.parametrize("kind", ["Data", "HeteroData", "Batch"])
@pytest.mark.cuda
def test_a_graph_of_pyg_moves_its_adjacency(kind, move, device):
    adj = Adjacency.from_edge_index(EDGES, torch.tensor([1.0, 2.0]), 3)
    data = {
        "Data": lambda: Data(x=torch.ones(3, 1), adj=adj),
        "HeteroData": lambda: HeteroData({"a": {"x": torch.ones(3, 1)}, ("a", "to", "a"): {"adj": adj}}),
        "Batch": lambda: Batch.from_data_list([Data(x=torch.ones(3, 1), adj=adj)] * 2),
    }[kind]()
    if move == "pin_memory":
        if device.type != "cuda":
            pytest.skip("memory is pinned for a real GPU only")
        data = data.pin_memory()

    def held():
        found = data["a", "to", "a"].adj if kind == "HeteroData" else data.adj
        return found if isinstance(found, list) else [found]

    data = data.to(device, non_blocking=True)
    assert all(one.device == device for one in held())
    if move == "cpu":
        data = data.cpu()
        assert all(one.device.type == "cpu" for one in held())
    assert all(torch.equal(of(one.to("cpu")), of(adj)) for one in held())


def test_values_with_gaps_become_a_matrix():
    value = torch.rand(2, 2)[:, 0]
    adj = Adjacency(Adjacency.from_edge_index(EDGES, None, 3).pattern, value)
    assert adj.to_torch_csr().values().is_contiguous()
    assert torch.equal(adj.to_torch_csr().to_dense(), of(adj).float())


@pytest.mark.cuda
def test_rows_on_a_device_begin_where_kernels_can_read(device):
    edge_index = torch.stack([torch.arange(9), torch.arange(9)])
    adj = Adjacency.from_edge_index(edge_index, torch.rand(9), 9).to(device)
    for start in range(9):
        block = adj.rows(start, 9)
        assert block.col.data_ptr() % 16 == block.value.data_ptr() % 16 == 0
        assert torch.equal(block.value.cpu(), adj.value.cpu()[start:])
