"""A network of GCNII layers, which PyG has no model for."""

from torch import nn
from torch_geometric.nn import GCN2Conv


class GCNII(nn.Module):
    """GCNII with a linear layer before and after; dropout of the features themselves would take half of the time."""

    def __init__(self, num_features, hidden, layers, num_classes, dropout, **options):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.first, self.last = nn.Linear(num_features, hidden), nn.Linear(hidden, num_classes)
        self.convs = nn.ModuleList(GCN2Conv(hidden, 0.1, 0.5, i + 1, **options) for i in range(layers))

    def forward(self, x, edge_index):
        """Return the logits."""
        x = start = self.first(x).relu()
        for conv in self.convs:
            x = conv(self.dropout(x), start, edge_index).relu()
        return self.last(self.dropout(x))
