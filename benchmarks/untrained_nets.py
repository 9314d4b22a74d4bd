"""The networks of the untrained tickets' figures, without biases, and with PyG's layers."""

from itertools import pairwise

import torch
from torch import nn
from torch_geometric.nn import GAT, GCN, GINConv


class ReleaseGIN(nn.Module):
    """The GIN of the published figures: one matrix per layer, the mean of the neighbours, and a second way out.

    After every layer, the last one included, comes a ReLU; the logits are the mean of the last layer and a projection
    of the one before.
    """

    def __init__(self, in_channels, hidden_channels, num_layers, out_channels):
        super().__init__()
        sizes = [in_channels, *[hidden_channels] * (num_layers - 1), out_channels]
        self.convs = nn.ModuleList(
            GINConv(nn.Linear(inner, outer, bias=False), aggr="mean") for inner, outer in pairwise(sizes)
        )
        self.projection = nn.Linear(hidden_channels, out_channels, bias=False)

    def forward(self, x, edge_index):
        """Return logits."""
        for conv in self.convs:
            before, x = x, torch.relu(conv(x, edge_index))
        return (self.projection(before) + x) / 2


def make_net(name, in_channels, hidden_channels, num_layers, out_channels):
    """Build GCN, GIN or GAT (one head)."""
    if name == "GCN":
        return GCN(in_channels, hidden_channels, num_layers, out_channels, bias=False)
    if name == "GIN":
        return ReleaseGIN(in_channels, hidden_channels, num_layers, out_channels)
    if name == "GAT":
        return GAT(in_channels, hidden_channels, num_layers, out_channels, heads=1, bias=False)
    raise ValueError(f"'name' must be 'GCN', 'GIN' or 'GAT' (got {name!r})")
