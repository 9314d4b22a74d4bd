import pytest
import torch_geometric.nn as pyg
from layers import close, form, result, same, twins, unsorted_graph

from graphsparse.typing import has_module


def test_normalised_output():
    edge_index, weight, x = unsorted_graph()
    theirs, ours = twins("SAGEConv", 5, 3, normalize=True)
    same(theirs, ours, x, edge_index)
    assert ours(x, edge_index, edge_weight=weight).norm(dim=1).allclose(ours(x, edge_index).norm(dim=1))


@pytest.mark.parametrize("aggr", ["lstm", ["mean", "max"], "softmax", "modules"])
def test_aggregations_without_a_product(aggr):
    edge_index, weight, x = unsorted_graph()
    edge_index = edge_index[:, edge_index[1].argsort(stable=True)]
    options = {"aggr": pyg.MultiAggregation(["sum", "std"]) if aggr == "modules" else aggr}
    if aggr == "softmax":
        options["aggr_kwargs"] = {"learn": True}
    theirs, ours = twins("SAGEConv", 5, 3, **options)
    same(theirs, ours, x, edge_index)
    for name in ("EdgeIndex by column", "CSR", "Adjacency"):
        simple = unsorted_graph(simple=True)[0]
        simple = simple[:, simple[1].argsort(stable=True)]
        edges = form(name, simple, (12, 12))
        close(result(ours, x, edges), result(theirs, x, simple if name == "Adjacency" else edges))
    with pytest.raises(ValueError, match="SAGEConv takes no 'edge_weight' with aggr="):
        ours(x, edge_index, edge_weight=weight)


def test_values_of_torch_matrices_are_weights():
    edge_index, weight, x = unsorted_graph(simple=True)
    _, ours = twins("SAGEConv", 5, 3)
    expected = result(ours, x, edge_index, edge_weight=weight)
    for name in ("CSR", "COO", "CSC", "Adjacency"):
        close(result(ours, x, form(name, edge_index, (12, 12), weight)), expected)
    if has_module("torch_sparse"):  # of which PyG ignores the values
        close(result(ours, x, form("SparseTensor", edge_index, (12, 12), weight)), result(ours, x, edge_index))
