"""Both forms of the normalised graph, against the formula."""

import pytest
import torch
from layers import FLOWS, edge_by_edge, unsorted_graph

from graphsparse.nn import GCN2Conv, GCNConv

LAYERS = {
    "GCN": lambda **options: GCNConv(5, 3, **options),
    "GCN, improved": lambda **options: GCNConv(5, 3, improved=True, **options),
    "GCNII": lambda **options: GCN2Conv(5, 0.1, **options),
}


def formula(edge_index, weight, num_nodes, fill):
    """Return D^-1/2 A D^-1/2 as a dense matrix, destinations in rows; fill 0 for no self-loops."""
    dense = torch.zeros(num_nodes, num_nodes, dtype=torch.float64)
    for (source, target), value in zip(edge_index.t().tolist(), weight.tolist(), strict=True):
        if source == target and fill:
            dense[target, source] = value or dense[target, source]  # the last one counts, and 0 is none
        else:
            dense[target, source] += value
    if fill:
        diagonal = dense.diagonal()
        diagonal[diagonal == 0] = fill
    scale = dense.sum(1).pow(-0.5)
    scale[scale.isinf()] = 0
    return scale.view(-1, 1) * dense * scale


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("loops", [True, False])
@pytest.mark.parametrize("traced", [False, True])
def test_equals_the_formula(name, flow, loops, traced):
    edge_index, weight, x = unsorted_graph()
    weight[::4] = 0
    layer = LAYERS[name](flow=flow, add_self_loops=loops)
    forward = edge_index if flow == "source_to_target" else edge_index.flip(0)
    expected = formula(forward, weight, 12, loops * (2 if layer.improved else 1))
    if traced:
        with edge_by_edge():
            edges, values, done = layer.edges_for_messages(x, edge_index, weight)
        assert done
        source, target = edges if flow == "source_to_target" else edges.flip(0)
        found = torch.zeros(12, 12).index_put_((target, source), values, accumulate=True)
    else:
        found = layer.normalised(x, edge_index, weight).to_torch_csr().to_dense()
    torch.testing.assert_close(found.double(), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", LAYERS)
def test_removed_edges_leave_the_list_only_where_they_would_count(name):
    edge_index, weight, x = unsorted_graph()
    weight[:5] = 0  # the fourth is a self-loop
    edges, values, done = LAYERS[name]().edges_for_messages(x, edge_index, weight)
    kept = torch.arange(40) != 3
    assert not done
    assert torch.equal(edges, edge_index[:, kept])
    assert torch.equal(values, weight[kept])
    edges, values, done = LAYERS[name](aggr="mean").edges_for_messages(x, edge_index, weight)
    assert torch.equal(edges, edge_index[:, 5:])
    assert torch.equal(values, weight[5:])
    assert not done


@pytest.mark.parametrize("name", LAYERS)
def test_the_same_edges_are_normalised_once(name):
    edge_index, weight, x = unsorted_graph()
    layer = LAYERS[name]()
    assert layer.normalised(x, edge_index, weight) is layer.normalised(x, edge_index, weight)
    other = layer.normalised(x, edge_index.clone(), weight)
    assert other is not layer.normalised(x, edge_index, weight)
