import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sparse_reference import edge_lists, of
from torch_geometric import EdgeIndex

from graphsparse.ops import Adjacency
from graphsparse.testing import toy_edge_index


@settings(max_examples=40)
@given(edge_lists(bipartite=True), st.booleans())
def test_conversions_round_trip(graph, weighted):
    edge_index, size, generator = graph
    weight = torch.rand(edge_index.size(1), generator=generator, dtype=torch.float64) if weighted else None
    adj = Adjacency.from_edge_index(edge_index, weight, size)
    expected = of(adj)
    assert torch.equal(of(Adjacency.from_torch_csr(adj.to_torch_csr())), expected)
    if size[0] and size[1]:  # SciPy's index type check refuses sizes of 0 in some versions
        matrix = adj.to_scipy()
        np.testing.assert_allclose(matrix.toarray(), expected.numpy(), rtol=1e-12)
        for form in ("tocsr", "tocsc", "tocoo"):
            assert torch.equal(of(Adjacency.from_scipy(getattr(matrix, form)())), expected)
    pyg, pyg_weight = adj.to_pyg_edge_index()
    assert isinstance(pyg.validate(), EdgeIndex)
    assert torch.equal(of(Adjacency.from_edge_index(pyg, pyg_weight)), expected)


def test_conversion_to_sparse_tensor():
    torch_sparse = pytest.importorskip("torch_sparse")
    edge_index, weight = torch.tensor([[0, 3, 1], [1, 0, 1]]), torch.tensor([1.0, 2.0, 3.0])
    adj = Adjacency.from_edge_index(edge_index, weight, (4, 2))
    theirs = torch_sparse.SparseTensor.from_edge_index(edge_index, weight, (4, 2)).t()
    assert torch.equal(adj.to_sparse_tensor().to_dense(), theirs.to_dense())
    assert torch.equal(of(Adjacency.from_sparse_tensor(theirs)), of(adj))
    assert Adjacency.from_sparse_tensor(theirs.set_value(None)).value is None


def test_sparse_tensor_says_what_is_missing(without_extensions):
    adj = Adjacency.from_edge_index(toy_edge_index())
    with pytest.raises(ImportError, match="'torch_sparse' is needed here"):
        adj.to_sparse_tensor()
    with pytest.raises(ImportError, match="'torch_sparse' is needed here"):
        Adjacency.from_sparse_tensor(None)


def test_edge_index_of_pyg_gives_its_size_and_symmetry():
    edge_index = EdgeIndex(toy_edge_index(), sparse_size=(7, 7), is_undirected=True)
    adj = Adjacency.from_edge_index(edge_index)
    assert (adj.num_src, adj.num_dst) == (7, 7)
    assert adj.pattern.symmetric
    assert type(adj.col) is torch.Tensor
    assert adj.to_pyg_edge_index()[0].is_undirected
    bipartite = EdgeIndex(torch.tensor([[0, 1], [0, 0]]), sparse_size=(3, 2))
    assert Adjacency.from_edge_index(bipartite).num_dst == 2


def test_scipy_integers_and_repeated_entries():
    scipy_sparse = pytest.importorskip("scipy.sparse")
    matrix = scipy_sparse.coo_array(([1, 2], ([0, 0], [1, 1])), shape=(2, 2))
    adj = Adjacency.from_scipy(matrix)
    assert adj.num_edges == 2
    assert adj.value.tolist() == [1.0, 2.0]


def bad_csr(rowptr, col):
    return torch.sparse_csr_tensor(
        torch.tensor(rowptr), torch.tensor(col), torch.ones(len(col)), (2, 2), check_invariants=False
    )


CALLS = [
    (lambda: Adjacency.from_torch_csr(torch.eye(2)), TypeError, "torch CSR tensor (got torch.strided)"),
    (lambda: Adjacency.from_torch_csr(bad_csr([0, 1, 2], [0, 2])), ValueError, "column of 'matrix' is outside [0, 2)"),
    (lambda: Adjacency.from_torch_csr(bad_csr([0, 1, 3], [0, 1])), ValueError, "row offsets of 'matrix'"),
    (lambda: Adjacency.from_torch_csr(bad_csr([0, 3, 2], [0, 1])), ValueError, "row offsets of 'matrix'"),
    (lambda: Adjacency.from_scipy(np.eye(2)), TypeError, "SciPy sparse matrix (got ndarray)"),
    (lambda: Adjacency.from_torch_csr([[0.0]]), TypeError, "torch CSR tensor (got list)"),
    (lambda: Adjacency.from_torch_csr(torch.eye(2).to_sparse_coo()), TypeError, "(got torch.sparse_coo)"),
    (lambda: Adjacency.from_torch_csr(bad_csr([1, 1, 2], [0, 1])), ValueError, "row offsets of 'matrix'"),
    (lambda: Adjacency.from_torch_csr(bad_csr([0, 1, 2], [0, -1])), ValueError, "column of 'matrix' is outside [0, 2)"),
]


@pytest.mark.parametrize(("call", "error", "message"), CALLS)
def test_bad_matrices(call, error, message):
    with pytest.raises(error) as raised:
        call()
    assert message in str(raised.value)


def test_symmetry_can_be_asserted_of_every_format():
    matrix = Adjacency.from_edge_index(toy_edge_index())
    assert Adjacency.from_torch_csr(matrix.to_torch_csr(), symmetric=True)._symmetric
    assert Adjacency.from_scipy(matrix.to_scipy(), symmetric=True)._symmetric


def test_edges_keep_the_history_of_their_values():
    weight = torch.rand(10, requires_grad=True)
    _, back = Adjacency.from_edge_index(toy_edge_index().flip(1), weight).to_edge_index()
    probe = torch.arange(10.0)
    (grad,) = torch.autograd.grad((back * probe).sum(), weight)
    assert torch.equal(grad, probe)
