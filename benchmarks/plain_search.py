"""The search of an untrained ticket as one writes it down first with PyG: dense features, messages per edge, one sort.

It is what `untrained_cost.py` compares with. Nothing in it is slow on purpose: the graph is normalised once, and the
threshold is selected, not sorted. What it leaves out is what the package does: sparse features, sparse products,
weights without gradients, a threshold that is looked at before it is selected anew.
"""

import copy
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch_geometric.nn import GCNConv
from torch_geometric.nn.conv.gcn_conv import gcn_norm


class Mask(torch.autograd.Function):
    """Entries from the threshold on, with the gradient of the identity."""

    @staticmethod
    def forward(ctx, score, threshold):
        """Compare."""
        return (score >= threshold).to(score.dtype)

    @staticmethod
    def backward(ctx, gradient):
        """Hand the gradient on."""
        return gradient, None


class MaskedGCNConv(GCNConv):
    """PyG's layer with a score for every weight."""

    def __init__(self, in_channels, out_channels):
        super().__init__(in_channels, out_channels, cached=True, bias=False)
        self.score = torch.nn.Parameter(torch.empty_like(self.lin.weight))

    def forward(self, x, edge_index, threshold):
        """Run the layer under its mask."""
        if self._cached_edge_index is None:
            self._cached_edge_index = gcn_norm(edge_index, None, x.size(0), False, True, self.flow, x.dtype)
        edge_index, edge_weight = self._cached_edge_index
        x = F.linear(x, self.lin.weight * Mask.apply(self.score, threshold))
        return self.propagate(edge_index, x=x, edge_weight=edge_weight)


class MaskedGCN(torch.nn.Module):
    """Graph convolutions with one threshold for all their scores."""

    def __init__(self, in_channels, hidden_channels, num_layers, out_channels):
        super().__init__()
        sizes = [in_channels, *[hidden_channels] * (num_layers - 1), out_channels]
        self.convs = torch.nn.ModuleList(MaskedGCNConv(*pair) for pair in pairwise(sizes))
        for conv in self.convs:
            for tensor in (conv.lin.weight, conv.score):
                torch.nn.init.kaiming_uniform_(tensor, nonlinearity="relu")

    def forward(self, x, edge_index, sparsity):
        """Return logits at a sparsity."""
        scores = torch.cat([conv.score.detach().flatten() for conv in self.convs])
        threshold = scores.kthvalue(1 + round(sparsity * (scores.numel() - 1))).values
        for conv in self.convs[:-1]:
            x = conv(x, edge_index, threshold).relu()
        return self.convs[-1](x, edge_index, threshold)


def search(data, hidden_channels, num_layers, *, sparsity, epochs, lr, seed, after_epoch):
    """Search a mask as the paper says, and return the test accuracy of the epoch that the validation set chose."""
    torch.manual_seed(seed)
    model = MaskedGCN(data.num_features, hidden_channels, num_layers, int(data.y.max()) + 1)
    optimizer = torch.optim.AdamW([conv.score for conv in model.convs], lr=lr, weight_decay=0)
    best = (-1.0, None)
    for epoch in range(epochs):
        optimizer.zero_grad()
        out = model(data.x, data.edge_index, sparsity * min(1.0, epoch / (epochs / 2)))
        F.cross_entropy(out[data.train_mask], data.y[data.train_mask]).backward()
        optimizer.step()
        with torch.no_grad():
            hit = model(data.x, data.edge_index, sparsity).argmax(1) == data.y
        val = float(hit[data.val_mask].float().mean())
        if val > best[0]:
            best = (val, copy.deepcopy(model.state_dict()))
        after_epoch(epoch)
    model.load_state_dict(best[1])
    with torch.no_grad():
        hit = model(data.x, data.edge_index, sparsity).argmax(1) == data.y
    return float(hit[data.test_mask].float().mean())
