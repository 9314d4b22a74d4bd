"""Sums over rows of what matrices are multiplied by."""

import pytest
import torch
from torch import nn
from torch_geometric.nn import GAT, GCN, GraphSAGE

from graphsparse.nn import accelerate, channel_units
from graphsparse.nn.products import input_grams
from graphsparse.testing import random_graph

NODES = torch.tensor([3, 17, 40, 5])


def test_inputs_of_layers_as_they_multiply():
    data, model = random_graph(), GraphSAGE(8, 6, 2, 3).eval()
    x = data.x.double()
    counts = torch.zeros(60, 1, dtype=torch.float64).index_add_(
        0, data.edge_index[1], torch.ones(data.num_edges, 1, dtype=torch.float64)
    )
    near = torch.zeros_like(x).index_add_(0, data.edge_index[1], x[data.edge_index[0]]) / counts.clamp(min=1)
    found = input_grams(model, data, NODES)
    torch.testing.assert_close(found["convs.0.lin_r.weight", 1], x[NODES].t() @ x[NODES])
    torch.testing.assert_close(found["convs.0.lin_l.weight", 1], near[NODES].t() @ near[NODES], rtol=1e-5, atol=1e-5)
    assert {name for name, _ in found} == {name for name, value in model.named_parameters() if value.dim() == 2}


def test_attention_multiplies_before_it_aggregates():
    data, model = random_graph(), GAT(8, 6, 2, 3, heads=2).eval()
    hidden = model.convs[0](data.x, data.edge_index).relu().detach().double()
    found = input_grams(model, data)
    torch.testing.assert_close(found["convs.1.lin.weight", 1], hidden.t() @ hidden, rtol=1e-5, atol=1e-5)


def test_rows_that_are_no_nodes_all_count():
    class OnEdges(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(8, 3))

        def forward(self, x, edge_index):
            return torch.zeros(len(x), 3).index_add_(0, edge_index[1], x[edge_index[0]] @ self.weight)

    data = random_graph()
    sent = data.x[data.edge_index[0]].double()
    torch.testing.assert_close(input_grams(OnEdges(), data, NODES)["weight", 0], sent.t() @ sent)


def test_those_of_units_are_a_part_of_all():
    data, model = random_graph(), GCN(8, 6, 3, 3, dropout=0.5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    some, every = channel_units(model, data).grams(model, data), input_grams(model, data)
    assert set(some) == set(every) - {("convs.0.lin.weight", 1)}  # whose inputs are features
    assert all(torch.equal(gram, every[axis]) for axis, gram in some.items())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with pytest.raises(ValueError, match="accelerated"):
        input_grams(accelerate(model), data)
