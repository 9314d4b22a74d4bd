import pytest
import torch
from layers import close, edge_by_edge, twins, unsorted_graph
from torch_geometric.nn import to_hetero

from graphsparse.nn import GCN2Conv


@pytest.mark.parametrize("shared", [False, True])
def test_constant_features_stay_as_they_are(shared):
    edge_index, _, x = unsorted_graph()
    theirs, ours = twins("GCN2Conv", 5, 0.1, 0.5, 1, shared_weights=shared)
    given, initial = x.clone(), 2 * x
    for _ in range(4):
        close([ours(given, initial, edge_index)], [theirs(x, 2 * x, edge_index)])
    assert torch.equal(given, x)
    assert torch.equal(initial, 2 * x)
    longer = torch.cat([initial, initial])
    close([ours(given, longer, edge_index)], [theirs(x, longer, edge_index)])
    close([ours(x.to_sparse_csr(), x.to_sparse(), edge_index)], [theirs(x, x, edge_index)])


def test_nodes_of_several_types():
    edge_index, _, x = unsorted_graph()

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = GCN2Conv(5, 0.1)

        def forward(self, x, edge_index):
            return self.conv(x, x, edge_index)

    kind, relation = "node", ("node", "to", "node")
    model = to_hetero(Net(), ([kind], [relation]))
    found = model({kind: x}, {relation: edge_index})[kind]
    (layer,) = model.conv.values()
    close([found], [layer(x, x, edge_index)])


def test_refuses():
    edge_index, weight, x = unsorted_graph()
    conv = GCN2Conv(5, 0.1)
    with pytest.raises(ValueError, match="'x' must be one tensor"):
        conv((x, x), x, edge_index)
    for wrong in (x[:4], x[:, :3], x[0]):
        with pytest.raises(ValueError, match=r"'x_0' must have the shape of 'x', \[12, 5\]"):
            conv(x, wrong, edge_index)
    with pytest.raises(ValueError, match="not below 'num_nodes'"):
        conv(x[:4], x, edge_index)
    with pytest.raises(ValueError, match="'edge_weight' must have one entry per edge"):
        conv(x, x, edge_index, weight[1:])
    with edge_by_edge(), pytest.raises(ValueError, match="cannot be traced with aggr='mean'"):
        GCN2Conv(5, 0.1, aggr="mean")(x, x, edge_index, weight)
