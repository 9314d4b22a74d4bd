import pytest
import torch
from graph_models import PoolNet, random_graphs
from torch import nn
from torch_geometric.data import Batch, Data
from torch_geometric.nn import GAT, GCN, GraphSAGE, MessagePassing, SAGEConv

from graphsparse.nn import Supermask, accelerate
from graphsparse.utils.call_model import call_model, forward_arguments


def returns(*args):
    return args


def graph(**more):
    return Data(x=torch.ones(2, 3), **more)


def test_passes_features_and_edges():
    data = graph(edge_index=torch.tensor([[0], [1]]))
    assert [id(item) for item in call_model(returns, data)] == [id(data.x), id(data.edge_index)]


def test_passes_the_matrix_where_there_is_no_edge_list():
    data = graph(adj_t=torch.eye(2).to_sparse_csr())
    assert call_model(returns, data)[1] is data.adj_t


def test_passes_edge_weights():
    data = graph(edge_index=torch.tensor([[0], [1]]), edge_weight=torch.tensor([0.5]))
    assert call_model(returns, data)[2] is data.edge_weight


def test_never_drops_edge_weights_silently():
    data = graph(edge_index=torch.tensor([[0], [1]]), edge_weight=torch.tensor([0.0]))
    model = GraphSAGE(3, 4, 2, 2)
    with pytest.raises(ValueError, match="edge_weight"):
        call_model(model, data)
    without = graph(edge_index=torch.empty(2, 0, dtype=torch.int64))
    fast = accelerate(model)
    torch.testing.assert_close(call_model(fast, data), call_model(fast, without))


def layered(num_layers):
    """Three nodes; layer k has the one edge k -> k + 1, of weight k + 2."""
    edges = [(torch.tensor([[k], [k + 1]]), torch.tensor([k + 2.0])) for k in range(num_layers)]
    return Data(x=torch.tensor([[1.0], [0.0], [0.0]]), layer_edges=edges)


class Sum(MessagePassing):
    """Weighted sums; notes what it is given."""

    def __init__(self):
        super().__init__()
        self.given = []

    def forward(self, x, edge_index, edge_weight=None):
        self.given.append(edge_index)
        return self.propagate(edge_index, x=x, edge_weight=edge_weight)

    def message(self, x_j, edge_weight):
        return edge_weight[:, None] * x_j


class Twice(torch.nn.Module):
    def __init__(self, first, second, fail=False):
        super().__init__()
        self.first, self.second, self.fail = first, second, fail

    def forward(self, x, edge_index, edge_weight):
        x = self.first(x, edge_index, edge_weight=edge_weight)
        if self.fail:
            raise KeyError("in the model")
        return self.second(x, edge_index, edge_weight)


def num_hooks(model):
    return sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model.modules())


def test_every_layer_gets_its_own_edges():
    data, model = layered(2), Twice(Sum(), Sum())
    assert call_model(model, data).tolist() == [[0], [0], [6]]
    assert [layer.given[0].tolist() for layer in (model.first, model.second)] == [[[0], [1]], [[1], [2]]]
    shared = Sum()
    assert call_model(Twice(shared, shared), data).tolist() == [[0], [0], [6]]
    assert num_hooks(model) == num_hooks(shared) == 0
    gcn = GCN(1, 4, 2, 2, normalize=False)
    x = gcn.convs[0](data.x, *data.layer_edges[0]).relu()
    assert torch.equal(call_model(gcn, data), gcn.convs[1](x, *data.layer_edges[1]))
    fast = accelerate(GraphSAGE(1, 4, 2, 2, aggr="sum"))  # its layers take the weights as a fourth argument
    x = fast.convs[0](data.x, data.layer_edges[0][0], edge_weight=data.layer_edges[0][1]).relu()
    expected = fast.convs[1](x, data.layer_edges[1][0], edge_weight=data.layer_edges[1][1])
    torch.testing.assert_close(call_model(fast, data), expected)


def test_a_layer_inside_a_layer_is_not_counted():
    class Outer(Sum):
        def __init__(self):
            super().__init__()
            self.inner = Sum()

        def forward(self, x, edge_index, edge_weight=None):
            return self.inner(x, edge_index, edge_weight)

    assert call_model(Twice(Outer(), Outer()), layered(2)).tolist() == [[0], [0], [6]]


def test_the_number_of_layers_must_fit():
    model = Twice(Sum(), Sum())
    with pytest.raises(ValueError, match="holds edges for 1 layers, but the model calls more"):
        call_model(model, layered(1))
    data = layered(2)
    data.layer_edges.append(data.layer_edges[0])
    with pytest.raises(ValueError, match="holds edges for 3 layers, but the model called 2"):
        call_model(model, data)
    assert num_hooks(model) == 0


