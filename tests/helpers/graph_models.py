"""Sets of small graphs, and models that judge them."""

import torch
import torch.nn.functional as F
from torch_geometric.data import Data
from torch_geometric.nn import GINEConv, global_add_pool, global_mean_pool


def random_graphs(num_graphs=40, num_features=4, seed=0, labels="binary"):
    """Graphs whose features carry the label; of three binary questions some answers are not known."""
    generator = torch.Generator().manual_seed(seed)
    graphs = []
    for i in range(num_graphs):
        num_nodes = int(torch.randint(2, 9, (1,), generator=generator))
        edge_index = torch.randint(num_nodes, (2, 3 * num_nodes), generator=generator)
        x = torch.randn(num_nodes, num_features, generator=generator)
        answer = torch.randint(2, (1, 3), generator=generator).float()
        x[:, :3] += 2 * answer
        y = {"binary": answer, "multiclass": answer[:, 0].long(), "regression": x.mean(0)[None, :2] * 3}[labels]
        if labels == "binary":
            y[0, i % 3] = torch.nan
        graphs.append(Data(x=x, edge_index=edge_index, edge_attr=torch.randn(edge_index.size(1), 4), y=y))
    return graphs


class PoolNet(torch.nn.Module):
    """Two layers, batch normalisation over nodes and over graphs, dropout."""

    def __init__(self, num_features=4, num_outputs=3, hidden=16, dropout=0.3):
        super().__init__()
        self.first, self.second = torch.nn.Linear(num_features, hidden), torch.nn.Linear(hidden, hidden)
        self.node_norm, self.graph_norm = torch.nn.BatchNorm1d(hidden), torch.nn.BatchNorm1d(hidden)
        self.last = torch.nn.Linear(hidden, num_outputs)
        self.dropout = dropout

    def forward(self, x, edge_index, batch):
        x = self.node_norm(self.first(x)).relu()
        x = x.index_add(0, edge_index[1], self.second(x)[edge_index[0]]).relu()
        x = self.graph_norm(global_mean_pool(x, batch))
        return self.last(F.dropout(x, self.dropout, self.training))


class MoleculeNet(torch.nn.Module):
    """A GIN with bonds over OGB's encoders of atoms and bonds; the arguments stand in the order of OGB's examples."""

    def __init__(self, num_outputs=1, hidden=32, layers=2, dropout=0.2):
        super().__init__()
        from ogb.graphproppred.mol_encoder import AtomEncoder, BondEncoder

        self.atoms = AtomEncoder(hidden)
        self.bonds = torch.nn.ModuleList(BondEncoder(hidden) for _ in range(layers))
        self.convs = torch.nn.ModuleList(
            GINEConv(torch.nn.Sequential(torch.nn.Linear(hidden, hidden), torch.nn.ReLU())) for _ in range(layers)
        )
        self.norms = torch.nn.ModuleList(torch.nn.BatchNorm1d(hidden) for _ in range(layers))
        self.last = torch.nn.Linear(hidden, num_outputs)
        self.dropout = dropout

    def forward(self, x, edge_index, edge_attr, batch):
        x = self.atoms(x)
        for conv, bond, norm in zip(self.convs, self.bonds, self.norms, strict=True):
            x = F.dropout(norm(conv(x, edge_index, bond(edge_attr))).relu(), self.dropout, self.training)
        return self.last(global_add_pool(x, batch))
