import pytest
import torch
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import (
    APPNP,
    AGNNConv,
    ARMAConv,
    ChebConv,
    ClusterGCNConv,
    EdgeConv,
    EGConv,
    FAConv,
    FeaStConv,
    FiLMConv,
    GatedGraphConv,
    GENConv,
    GraphConv,
    LEConv,
    MessagePassing,
    MFConv,
    MixHopConv,
    ResGatedGraphConv,
    SAGEConv,
    SGConv,
    SimpleConv,
    SSGConv,
    SuperGATConv,
    TAGConv,
    TransformerConv,
)

from graphsparse.utils import layerwise_inference


class InDegree(MessagePassing):
    """Divides by the number of edges into the source: one step, but not decided by the edges into a node."""

    def forward(self, x, edge_index):
        degree = torch.bincount(edge_index[1], minlength=x.size(0)).clamp(min=1).view(-1, 1)
        return self.propagate(edge_index, x=x / degree)


class OutDegree(MessagePassing):
    def forward(self, x, edge_index):
        degree = torch.bincount(edge_index[0], minlength=x.size(0)).clamp(min=1).view(-1, 1)
        return self.propagate(edge_index, x=x / degree)


class Numbered(MessagePassing):
    def forward(self, x, edge_index):
        return self.propagate(edge_index, x=x + torch.arange(x.size(0)).view(-1, 1))


class Centred(MessagePassing):
    def forward(self, x, edge_index):
        return self.propagate(edge_index, x=x - x.mean(dim=0))


class EdgeCount(MessagePassing):
    def forward(self, x, edge_index):
        return self.propagate(edge_index, x=x) / (1 + edge_index.size(1))


class Single(MessagePassing):
    """Not written for double precision."""

    def forward(self, x, edge_index):
        return self.propagate(edge_index, x=x @ torch.eye(8))


class Faulty(MessagePassing):
    """Takes a pair, and makes something else of it."""

    def forward(self, x, edge_index):
        if isinstance(x, tuple):
            return self.propagate(edge_index, x=x) + 1
        return self.propagate(edge_index, x=x)


class Model(nn.Module):
    def __init__(self, conv, second_input=False):
        super().__init__()
        self.conv, self.second_input = conv, second_input

    def forward(self, x, edge_index):
        start = x
        for _ in range(2):
            x = self.conv(x, start, edge_index) if self.second_input else self.conv(x, edge_index)
            x = x.relu()
        return x


def graph(lonely=3):
    generator = torch.Generator().manual_seed(0)
    edge_index = torch.randint(40 - lonely, (2, 200), generator=generator)
    return Data(x=torch.randn(40, 8, generator=generator), edge_index=edge_index)


EXACT = {
    "AGNNConv": lambda: AGNNConv(),
    "ClusterGCNConv": lambda: ClusterGCNConv(8, 8),
    "EdgeConv": lambda: EdgeConv(nn.Linear(16, 8)),
    "FeaStConv": lambda: FeaStConv(8, 8, heads=2),
    "FiLMConv": lambda: FiLMConv(8, 8),
    "GENConv": lambda: GENConv(8, 8),
    "GraphConv": lambda: GraphConv(8, 8),
    "LEConv": lambda: LEConv(8, 8),
    "MFConv": lambda: MFConv(8, 8),
    "ResGatedGraphConv": lambda: ResGatedGraphConv(8, 8),
    "SAGEConv of several": lambda: SAGEConv(8, 8, aggr=["softmax", "std", "max"]),
    "SimpleConv": lambda: SimpleConv("mean", "self_loop"),
    "SuperGATConv": lambda: SuperGATConv(8, 8),
    "TransformerConv": lambda: TransformerConv(8, 8),
    "only single precision": lambda: Single(),
    "wrong for pairs": lambda: Faulty(),
}
REFUSED = {
    "APPNP": lambda: APPNP(2, 0.1),
    "ARMAConv": lambda: ARMAConv(8, 8),
    "ChebConv": lambda: ChebConv(8, 8, 2),
    "EGConv": lambda: EGConv(8, 8),
    "EGConv without normalisation": lambda: EGConv(8, 8, aggregators=["sum"]),  # self-loops up to the last linked node
    "GatedGraphConv": lambda: GatedGraphConv(8, 2),
    "MixHopConv": lambda: MixHopConv(8, 8, powers=[1]),
    "SGConv": lambda: SGConv(8, 8, K=1),
    "SSGConv": lambda: SSGConv(8, 8, alpha=0.1, K=2),
    "TAGConv": lambda: TAGConv(8, 8),
    "in-degree of the source": lambda: InDegree(),
    "out-degree of the source": lambda: OutDegree(),
    "number of the node": lambda: Numbered(),
    "mean of all nodes": lambda: Centred(),
    "number of edges": lambda: EdgeCount(),
}


@pytest.mark.parametrize("name", EXACT)
def test_layers_of_one_step_are_exact(name):
    model, data = Model(EXACT[name]()).eval(), graph()
    with torch.no_grad():
        expected = model(data.x, data.edge_index)
    found = layerwise_inference(model, data, batch_size=9, max_edges=60)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("name", REFUSED)
def test_other_layers_are_refused(name):
    with pytest.raises(ValueError, match="'conv' needs more than the edges into a node, and their sources"):
        layerwise_inference(Model(REFUSED[name]()), graph())


def test_a_layer_with_two_inputs_is_refused():
    with pytest.raises(ValueError, match="layer FAConv 'conv' needs more than the edges into a node"):
        layerwise_inference(Model(FAConv(8), second_input=True), graph())


def test_a_difference_is_found_behind_features_that_are_zero():
    data = graph()
    data.x = torch.zeros_like(data.x)
    with pytest.raises(ValueError, match="needs more than the edges into a node"):
        layerwise_inference(Model(InDegree()), data)


def test_an_aggregation_that_depends_on_the_order_of_edges_is_refused():
    data = graph(lonely=0)
    data.edge_index = torch.cat([data.edge_index, torch.arange(40).repeat(2, 1)], dim=1)
    data.edge_index = data.edge_index[:, data.edge_index[1].argsort(stable=True)]
    with pytest.raises(ValueError, match="layer SAGEConv 'conv' .*depends on the order of edges"):
        layerwise_inference(Model(SAGEConv(8, 8, aggr="lstm")), data)


def test_what_a_layer_says_when_it_fails_is_passed_on():
    class Fails(MessagePassing):
        def forward(self, x, edge_index):
            if edge_index.size(1) > 9:
                raise RuntimeError("too much for me")
            return x

    with pytest.raises(ValueError, match="layer Fails 'conv' fails on a few nodes: too much for me"):
        layerwise_inference(Model(Fails()), graph())
