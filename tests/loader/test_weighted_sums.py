import pytest
import torch
from torch_geometric.nn import GAT, GCN, GCN2Conv, GCNConv, GraphConv, GraphSAGE, MessagePassing, SGConv

from graphsparse import nn as ours
from graphsparse.loader.batches import check_sums_weighted_messages


class Own(MessagePassing):
    def forward(self, x, edge_index, edge_weight):
        return self.propagate(edge_index, x=x, edge_weight=edge_weight)


def gcn(**options):
    return GCN(8, 16, 2, 3, **options)


@pytest.mark.parametrize(
    "model",
    [
        gcn(normalize=False),
        ours.accelerate(gcn(normalize=False)),
        GCN2Conv(8, 0.1, normalize=False),
        GraphConv(8, 3),
        ours.SAGEConv(8, 3, aggr="sum", normalize=True),
        ours.GINConv(torch.nn.Linear(8, 3)),
        Own(),
    ],
)
def test_models_that_sum(model):
    check_sums_weighted_messages(model)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (gcn(), r"layer 'convs.0' of 'model', a GCNConv, normalises the weights again: use layers that do not"),
        (ours.accelerate(gcn()), r"a GCNConv, normalises the weights again"),
        (gcn(), r"GCN\(..., normalize=False\) on T.GCNNorm\(\)\(data\)"),
        (GCNConv(8, 3, aggr="mean", normalize=False), "takes the mean of messages instead of their sum"),
        (GraphSAGE(8, 16, 2, 3), "a SAGEConv, takes no edge weights"),
        (ours.accelerate(GraphSAGE(8, 16, 2, 3)), "a SAGEConv, takes the mean"),
        (GAT(8, 16, 2, 3), "a GATConv, takes no edge weights"),
        (GraphConv(8, 3, aggr="max"), "takes the max of messages"),
        (SGConv(8, 3), "is not known to sum messages with the weights as they are"),
        (Own(aggr="mean"), "takes the mean"),
        (torch.nn.Linear(8, 3), "has no message passing layer"),
    ],
)
def test_models_that_do_not(model, message):
    with pytest.raises(ValueError, match=message):
        check_sums_weighted_messages(model)


def test_no_model():
    with pytest.raises(TypeError, match="'model' must be a torch.nn.Module"):
        check_sums_weighted_messages("GCN")
