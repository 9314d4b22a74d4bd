"""Tensors that change without torch counting it: what layers keep must follow, whatever was kept."""

import copy
import ctypes

import pytest
import torch
import torch_geometric.nn as pyg
from layers import MATRICES, close, form, twins, unsorted_graph
from torch import nn
from torch_geometric.data import Data, HeteroData

from graphsparse.nn import GINConv, accelerate
from graphsparse.ops import Adjacency, constant, spmm

pytestmark = pytest.mark.once  # nothing here depends on the compiled extensions but one form of graphs

LAYERS = {
    "GCNConv": ((5, 3), {}),
    "GCN2Conv": ((5, 0.1), {}),
    "SAGEConv": ((5, 3), {}),
    "GINConv": ((nn.Linear(5, 3),), {"eps": 0.3}),
    "GATConv": ((5, 3, 2), {}),
}


def by_numpy(tensor, new):
    tensor.detach().numpy()[...] = new.numpy()


def by_dlpack(tensor, new):
    torch.from_dlpack(tensor.detach()).copy_(new)


def by_address(tensor, new):
    assert tensor.is_contiguous()
    ctypes.memmove(tensor.data_ptr(), new.contiguous().data_ptr(), tensor.nbytes)


WAYS = {
    "data =": lambda tensor, new: setattr(tensor, "data", new),
    "data.copy_": lambda tensor, new: tensor.data.copy_(new),
    "set_": lambda tensor, new: tensor.data.set_(new),
    "numpy": by_numpy,
    "dlpack": by_dlpack,
    "address": by_address,
    "counted": lambda tensor, new: tensor.detach().copy_(new),
}
#: Changes that a poor checksum does not see.
NEW = {
    "one number": lambda x: x.index_put((torch.tensor(3), torch.tensor(2)), torch.tensor(9.0)),
    "all signs": lambda x: -x,
    "two signs of a column": lambda x: x * torch.where(torch.arange(12).view(-1, 1) < 2, -1.0, 1.0),
    "twice": lambda x: 2 * x,
    "rows": lambda x: x.roll(4, 0),
    "two rows": lambda x: x[[7, *range(1, 7), 0, *range(8, 12)]],
    "columns": lambda x: x.flip(1),
}


def run(layer, x, *graph, **named):
    args = (x, x, *graph) if isinstance(layer, pyg.GCN2Conv) else (x, *graph)
    return layer(*args, **named).detach()


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("way", WAYS)
def test_features(name, way):
    theirs, ours = twins(name, *LAYERS[name][0], **LAYERS[name][1])
    edge_index, _, x = unsorted_graph()
    for sparse in (False, True):
        x = x * (torch.rand(12, 5) < 0.1) if sparse else x.clone()
        for change in NEW.values():
            for _ in range(3):
                run(ours, x, edge_index)
            WAYS[way](x, change(x))
            for _ in range(3):
                close([run(ours, x, edge_index)], [run(theirs, x.clone(), edge_index)], scale=1)


def parts_of(kind, graph):
    """Return the tensors that a graph is made of, each with what it may become."""
    edges, values = graph, None
    if kind == "EdgeIndex":
        edges = graph.as_tensor()
    elif kind == "SparseTensor":
        edges, values = graph.storage.col(), graph.storage.value()
    elif kind in MATRICES:
        values = graph.values()
        edges = {"CSR": graph.col_indices, "CSC": graph.row_indices, "COO": lambda: None}[kind]()
    shifted = None if edges is None else (edges + 1) % 12
    if kind in ("CSR", "CSC"):  # sorted within each row, as these forms demand
        starts = graph.crow_indices() if kind == "CSR" else graph.ccol_indices()
        row = torch.arange(12).repeat_interleave(starts.diff())
        shifted = (row * 12 + shifted).sort().values % 12
    return ([] if values is None else [(values, values.roll(1) + 1)]) + ([] if edges is None else [(edges, shifted)])


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("kind", ["edge_index", "EdgeIndex", *MATRICES])
def test_edges(name, kind):
    options = {**LAYERS[name][1], **({"aggr": "sum"} if name == "SAGEConv" else {})}
    theirs, ours = twins(name, *LAYERS[name][0], **options)
    if kind == "CSC" and name in ("GCNConv", "GCN2Conv", "GATConv"):
        pytest.skip("PyG's layer takes no CSC")
    edge_index, weight, x = unsorted_graph(simple=True)
    tried = 0
    for way, write in WAYS.items():
        graph = form(kind, edge_index.clone(), (12, 12), weight.clone() if kind in MATRICES else None)
        for _ in range(2):
            run(ours, x, graph)
        for part, new in parts_of(kind, graph):
            if kind in ("CSR", "COO", "CSC") and way in ("data =", "set_"):
                continue  # the part that a matrix gives out is another object than the one it holds
            write(part, new)
            tried += 1
            for _ in range(2):
                close([run(ours, x, graph)], [run(theirs, x, graph.clone())], scale=1)
    assert tried >= 5