def test_nothing_stays_after_an_error():
    model = Twice(Sum(), Sum(), fail=True)
    with pytest.raises(KeyError, match="in the model"):
        call_model(model, layered(2))
    assert num_hooks(model) == 0
    model.fail = False
    assert call_model(model, layered(2)).tolist() == [[0], [0], [6]]


def test_layers_that_take_no_weights():
    with pytest.raises(ValueError, match="'data.layer_edges' is given, but GraphSAGE does not take edge weights"):
        call_model(GraphSAGE(1, 4, 2, 2), layered(2))
    with pytest.raises(ValueError, match="'data.layer_edges' holds weights, but SAGEConv does not take edge weights"):
        call_model(Twice(Sum(), SAGEConv(1, 1)), layered(2))


# By name.

BATCH = Batch.from_data_list(random_graphs(5))


class Recording(nn.Module):
    """Keeps what it was called with; the forward is put in by a test."""

    def __init__(self, forward):
        super().__init__()
        self.forward = forward


def all_arguments(x, edge_index, edge_attr=None, edge_weight=None, batch=None, batch_size=None, pos=None, z=None):
    return x, edge_index, edge_attr, edge_weight, batch, batch_size, pos, z


def test_what_a_model_takes_comes_by_name():
    x, edge_index, edge_attr, edge_weight, batch, batch_size, pos, z = call_model(Recording(all_arguments), BATCH)
    assert x is BATCH.x
    assert edge_index is BATCH.edge_index
    assert edge_attr is BATCH.edge_attr
    assert batch is BATCH.batch
    assert batch_size == 5
    assert edge_weight is pos is z is None


def test_weights_and_places_where_there_are_any():
    graphs = random_graphs(3)
    for graph in graphs:
        graph.edge_weight, graph.pos = torch.rand(graph.num_edges), torch.rand(graph.num_nodes, 3)
    batch = Batch.from_data_list(graphs)
    found = call_model(Recording(all_arguments), batch)
    assert found[3] is batch.edge_weight
    assert found[6] is batch.pos


def test_what_it_does_not_take_does_not_come():
    assert len(call_model(Recording(lambda x, edge_index, *, batch: (x, edge_index, batch)), BATCH)) == 3


class Wrapper(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, *args, **kwargs):
        return self.module(*args, **kwargs)


@pytest.mark.parametrize("wrap", [Supermask, Wrapper, torch.compile, lambda model, *_: Wrapper(Wrapper(model))])
def test_the_model_inside_a_wrapper_says_what_it_takes(wrap):
    inner = PoolNet().eval()
    model = wrap(inner, 0.5) if wrap is Supermask else wrap(inner)
    if wrap is torch.compile:
        assert "batch" in forward_arguments(model)  # compiling takes longer than it is worth here
    else:
        assert call_model(model, BATCH).shape == (5, 3)


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (lambda x, edge_index, graph: x, r"must be given \['graph'\], which the graph does not have"),
        (
            lambda x, edge_index, edge_weight, batch: x,
            r"must be given \['edge_weight'\], which the graph does not have",
        ),
        (lambda x, edge_index, batch, *, depth: x, r"must be given \['depth'\]"),
        (lambda data: data, r"must be called as model\(x, edge_index\) .*takes \['data'\]"),
    ],
)
def test_what_cannot_be_called(forward, message):
    with pytest.raises(ValueError, match=message + ".*(?s:.*)give 'call'"):
        call_model(Recording(forward), BATCH)
    assert call_model(Recording(lambda data: data), BATCH, lambda model, data: model(data)) is BATCH


def test_edge_features_come_where_a_model_takes_them():
    """PyG's models have an argument ``edge_attr`` whether they take it or not."""
    data = graph(edge_index=torch.tensor([[0, 1], [1, 0]]), edge_attr=torch.rand(2, 7))
    gat = GAT(3, 4, 2, 2, edge_dim=7)
    assert torch.equal(call_model(gat, data), gat(data.x, data.edge_index, edge_attr=data.edge_attr))
    gcn = GCN(3, 4, 2, 2)
    assert torch.equal(call_model(gcn, data), gcn(data.x, data.edge_index))


def test_weights_come_by_name_wherever_they_stand():
    data = graph(edge_index=torch.tensor([[0], [1]]), edge_weight=torch.tensor([0.5]))
    later = Recording(lambda x, edge_index, edge_attr=None, edge_weight=None: (edge_attr, edge_weight))
    assert call_model(later, data) == (None, data.edge_weight)
    with pytest.raises(ValueError, match="the forward of Recording has no argument 'edge_weight'.*give 'call'"):
        call_model(Recording(lambda x, edge_index, w=None: w), data)
