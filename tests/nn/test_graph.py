"""Edges in every form."""

import gc
import weakref

import pytest
import torch
from layers import FORMS, MATRICES, close, edge_by_edge, form, result, twins, unsorted_graph
from torch import nn
from torch_geometric import EdgeIndex

import graphsparse.nn as ours_module
from graphsparse.nn import GCNConv
from graphsparse.nn.graph import end_nodes, to_adjacency, to_edge_list, with_loops_of_matrix
from graphsparse.ops import Adjacency

LAYERS = {
    "GCNConv": (5, 3),
    "SAGEConv": (5, 3),
    "GINConv": (nn.Linear(5, 3),),
    "GATConv": (5, 3, 2),
}


def matrix_of(adj):
    return adj.to_torch_csr().to_dense()


@pytest.fixture
def built(monkeypatch):
    """Counts the adjacencies that are built."""
    seen = []
    real = Adjacency._build.__func__

    def spy(cls, *args):
        seen.append(weakref.ref(adj := real(cls, *args)))
        return adj

    monkeypatch.setattr(Adjacency, "_build", classmethod(spy))
    return seen


@pytest.mark.parametrize("name", FORMS)
def test_every_form_is_the_same_matrix_and_built_once(name, built):
    edge_index, weight, _ = unsorted_graph(simple=True)
    edge_index, weight = edge_index[:, edge_index[1] < 7], weight[edge_index[1] < 7]
    size = (12, 7)
    dense = torch.zeros(7, 12).index_put((edge_index[1], edge_index[0]), torch.ones(()), accumulate=True)
    edges = form(name, edge_index, size)
    built.clear()
    found = [to_adjacency(edges, None, size, sparse_tensor_values=name != "SparseTensor") for _ in range(3)]
    assert found[0] is found[1] is found[2]
    assert len(built) == (name != "Adjacency")
    assert torch.equal(matrix_of(found[0]), dense)
    if name not in (*MATRICES, "EdgeIndex by row", "EdgeIndex by column"):
        dense = dense.index_put((edge_index[1], edge_index[0]), weight)
        found = [to_adjacency(edges, weight, size) for _ in range(3)]
        assert torch.equal(matrix_of(found[0]), dense)
        assert found[0] is found[1] is found[2]
        assert to_adjacency(edges, weight.view(-1, 1), size) is not found[0]
        assert to_adjacency(edges, weight.clone().requires_grad_(), size).value.requires_grad
        weight[0] += 1
        assert to_adjacency(edges, weight, size) is not found[0]


@pytest.mark.parametrize("name", [name for name in FORMS if name != "Adjacency"])
def test_changed_edges_are_noticed(name):
    edge_index, _, _ = unsorted_graph(simple=True)
    edges = form(name, edge_index, (12, 12))
    before = matrix_of(to_adjacency(edges, None, (12, 12)))
    if name == "edge_index":
        edges[:, 0] = 11
    elif name.startswith("EdgeIndex"):
        edges.as_tensor()[:, 0] = 11
    elif name == "SparseTensor":
        edges.storage.row()[-1] = 11
        edges.storage.col()[-1] = 11
    else:
        edges.values()[0] = 3
    assert not torch.equal(matrix_of(to_adjacency(edges, None, (12, 12))), before)
    if name == "EdgeIndex":
        edges.zero_()
        assert matrix_of(to_adjacency(edges, None, (12, 12))).count_nonzero() == 1


@pytest.mark.parametrize("name", ["edge_index of int32", *(name for name in FORMS if name != "Adjacency")])
def test_memory_goes_with_the_edges(name, built):
    gc.collect()
    gc.disable()
    try:
        edge_index = unsorted_graph(simple=True)[0]
        edge_index = edge_index[:, edge_index[1].argsort(stable=True)]  # so that nothing needs to be sorted
        edges = edge_index.int() if name == "edge_index of int32" else form(name, edge_index, (12, 12))
        x = torch.randn(12, 5)
        built.clear()
        del edge_index
        for kind, args in LAYERS.items():
            layer = getattr(ours_module, kind)(*args)
            for _ in range(3):
                layer(x, edges).sum().backward()
        assert built
        assert any(ref() is not None for ref in built)
        del edges
        assert all(ref() is None for ref in built)
    finally:
        gc.enable()


def test_flow():
    edge_index, weight, _ = unsorted_graph()
    forth = matrix_of(to_adjacency(edge_index, weight, (12, 12)))
    back = to_adjacency(edge_index, weight, (12, 12), flow="target_to_source")
    assert torch.equal(matrix_of(back), forth.t())
    for name in (*MATRICES, "Adjacency"):
        edges = form(name, unsorted_graph(simple=True)[0], (12, 12))
        with pytest.raises(ValueError, match="'target_to_source' needs"):
            to_adjacency(edges, None, (12, 12), flow="target_to_source")
        for kind, args in LAYERS.items():
            for path in (edge_by_edge, torch.no_grad):
                layer = getattr(ours_module, kind)(*args, flow="target_to_source")
                with path(), pytest.raises(ValueError, match="target_to_source"):
                    layer(torch.randn(12, 5), edges)