@pytest.mark.parametrize("name", ["GCNConv", "GCN2Conv"])
def test_weights(name):
    theirs, ours = twins(name, *LAYERS[name][0])
    edge_index, weight, x = unsorted_graph()
    for write in WAYS.values():
        for change in (lambda w: w.roll(1), lambda w: w * 2, lambda w: w.flip(0) + 1):
            for _ in range(2):
                run(ours, x, edge_index, edge_weight=weight)
            write(weight, change(weight))
            for _ in range(2):
                expected = run(theirs, x, edge_index.clone(), edge_weight=weight.clone())
                close([run(ours, x, edge_index, edge_weight=weight)], [expected], scale=1)


@pytest.mark.parametrize("way", WAYS)
def test_whole_models(way):
    """The sum over neighbours in the first layer, sparse features of a linear layer, and epsilon."""
    edge_index, _, x = unsorted_graph()
    x = x * (torch.rand(12, 5) < 0.1)
    gin = pyg.GIN(5, 8, 2, 3)
    linear = pyg.Sequential("x, edge_index", [(nn.Linear(5, 4), "x -> x"), (pyg.GCNConv(4, 3), "x, edge_index -> x")])
    for model in (pyg.GraphSAGE(5, 8, 2, 3), gin, linear):
        fast = accelerate(model.eval())
        for model_input, change in ((x, NEW["rows"]), (edge_index, lambda e: (e + 1) % 12), (x, NEW["all signs"])):
            for _ in range(3):
                fast(x, edge_index)
            WAYS[way](model_input, change(model_input))
            for _ in range(3):
                close([fast(x, edge_index).detach()], [model(x.clone(), edge_index.clone()).detach()], scale=1)
    eps = gin.convs[0].eps
    fast = accelerate(gin)
    fast(x, edge_index)
    WAYS[way](eps, torch.full((1,), 4.0))
    close([fast(x, edge_index).detach()], [gin(x, edge_index).detach()], scale=1)


def test_a_layer_keeps_nothing_of_an_adjacency_that_was_changed():
    edge_index, weight, x = unsorted_graph()
    order = torch.argsort(edge_index[1] * 12 + edge_index[0], stable=True)
    edge_index, weight = edge_index[:, order].int(), weight[order]  # nothing must be brought into another order
    for learned in (False, True):
        adj = Adjacency.from_edge_index(edge_index, weight.clone().requires_grad_(learned), 12)
        given = [edge_index.clone(), weight.clone()]
        adj = Adjacency.from_edge_index(given[0], given[1].requires_grad_(learned), 12)
        before = [spmm(adj, x).detach(), adj.gcn_norm().value.detach()]
        for tensor in given:
            tensor.data.zero_()
        close([spmm(adj, x).detach(), adj.gcn_norm().value.detach()], before)
    adj = Adjacency.from_edge_index(edge_index, weight, 12)
    matrix = adj.to_torch_csr()
    taken = Adjacency.from_torch_csr(matrix)
    matrix = matrix.clone()
    matrix.values().data.zero_()
    close([spmm(taken, x)], [spmm(adj, x)])


