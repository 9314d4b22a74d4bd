"""GCN and GCNII: the graph that they normalise, on both paths, against the formula."""

import pytest
import torch
from layers import FLOWS, edge_by_edge, same, twins, unsorted_graph

from graphsparse.nn import GCN2Conv, GCNConv
from graphsparse.ops import Adjacency

EYE = torch.eye(12)


def gcn(**options):
    layer = GCNConv(12, 12, bias=False, **options)
    torch.nn.init.eye_(layer.lin.weight)
    return layer, (EYE,)


def gcn2(**options):
    layer = GCN2Conv(12, 0.0, **options)
    torch.nn.init.eye_(layer.weight1)
    return layer, (EYE, EYE)


# Each returns the matrix that it multiplies by, for features and weights that are the identity.
LAYERS = {"GCN": gcn, "GCN, improved": lambda **options: gcn(improved=True, **options), "GCNII": gcn2}


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
def test_equals_the_formula(name, flow, loops):
    edge_index, weight, _ = unsorted_graph()
    weight[::4] = 0
    layer, given = LAYERS[name](flow=flow, add_self_loops=loops)
    forward = edge_index if flow == "source_to_target" else edge_index.flip(0)
    expected = formula(forward, weight, 12, loops * (2 if layer.improved else 1))
    found = [layer(*given, edge_index, weight)]
    with edge_by_edge():
        found.append(layer(*given, edge_index, weight))
    found.append(
        layer.operator(Adjacency.from_edge_index(forward, weight, 12), torch.float32).to_torch_csr().to_dense()
    )
    for one in found:
        torch.testing.assert_close(one.double(), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", LAYERS)
def test_removed_edges_keep_their_messages_but_where_they_would_count(name):
    edge_index, weight, _ = unsorted_graph()
    weight[:5] = 0  # the fourth is a self-loop
    loops = edge_index[0] == edge_index[1]
    for aggr, kept in (("sum", torch.arange(40) != 3), ("mean", torch.arange(40) >= 5)):
        layer, given = LAYERS[name](aggr=aggr)
        seen = []
        layer.register_message_forward_hook(lambda *args, seen=seen: seen.append(args[2].size(0)))
        layer(*given, edge_index, weight)
        assert seen == [int((kept & ~loops).sum()) + 12]


@pytest.mark.parametrize("name", LAYERS)
def test_the_same_edges_are_normalised_once(name):
    edge_index, weight, x = unsorted_graph()
    layer, _ = LAYERS[name]()
    graphs = [layer.graph(x, x, edges, weight, None) for edges in (edge_index, edge_index, edge_index.clone())]
    assert graphs[0] is graphs[1] is not graphs[2]


@pytest.mark.parametrize("kind", [GCNConv, GCN2Conv])
def test_aggregations_side_by_side(kind):
    edge_index, weight, x = unsorted_graph()
    args = (5, 3) if kind is GCNConv else (5, 0.1)
    theirs, ours = twins(kind.__name__, *args, aggr=["sum", "mean"], aggr_kwargs={"mode": "sum"})
    more = {"x_0": x} if kind is GCN2Conv else {}
    same(theirs, ours, x, edge_index=edge_index, edge_weight=weight, **more)


def test_refuses():
    edge_index, weight, x = unsorted_graph()
    with pytest.raises(ValueError, match="'x' must be one tensor"):
        GCNConv(5, 3)((x, x), edge_index)
    with pytest.raises(ValueError, match="not below 'num_nodes'"):
        GCNConv(5, 3)(x[:4], edge_index)
    with pytest.raises(ValueError, match="'edge_weight' must have one entry per edge"):
        GCNConv(5, 3)(x, edge_index, weight[1:])
    with edge_by_edge(), pytest.raises(ValueError, match="cannot be traced with aggr='mean'"):
        GCNConv(5, 3, aggr="mean")(x, edge_index, weight)
