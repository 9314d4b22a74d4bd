import pytest
import torch
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import GCN, GCNConv, SAGEConv

from graphsparse.utils.replay import Arguments, EdgePlaceholder, Replay, twin


def plain_call(model, data):
    return model(data.x, data.edge_index)


def rows(num=5, width=4):
    return Data(x=torch.ones(num, width), edge_index=EdgePlaceholder.make("cpu"))


@pytest.mark.parametrize(
    "use",
    [
        lambda edges: edges + 1,
        lambda edges: edges[0],
        lambda edges: edges.size(1),
        lambda edges: edges.shape,
        lambda edges: edges.numel(),
        lambda edges: list(edges),
        lambda edges: edges.clone(),
        lambda edges: torch.cat([edges, edges]),
        lambda edges: torch.zeros(5).index_add(0, edges, edges),
        lambda edges: torch.ones(2, 2) @ edges,
    ],
)
def test_nothing_can_be_computed_with_the_placeholder(use):
    with pytest.raises(ValueError, match="the model computes with the edges outside its message passing layers"):
        use(EdgePlaceholder.make("cpu"))


def test_the_kind_of_the_placeholder_can_be_asked_for():
    edges = EdgePlaceholder.make("cpu")
    assert isinstance(edges, torch.Tensor)
    assert (edges.dtype, edges.layout, edges.device.type) == (torch.long, torch.strided, "cpu")
    assert edges.dim() == edges.ndim == 2
    assert not edges.is_sparse


def test_calls_are_answered_and_a_run_stops_where_it_is_told():
    model = GCN(4, 8, 2, 3).eval()
    replay = Replay(model, plain_call)
    given = torch.randn(5, 8)
    asked = []

    def answer(k, arguments):
        asked.append((k, arguments.layer))
        return given if k == 0 else torch.zeros(5, 3)

    assert torch.equal(replay.run(rows(), answer), torch.zeros(5, 3))
    assert asked == [(0, model.convs[0]), (1, model.convs[1])]
    arguments = replay.run(rows(), answer, stop=1)
    assert arguments.layer is model.convs[1]
    assert torch.equal(arguments.leaves[arguments.leaf_names.index("x")], given.relu())
    assert len(asked) == 3
    assert replay.name(1) == "GCNConv 'convs.1'"


def test_the_layers_are_themselves_again_after_a_failure_and_after_a_forward_of_their_own():
    model = GCN(4, 8, 2, 3).eval()
    own = lambda *args, **kwargs: "own"  # noqa: E731
    model.convs[1].forward = own
    replay = Replay(model, plain_call)

    def fail(k, arguments):
        raise KeyError(k)

    with pytest.raises(KeyError):
        replay.run(rows(), fail)
    assert "forward" not in model.convs[0].__dict__
    assert model.convs[1].__dict__["forward"] is own
    replay.run(rows(), lambda k, arguments: torch.zeros(5, 8), stop=1)
    assert "forward" not in model.convs[0].__dict__
    assert model.convs[1].__dict__["forward"] is own


def test_an_order_that_depends_on_the_rows_is_refused():
    class Moody(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = GCNConv(4, 4), GCNConv(4, 4)

        def forward(self, x, edge_index):
            layers = (self.one, self.two) if x.size(0) < 6 else (self.two, self.one) if x.size(0) < 8 else (self.one,)
            for layer in layers:
                x = layer(x, edge_index)
            return x

    replay = Replay(Moody(), plain_call)
    answer = lambda k, arguments: arguments.leaves[0]  # noqa: E731
    replay.run(rows(5), answer)
    with pytest.raises(ValueError, match="order that depends on the rows"):
        replay.run(rows(7), answer)
    with pytest.raises(ValueError, match="called 1 layers on one block of rows and 2 on another"):
        replay.run(rows(9), answer)


def test_a_model_that_is_itself_a_layer():
    replay = Replay(SAGEConv(4, 2), plain_call)
    assert replay.run(rows(), lambda k, arguments: arguments.leaves[0] + 1).sum() == 40
    assert replay.name(0) == "SAGEConv"


def test_leaves_go_out_and_in():
    x, y, edges, weight = torch.ones(3, 4), torch.zeros(2, 4), torch.zeros(2, 0), torch.ones(0)
    arguments = Arguments(SAGEConv(4, 2), ((x, y), edges), {"size": (3, 2)})
    assert arguments.leaf_names == ["x", "x", "edge_index", "size", "size"]
    args, kwargs = arguments.filled([1, 2, 3, 4, 5])
    assert (args, kwargs) == (((1, 2), 3, (4, 5)), {})
    arguments = Arguments(GCNConv(4, 2), (x, edges), {"edge_weight": weight})
    assert arguments.leaf_names == ["x", "edge_index", "edge_weight"]
    assert arguments.leaves[2] is weight


def test_twin_has_the_parameters_and_forgets_the_graph():
    layer = GCNConv(4, 2, cached=True)
    layer(torch.ones(3, 4), torch.tensor([[0, 1], [1, 2]]))
    other = twin(layer)
    assert other.lin.weight is layer.lin.weight
    assert layer._cached_edge_index is not None
    other(torch.ones(5, 4), torch.tensor([[0, 1], [1, 4]]))
    assert other._cached_edge_index is None
    other.normalize = False
    assert layer.normalize