def test_an_adjacency_that_was_written_to_is_refused():
    edge_index, weight, x = unsorted_graph()
    for write in (lambda value: value.mul_(2), lambda value: value[:3].zero_(), lambda value: value.detach().fill_(1)):
        adj = Adjacency.from_edge_index(edge_index, weight, 12)
        adj.gcn_norm()
        write(adj.value)
        for use in (
            adj.gcn_norm,
            lambda adj=adj: spmm(adj, x),
            adj.t,
            lambda adj=adj: GINConv(nn.Linear(5, 3))(x, adj),
        ):
            with pytest.raises(RuntimeError, match="an Adjacency were changed in place; use 'with_value'"):
                use()
    again = copy.deepcopy(Adjacency.from_edge_index(edge_index, weight, 12))
    assert spmm(again, x).shape == (12, 5)


@pytest.fixture
def checks(monkeypatch):
    """Counts how often all numbers of a tensor are read to see whether it has changed."""
    from graphsparse.ops import remember

    seen, real = [], remember._checksum

    def spy(part):
        seen.append(tuple(part.shape))
        return real(part)

    monkeypatch.setattr(remember, "_checksum", spy)
    return seen


def test_constant_graphs_are_read_once_and_at_the_end(checks):
    edge_index, weight, x = unsorted_graph()
    model = accelerate(pyg.GCN(5, 8, 2, 3))
    with constant(x, edge_index, weight, None):
        for _ in range(3):
            model(x, edge_index, weight)
        inside = len(checks)
        with constant(Data(x=x, edge_index=edge_index)):
            for _ in range(3):
                model(x, edge_index, weight).sum().backward()
    assert inside == 3
    assert len(checks) == 6
    model(x, edge_index, weight)
    assert len(checks) > 6


def test_changes_that_are_counted_are_seen_where_a_graph_is_constant():
    theirs, ours = twins("GCNConv", 5, 3)
    edge_index, _, x = unsorted_graph()
    with constant(x, edge_index):
        for _ in range(3):
            for _ in range(3):
                close([run(ours, x, edge_index)], [run(theirs, x.clone(), edge_index.clone())])
            x.add_(1)
            edge_index[:, 0] = 7


def test_a_broken_promise_is_an_error():
    edge_index, weight, x = unsorted_graph()
    _, ours = twins("GCNConv", 5, 3)
    graphs = {
        "'x' changed": Data(x=x, edge_index=edge_index),
        "'edge_weight' changed": Data(edge_weight=weight),
        "a tensor of shape [12, 5] changed": x,
    }
    for message, graph in graphs.items():
        changed = x if "edge_weight" not in message else weight
        with pytest.raises(RuntimeError, match=message.replace("[", r"\[")), constant(graph):  # noqa: PT012
            for _ in range(2):
                ours(x, edge_index, weight)
            changed.data.mul_(2)
    with pytest.raises(ZeroDivisionError), constant(x):  # noqa: PT012
        ours(x, edge_index)
        x.data.mul_(2)
        raise ZeroDivisionError
    with constant(x):
        x.data.mul_(2)  # nothing was computed from it
    with pytest.raises(TypeError, match="'graphs' must be tensors or graphs .got str."), constant("x"):
        pass


def test_what_changed_before_a_graph_became_constant_is_seen():
    theirs, ours = twins("SAGEConv", 5, 3)
    edge_index, _, x = unsorted_graph()
    for _ in range(3):
        with constant(x, edge_index):
            for _ in range(2):
                close([run(ours, x, edge_index)], [run(theirs, x.clone(), edge_index.clone())])
        x.data.mul_(2)
        edge_index.data.copy_(edge_index.roll(1))


def test_every_form_of_a_graph_can_be_constant(checks):
    edge_index, _, x = unsorted_graph(simple=True)
    for name in ("edge_index", "EdgeIndex", *MATRICES, "Adjacency"):
        ours = twins("GCNConv", 5, 3)[1]
        graph = form(name, edge_index, (12, 12))
        hetero = HeteroData({"a": {"x": x}, ("a", "to", "a"): {"adj": graph}})
        for held in ([x, graph], [Data(x=x, adj=graph)], [hetero]):
            ours(x, graph)
            with constant(*held):
                ours(x, graph)
                checks.clear()
                for _ in range(3):
                    ours(x, graph)
                assert not checks
