import pytest
import torch
from torch_geometric.nn import GATConv, GCNConv, GINConv, GraphConv, SAGEConv, SGConv, TAGConv

from graphsparse.soups.evaluation.stages import AnyStage, GINStage, HopsStage, LinearStage, make_stage
from graphsparse.testing import random_graph
from graphsparse.utils.call_model import call_model
from graphsparse.utils.in_edges import InEdges
from graphsparse.utils.replay import EdgePlaceholder, Replay
from graphsparse.utils.trace_layers import trace_layers

DATA = random_graph()
EDGES = InEdges.sort(DATA.edge_index, 60)
WANTED = torch.tensor([3, 17, 4, 59])
CPU = torch.device("cpu")


def stage_of(layer):
    def block(rows, edges):
        part = DATA.__class__(x=DATA.x[rows].clone())
        part.edge_index = EdgePlaceholder.make("cpu")
        return part

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, x, edge_index):
            return self.layer(x, edge_index)

    with torch.no_grad():
        (call,) = trace_layers(Replay(Model(), call_model), block, 60, EDGES.num_edges).calls
        return make_stage(call, EDGES, WANTED, lambda ids: {}, CPU)


@pytest.mark.parametrize(
    ("layer", "kind"),
    [
        (GCNConv(8, 3), LinearStage),
        (GCNConv(8, 30), LinearStage),
        (GCNConv(8, 3, bias=False, improved=True), LinearStage),
        (SAGEConv(8, 3), LinearStage),
        (SAGEConv(8, 30, normalize=True), LinearStage),
        (SAGEConv(8, 3, root_weight=False, bias=False), LinearStage),
        (GraphConv(8, 3, aggr="mean"), LinearStage),
        (GINConv(torch.nn.Linear(8, 3), eps=0.3), GINStage),
        (SGConv(8, 3, K=3), HopsStage),
        (SGConv(8, 3, K=1, add_self_loops=False, bias=False), HopsStage),
        (SAGEConv(8, 3, project=True), AnyStage),
        (GraphConv(8, 3, aggr="max"), AnyStage),
        (GATConv(8, 3, heads=2), AnyStage),
    ],
)
def test_wanted_rows_equal_those_of_the_whole_graph(layer, kind):
    with torch.no_grad():
        stage = stage_of(layer)
        assert type(stage) is kind
        assert torch.equal(stage.rows[:4], WANTED)
        x = DATA.x[stage.rows]
        expected = layer(DATA.x, DATA.edge_index)[WANTED]
        if isinstance(stage, AnyStage):
            found = stage.output(dict.fromkeys(stage.places, x))
        else:
            found = stage.after(stage.product(stage.before(x)), stage.root(x[:4]))
            parts = [stage.product(stage.before(x), start, start + 2) for start in (0, 2)]
            assert torch.allclose(torch.cat(parts), stage.product(stage.before(x)), atol=1e-6)
        assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("layer", "linear"),
    [
        (GCNConv(8, 3), True),
        (SAGEConv(8, 3), True),
        (SAGEConv(8, 3, normalize=True), False),
        (GraphConv(8, 3), True),
        (SGConv(8, 3, K=2), True),
    ],
)
def test_linear_in_the_weights(layer, linear):
    stage = stage_of(layer)
    assert stage.is_linear is linear
    x = DATA.x[stage.rows]
    with torch.no_grad():

        def output():
            return stage.after(stage.product(stage.before(x)), stage.root(x[:4]))

        outputs, states = [], []
        for seed in (0, 1):
            torch.manual_seed(seed)
            for parameter in layer.parameters():
                parameter.normal_()
            outputs.append(output())
            states.append([p.clone() for p in layer.parameters()])
        for p, first, second in zip(layer.parameters(), *states, strict=True):
            p.copy_(0.25 * first + 0.75 * second)
        between = 0.25 * outputs[0] + 0.75 * outputs[1]
        assert torch.allclose(output(), between, atol=1e-5) is linear


def test_layers_that_need_more_of_the_graph():
    with pytest.raises(ValueError, match="TAGConv"):
        stage_of(TAGConv(8, 3, K=2))
