"""Models whose states are mixed, and states that lie far enough apart to matter."""

import torch
from torch import nn
from torch_geometric.nn import GAT, GCN, GIN, GCN2Conv, GCNConv, GraphConv, GraphSAGE, SAGEConv

from graphsparse.nn import accelerate


class Deep(nn.Module):
    """GCNII with a linear layer before and after."""

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


class Shared(nn.Module):
    """One layer used twice."""

    def __init__(self):
        super().__init__()
        self.first, self.again, self.last = GCNConv(8, 8), SAGEConv(8, 8), nn.Linear(8, 3)

    def forward(self, x, edge_index):
        x = self.first(x, edge_index).relu()
        return self.last(self.again(self.again(x, edge_index).relu(), edge_index))


class SharedFirst(nn.Module):
    """The first layer is used again where its input is no longer constant."""

    def __init__(self):
        super().__init__()
        self.conv, self.last = GCNConv(8, 8), SAGEConv(8, 3)

    def forward(self, x, edge_index):
        return self.last(self.conv(self.conv(x, edge_index).relu(), edge_index), edge_index)


#: Models that can be evaluated on the rows that count.
CACHED = {
    "GCN 1": lambda: GCN(8, 16, 1, 3),
    "GCN 2": lambda: GCN(8, 16, 2, 3, dropout=0.5),
    "GCN 3": lambda: GCN(8, 16, 3, 3),
    "GCN, plain sum": lambda: GCN(8, 16, 2, 3, normalize=False),
    "GCN, jumping knowledge": lambda: GCN(8, 16, 3, 3, jk="cat"),
    "GCN, batch normalisation": lambda: GCN(8, 16, 2, 3, norm="batch_norm"),
    "GCN, accelerated": lambda: accelerate(GCN(8, 16, 2, 3)),
    "SAGE 2": lambda: GraphSAGE(8, 16, 2, 3),
    "SAGE, sum": lambda: GraphSAGE(8, 16, 2, 3, aggr="add"),
    "SAGE, max": lambda: GraphSAGE(8, 16, 2, 3, aggr="max"),
    "SAGE, projected": lambda: GraphSAGE(8, 16, 2, 3, project=True),
    "SAGE, unit rows": lambda: GraphSAGE(8, 16, 3, 3, normalize=True),
    "SAGE, no root": lambda: GraphSAGE(8, 16, 2, 3, root_weight=False),
    "SAGE, accelerated": lambda: accelerate(GraphSAGE(8, 16, 2, 3)),
    "GIN": lambda: GIN(8, 16, 2, 3),
    "GIN, epsilon": lambda: GIN(8, 16, 2, 3, train_eps=True),
    "GAT": lambda: GAT(8, 16, 2, 3, heads=2),
    "GATv2": lambda: GAT(8, 16, 3, 3, v2=True),
    "GAT, accelerated": lambda: accelerate(GAT(8, 16, 2, 3)),
    "GCNII": Deep,
    "residual": Residual,
    "shared layer": Shared,
    "shared first layer": SharedFirst,
}


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