def test_symmetric_edges_with_weights_go_backward_apart():
    edge_index = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    weight = torch.tensor([1.0, 2.0, 3.0, 4.0])
    theirs, ours = twins("GCNConv", 5, 3, flow="target_to_source", normalize=False)
    x = torch.randn(3, 5)
    close(result(ours, x, edge_index, weight), result(theirs, x, edge_index, weight))


@pytest.mark.parametrize("name", [*MATRICES, "Adjacency", "EdgeIndex"])
def test_sizes_that_do_not_fit(name):
    edges = form(name, torch.tensor([[0, 1], [2, 0]]), (4, 3))
    source, target = torch.randn(4, 5), torch.randn(3, 5)
    assert end_nodes(edges, source, target, None) == (4, 3)
    assert end_nodes(edges, source, None, None) == (4, 3)
    for kind in ("SAGEConv", "GINConv", "GATConv"):
        layer = getattr(ours_module, kind)(*LAYERS[kind])
        assert layer((source, None), edges).size(0) == 3
        for pair in ((target, None), (source, source), (target, target)):
            with pytest.raises(ValueError, match="but 'edge_index' or 'size' says"):
                layer(pair, edges)
        with pytest.raises(ValueError, match="but 'edge_index' or 'size' says"):
            layer(source, edges)
    if name != "EdgeIndex":
        with pytest.raises(ValueError, match="'edge_index' has 4 sources and 3 destinations, but 'x' has 4 and 4"):
            GCNConv(5, 3)(source, edges)


def test_size_of_a_list():
    edges = torch.tensor([[0, 1], [2, 0]])
    source, target = torch.randn(4, 5), torch.randn(3, 5)
    assert end_nodes(edges, source, None, None) == (4, 4)
    assert end_nodes(edges, source, None, (4, 3)) == (4, 3)
    assert end_nodes(edges, source, None, (None, 3)) == (4, 3)
    assert end_nodes(edges, source, target, (None, None)) == (4, 3)
    backward = EdgeIndex(edges, sparse_size=(3, 4))
    assert end_nodes(backward, source, target, None, "target_to_source") == (4, 3)
    for kind in ("SAGEConv", "GINConv", "GATConv"):
        theirs, ours = twins(kind, *LAYERS[kind])
        for wrong in ((5, 3), (4, 4)):
            for layer in (theirs, ours):
                with pytest.raises(ValueError, match="size"):
                    layer((source, target), edges, size=wrong)
        with pytest.raises(ValueError, match="not below"):
            ours((source, torch.randn(2, 5)), edges)


def test_loops_of_matrices():
    dense = torch.tensor([[3.0, 1.0], [0.0, 0.0]])
    for name in MATRICES:
        edge_index = dense.t().nonzero().t()
        matrix = form(name, edge_index, (2, 2), dense.t()[edge_index[0], edge_index[1]])
        found = with_loops_of_matrix(to_adjacency(matrix, None, (2, 2)), matrix, 2.0, torch.float32)
        expected = dense + 2 * torch.eye(2) if name != "SparseTensor" else torch.tensor([[2.0, 1.0], [0.0, 2.0]])
        assert torch.equal(matrix_of(found), expected)


@pytest.mark.parametrize("name", ["CSR", "COO", "CSC"])
def test_values_of_a_matrix_are_learned(name):
    edge_index, weight, x = unsorted_graph(simple=True)
    off = edge_index[0] != edge_index[1]  # self-loops of matrices are a thing of their own
    edge_index, weight = edge_index[:, off], weight[off]
    for kind, args in LAYERS.items():
        if kind == "GATConv":
            continue
        layer = twins(kind, *args)[1]
        leaf = weight.clone().requires_grad_()
        expected = result(layer, x, edge_index, edge_weight=leaf, learned=[leaf])
        other = leaf.detach().clone().requires_grad_()
        for _ in range(2):  # the matrix is made anew, as its values have a history
            matrix = form(name, edge_index, (12, 12), other)
            close(result(layer, x, matrix, learned=[other]), expected)


@pytest.mark.parametrize("name", MATRICES)
def test_matrix_takes_no_weights_besides(name):
    edge_index, weight, x = unsorted_graph(simple=True)
    edges = form(name, edge_index, (12, 12))
    for kind, args in LAYERS.items():
        for path in (edge_by_edge, torch.no_grad):
            layer = getattr(ours_module, kind)(*args)
            with path(), pytest.raises(ValueError, match="a matrix, which holds its own values"):
                layer(x, edges, edge_weight=weight)
    assert to_edge_list(edge_index, weight)[0] is edge_index
