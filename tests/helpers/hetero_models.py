"""Networks for the papers and authors of ``random_hetero_graph``, as users of PyG write them."""

import torch
from torch_geometric.nn import GAT, GraphConv, HeteroConv, SAGEConv, to_hetero

from graphsparse.testing import random_hetero_graph

WIDTHS = {"paper": 8, "author": 5}
TYPES = random_hetero_graph().edge_types


class Convs(torch.nn.Module):
    """Two layers of ``HeteroConv``; returns logits of the papers."""

    def __init__(self, dropout=0.0):
        super().__init__()
        first = {kind: SAGEConv((WIDTHS[kind[0]], WIDTHS[kind[2]]), 8) for kind in TYPES}
        self.first, self.dropout = HeteroConv(first), torch.nn.Dropout(dropout)
        self.second = HeteroConv({kind: SAGEConv((8, 8), 3) for kind in TYPES})

    def forward(self, x_dict, edge_index_dict):
        h = {kind: self.dropout(x.relu()) for kind, x in self.first(x_dict, edge_index_dict).items()}
        return self.second(h, edge_index_dict)["paper"]


class Weighted(torch.nn.Module):
    """What ``to_hetero`` makes of a network with edge weights; returns a dictionary."""

    def __init__(self):
        super().__init__()
        self.first, self.second = GraphConv((8, 8), 8), GraphConv((8, 8), 3)

    def forward(self, x, edge_index, edge_weight=None):
        return self.second(self.first(x, edge_index, edge_weight).relu(), edge_index, edge_weight)


class Encoded(torch.nn.Module):
    """Brings all types to one width, and hands them to what ``to_hetero`` made."""

    def __init__(self, make):
        super().__init__()
        self.encode = torch.nn.ModuleDict({kind: torch.nn.Linear(width, 8) for kind, width in WIDTHS.items()})
        self.gnn = to_hetero(make(), random_hetero_graph().metadata())

    def forward(self, x_dict, edge_index_dict, edge_weight_dict=None):
        h = {kind: self.encode[kind](x) for kind, x in x_dict.items()}
        return self.gnn(h, edge_index_dict, *([] if edge_weight_dict is None else [edge_weight_dict]))


HETERO = {
    "HeteroConv": Convs,
    "to_hetero": lambda: Encoded(Weighted),
    "to_hetero of a GAT": lambda: Encoded(lambda: GAT((8, 8), 8, 2, 3, add_self_loops=False)),
}
