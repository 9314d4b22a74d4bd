"""Models of every kind that a ticket must work for, and what they take."""

import random
from itertools import count

import torch
import torch.nn.functional as F
from torch_geometric.nn import GAT, GCN, GIN, GCN2Conv, GCNConv, GraphSAGE, Sequential

_count = count()


def sequential(arguments, layers):
    """PyG's ``Sequential``, which names the code that it makes by a random number, and takes any that has the name.

    So two of them, made after the same seed, would be the first one.
    """
    random.seed(next(_count))
    return Sequential(arguments, layers)


class GCNII(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = torch.nn.Linear(8, 16), torch.nn.Linear(16, 3)
        self.convs = torch.nn.ModuleList(GCN2Conv(16, alpha=0.1, theta=0.5, layer=i + 1) for i in range(3))

    def forward(self, x, edge_index):
        start = x = self.first(x).relu()
        for conv in self.convs:
            x = conv(F.dropout(x, 0.2, self.training), start, edge_index).relu()
        return self.last(x)


class NormAndTie(torch.nn.Module):
    """BatchNorm with its buffers, and one weight under two names."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = GCNConv(8, 16), GCNConv(16, 16), GCNConv(16, 16)
        self.norm = torch.nn.BatchNorm1d(16)
        self.third.lin.weight = self.second.lin.weight
        self.last = torch.nn.Linear(16, 3)

    def forward(self, x, edge_index):
        x = self.norm(self.first(x, edge_index)).relu()
        x = self.second(x, edge_index).relu()
        return self.last(self.third(x, edge_index).relu())


MODELS = {
    "GCN": lambda: GCN(8, 16, 2, 3, dropout=0.5),
    "GIN": lambda: GIN(8, 16, 2, 3),
    "GAT": lambda: GAT(8, 16, 2, 3, heads=4),
    "GraphSAGE": lambda: GraphSAGE(8, 16, 2, 3),
    "GCNII": GCNII,
    "BatchNorm and a tied weight": NormAndTie,
}
