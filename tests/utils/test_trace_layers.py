import pytest
import torch
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import GCN, GATConv, GCN2Conv, GINEConv, SAGEConv

from graphsparse.utils.replay import EdgePlaceholder, Replay
from graphsparse.utils.trace_layers import trace_layers

X, EDGE_ATTR = torch.randn(50, 8), torch.randn(120, 4)


def make_block(rows, edges):
    return Data(x=X[rows], edge_attr=EDGE_ATTR[edges], edge_index=EdgePlaceholder.make("cpu"))


def trace(model, call=lambda model, data: model(data.x, data.edge_index), num_edges=120):
    with torch.no_grad():
        return trace_layers(Replay(model.eval(), call), make_block, 50, num_edges)


def test_chain_needs_the_last_output_only():
    found = trace(GCN(8, 16, 4, 3))
    assert [call.last_use for call in found.calls] == [1, 2, 3, 4]
    assert [output.shape[1] for output in found.outputs] == [16, 16, 16, 3]
    assert [call.name for call in found.calls] == [f"GCNConv 'convs.{i}'" for i in range(4)]


def test_jumping_knowledge_needs_all_outputs_to_the_end():
    for mode in ("cat", "max", "lstm"):
        assert [call.last_use for call in trace(GCN(8, 16, 3, 3, jk=mode)).calls] == [3, 3, 3]


class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.encode = nn.Linear(4, 8)
        self.one = GINEConv(nn.Linear(8, 8))
        self.two = GCN2Conv(8, 0.1)
        self.idle = SAGEConv(8, 8)
        self.three = GATConv((8, 8), 8, edge_dim=4)

    def forward(self, x, edge_index, edge_attr):
        h = self.one(x, edge_index, self.encode(edge_attr))
        g = self.two(h, x, edge_index)
        self.idle(g, edge_index)
        g = g.relu_()
        return self.three((g, h), edge_index, edge_attr=edge_attr, size=None) + 1


def test_leaves_tell_what_they_are_and_where_from():
    found = trace(Mixed(), lambda model, data: model(data.x, data.edge_index, data.edge_attr))
    one, two, idle, three = found.calls
    assert [(leaf.kind, leaf.source) for leaf in one.leaves] == [("rows", "x"), ("graph", None), ("edges", None)]
    assert [(leaf.kind, leaf.source) for leaf in two.leaves] == [("rows", 0), ("rows", "x"), ("graph", None)]
    assert [(leaf.kind, leaf.source) for leaf in idle.leaves] == [("rows", 1), ("graph", None)]
    # What was changed in place is not the stored output any more; that of the first call is.
    kinds = [(leaf.kind, leaf.source) for leaf in three.leaves]
    assert kinds == [("rows", None), ("rows", 0), ("graph", None), ("edges", "edge_attr"), ("constant", None)]
    assert [call.last_use for call in found.calls] == [3, 3, -1, 4]


def test_without_edges():
    found = trace(Mixed(), lambda model, data: model(data.x, data.edge_index, data.edge_attr), num_edges=0)
    assert [leaf.kind for leaf in found.calls[3].leaves] == ["rows", "rows", "graph", "edges", "constant"]


def test_a_size_that_goes_with_the_block_is_refused():
    class Sized(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = SAGEConv(8, 8)

        def forward(self, x, edge_index):
            return self.conv(x, edge_index, size=(x.size(0), x.size(0)))

    with pytest.raises(ValueError, match="argument 'size' of layer SAGEConv 'conv' depends on which other rows"):
        trace(Sized())


def test_edge_values_that_depend_on_each_other_are_refused():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = GINEConv(nn.Linear(8, 8), edge_dim=4)

        def forward(self, x, edge_index, edge_attr):
            return self.conv(x, edge_index, edge_attr / edge_attr.max())

    with pytest.raises(ValueError, match="argument 'edge_attr' of layer GINEConv 'conv' depends on which other"):
        trace(Scaled(), lambda model, data: model(data.x, data.edge_index, data.edge_attr))


def test_layers_that_do_not_return_rows_are_refused():
    class Weights(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = GATConv(8, 8)

        def forward(self, x, edge_index):
            return self.conv(x, edge_index, return_attention_weights=True)[0]

    with pytest.raises(ValueError, match="layer GATConv 'conv' must return one tensor with one row per node"):
        trace(Weights())
