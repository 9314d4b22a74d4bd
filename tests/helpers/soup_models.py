"""Models whose states are mixed, and states that lie far enough apart to matter."""

import torch
from models import sequential
from torch import nn
from torch_geometric.nn import (
    GAT,
    GCN,
    GIN,
    MLP,
    GATConv,
    GCN2Conv,
    GCNConv,
    GINConv,
    GraphConv,
    GraphNorm,
    GraphSAGE,
    SAGEConv,
    SGConv,
)

import graphsparse.nn as fast
from graphsparse.nn import accelerate


class Deep(nn.Module):
    """GCNII with a linear layer before and after, as a module of one's own."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(8, 16), nn.Linear(16, 3)
        self.convs = nn.ModuleList(GCN2Conv(16, 0.1, 0.5, i + 1) for i in range(4))

    def forward(self, x, edge_index):
        x = start = self.first(x).relu()
        for conv in self.convs:
            x = conv(x, start, edge_index).relu()
        return self.last(x)


class Residual(nn.Module):
    """Three kinds of layers, sums over them, and work in place."""

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList([SAGEConv(8, 8), GCNConv(8, 8), GraphConv(8, 3)])

    def forward(self, x, edge_index):
        for conv in self.convs[:2]:
            x = x + conv(x, edge_index).relu_()
        return self.convs[2](x, edge_index).log_softmax(-1)


def deep():
    """GCNII in the form that can be cached, with work in place."""
    layers = [(nn.Linear(8, 16), "x -> x"), (nn.ReLU(inplace=True), "x -> start")]
    for i in range(3):
        layers.append((GCN2Conv(16, 0.1, 0.5, i + 1), "x, start, edge_index -> x"))
        layers.append((nn.ELU(inplace=True), "x -> x"))
    return sequential("x, edge_index", [*layers, (nn.Linear(16, 3), "x -> x")])


def shared():
    """One layer used three times, the first time on constant features."""
    conv = GCNConv(8, 8)
    layers = [(conv, "x, edge_index -> h"), (nn.ReLU(), "h -> h"), (conv, "h, edge_index -> h")]
    return sequential("x, edge_index", [*layers, (conv, "h, edge_index -> h"), (nn.Linear(8, 3), "h -> h")])


def beside():
    """Layers on the features after others on hidden vectors."""
    layers = [(SAGEConv(8, 8), "x, edge_index -> h"), (nn.Tanh(), "h -> h"), (GCNConv(8, 8), "x, edge_index -> x")]
    layers += [(GCN2Conv(8, 0.4, 0.5, 2), "h, x, edge_index -> h"), (GATConv(8, 3), "h, edge_index -> h")]
    return sequential("x, edge_index", layers)


#: Models that can be evaluated on the rows that count.
CACHED = {
    "GCN 1": lambda: GCN(8, 16, 1, 3),
    "GCN 2": lambda: GCN(8, 16, 2, 3, dropout=0.5),
    "GCN 3": lambda: GCN(8, 16, 3, 3),
    "GCN, narrow": lambda: GCN(8, 4, 3, 3, act="elu"),
    "GCN, plain sum": lambda: GCN(8, 16, 2, 3, normalize=False),
    "GCN, jk cat": lambda: GCN(8, 16, 3, 3, jk="cat"),
    "GCN, jk max": lambda: GCN(8, 16, 3, 3, jk="max", act_first=True, norm="batch_norm"),
    "GCN, jk lstm": lambda: GCN(8, 16, 2, 3, jk="lstm"),
    "GCN, batch normalisation": lambda: GCN(8, 16, 2, 3, norm="batch_norm"),
    "GCN, accelerated": lambda: accelerate(GCN(8, 16, 2, 3)),
    "SAGE 1": lambda: GraphSAGE(8, 16, 1, 3),
    "SAGE 2": lambda: GraphSAGE(8, 16, 2, 3),
    "SAGE, sum": lambda: GraphSAGE(8, 16, 2, 3, aggr="add"),
    "SAGE, max": lambda: GraphSAGE(8, 16, 2, 3, aggr="max"),
    "SAGE, projected": lambda: GraphSAGE(8, 16, 2, 3, project=True),
    "SAGE, unit rows": lambda: GraphSAGE(8, 16, 3, 3, normalize=True),
    "SAGE, no root": lambda: GraphSAGE(8, 16, 2, 3, root_weight=False),
    "SAGE, accelerated": lambda: accelerate(GraphSAGE(8, 16, 2, 3)),
    "GIN 1": lambda: GIN(8, 16, 1, 3),
    "GIN": lambda: GIN(8, 16, 2, 3),
    "GIN, epsilon": lambda: GIN(8, 16, 2, 3, train_eps=True, jk="last"),
    "GAT": lambda: GAT(8, 16, 2, 3, heads=2),
    "GAT, accelerated": lambda: accelerate(GAT(8, 16, 2, 3, residual=True)),
    "GCNII": deep,
    "shared layer": shared,
    "layers beside each other": beside,
}
#: Models of other kinds, which are evaluated as they are.
OTHERS = {
    "GATv2": lambda: GAT(8, 16, 3, 3, v2=True),
    "GCNII of one's own": Deep,
    "residual": Residual,
    "SGC": lambda: SGConv(8, 3, K=3),
}


class Bounded(nn.Linear):
    """A layer that does something of its own with its weight."""

    def forward(self, x):
        return nn.functional.linear(x, self.weight.tanh(), self.bias)


class OwnForward(fast.GCNConv):
    """Inherits from a layer that is known, and is none."""

    def forward(self, x, edge_index, edge_weight=None):
        return super().forward(x.tanh(), edge_index, edge_weight).sigmoid()


class OwnMessage(fast.GCNConv):
    """The same, one step further down."""

    def message(self, x_j, edge_weight):
        return x_j


class Two(nn.Module):
    """A layer, and something between it and a second one."""

    def __init__(self, between=lambda model, x, h: h, layer=GCNConv):
        super().__init__()
        self.first, self.last, self.between = layer(8, 8), SAGEConv(8, 3), between
        self.table, self.scale = nn.Parameter(torch.randn(400, 8)), nn.Parameter(torch.ones(8))

    def forward(self, x, edge_index):
        return self.last(self.between(self, x, self.first(x, edge_index)).relu(), edge_index)


def all_rows(model, x, h):
    """Fail on a part of the graph."""
    assert x.size(0) == 400
    return h


def watched(model):
    """Add a hook that changes what a matrix gives."""
    model.convs[0].lin.register_forward_hook(lambda module, args, out: out.tanh())
    return model


#: Models that look as if they could be, and are not what they seem, on graphs of 400 nodes.
TREACHEROUS = {
    "subclass, own forward": lambda: Two(layer=OwnForward),
    "subclass, own message": lambda: Two(layer=OwnMessage),
    "other matrix": lambda: with_part(GCN(8, 16, 2, 3), "convs.0.lin", Bounded(8, 16, bias=False)),
    "other matrix, last": lambda: with_part(GCN(8, 16, 2, 3), "convs.1.lin", Bounded(16, 3, bias=False)),
    "other matrix, SAGE": lambda: with_part(GraphSAGE(8, 16, 2, 3), "convs.1.lin_l", Bounded(16, 3)),
    "network for a matrix": lambda: with_part(
        GCN(8, 16, 2, 3), "convs.0.lin", nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 16))
    ),
    "hook": lambda: watched(GCN(8, 16, 2, 3)),
    "reads a weight": lambda: Two(lambda model, x, h: h / model.first.lin.weight.norm()),
    "uses a weight twice": lambda: Two(lambda model, x, h: h + x @ model.first.lin.weight.softmax(0).t()),
    "row per node": lambda: Two(lambda model, x, h: h + model.table),
    "view": lambda: Two(lambda model, x, h: h.view(400, -1)),
    "assertion": lambda: Two(all_rows),
    "median": lambda: GraphSAGE(8, 16, 2, 3, aggr="median"),
    "writes into x": lambda: Two(lambda model, x, h: h + x.mul_(2)),
    "kept normalisation": lambda: GCN(8, 16, 2, 3, cached=True),
    "normalises all rows, GIN 1": lambda: GIN(8, 16, 1, 3, norm="graph_norm"),
    "normalises all rows, GIN 2": lambda: GIN(8, 16, 2, 3, norm="graph_norm"),
    "normalises all rows within GIN": lambda: Two(layer=lambda *sizes: GINConv(MLP([*sizes, 8], norm="pair_norm"))),
    "normalises all rows within GIN, last": lambda: with_part(
        GIN(8, 16, 2, 3), "convs.1.nn", nn.Sequential(nn.Linear(16, 3), GraphNorm(3))
    ),
}


def with_part(model, path, part):
    """Put another module in the place of a part of a model."""
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, part)
    return model


def two_states(make_model, seed=0, scale=0.3):
    """Return a model and two states of it."""
    torch.manual_seed(seed)
    model = make_model()
    states = []
    for _ in range(2):
        states.append(
            {
                name: value + scale * torch.randn_like(value) if value.is_floating_point() else value.clone()
                for name, value in model.state_dict().items()
            }
        )
        for name in states[-1]:
            if name.endswith("running_var"):
                states[-1][name].abs_()
    return model, *states
