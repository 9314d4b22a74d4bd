"""Our layers under `torch.compile(fullgraph=True)`, which fails at the first step that it cannot follow."""

import os
import shutil

import pytest
import torch
import torch_geometric.nn as pyg
from layers import close, result, twins, unsorted_graph

from graphsparse.nn import GCNConv, accelerate

LAYERS = {
    "GCNConv": (5, 3),
    "SAGEConv": (5, 3),
    "GINConv": (torch.nn.Sequential(torch.nn.Linear(5, 3), torch.nn.Tanh()),),
    "GATConv": (5, 3, 2),
    "GCN2Conv": (5, 0.1, 0.5, 2),
}


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("weighted", [False, True])
def test_whole_graph(name, weighted):
    edge_index, weight, x = unsorted_graph()
    theirs, ours = twins(name, *LAYERS[name])
    if weighted:
        weight[::3] = 0
        weight.requires_grad_()
    options = {"edge_index": edge_index} | ({"edge_weight": weight, "learned": [weight]} if weighted else {})
    if name == "GCN2Conv":
        options["x_0"] = x.clone()
    expected = result(ours if weighted else theirs, x, **options)
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
    close(result(compiled, x, **options), expected)


@pytest.mark.parametrize("aggr", ["sum", "mean", "min", "max"])
def test_every_reduction_with_weights(aggr):
    edge_index, weight, x = unsorted_graph()
    weight[::3] = 0
    ours = twins("SAGEConv", 5, 3, aggr=aggr)[1]
    expected = result(ours, x, edge_index, edge_weight=weight)
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
    close(result(compiled, x, edge_index, edge_weight=weight), expected)


def test_attention_over_features_of_edges():
    edge_index, weight, x = unsorted_graph()
    weight[::3] = 0
    edge_attr = torch.randn(edge_index.size(1), 2)
    ours = twins("GATConv", 5, 3, edge_dim=2)[1]
    expected = result(ours, x, edge_index, edge_attr, edge_weight=weight)
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
    close(result(compiled, x, edge_index, edge_attr, edge_weight=weight), expected)


@pytest.mark.parametrize("weighted", [False, True])
def test_accelerated_model(weighted):
    edge_index, weight, x = unsorted_graph()
    model = pyg.GCN(5, 8, 2, 3)
    fast = accelerate(model)
    assert isinstance(fast.convs[0], GCNConv)
    options = {"edge_weight": weight} if weighted else {}
    compiled = torch.compile(fast, fullgraph=True, backend="aot_eager")
    close(result(compiled, x, edge_index, **options), result(model, x, edge_index, **options))


@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="torch.compile needs a C++ compiler")
def test_generated_code():
    edge_index, weight, x = unsorted_graph()
    theirs, ours = twins("GCNConv", 5, 3)
    compiled = torch.compile(ours, fullgraph=True)
    close(result(compiled, x, edge_index, weight), result(theirs, x, edge_index, weight))
