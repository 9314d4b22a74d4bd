import pytest
import torch
from torch_geometric.nn import GATConv, SAGEConv, SimpleConv

import graphsparse.utils.conv_blocks as conv_blocks
from graphsparse.ops import Adjacency, spmm
from graphsparse.utils.conv_blocks import Limits, layer_output
from graphsparse.utils.in_edges import InEdges
from graphsparse.utils.replay import Arguments, EdgePlaceholder
from graphsparse.utils.trace_layers import LayerCall, Leaf

CPU = torch.device("cpu")
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(60, 4, generator=GENERATOR)
EDGE_INDEX = torch.randint(57, (2, 300), generator=GENERATOR)
WEIGHT = torch.rand(300, generator=GENERATOR)
EDGES = InEdges.sort(EDGE_INDEX, 60)


class AdjacencyConv(SimpleConv):
    """Stands for the layers that take an ``Adjacency``."""

    SUPPORTS_ADJACENCY = True

    def forward(self, x, edge_index, edge_weight=None):
        if isinstance(edge_index, Adjacency):
            return spmm(edge_index, x[0])
        return super().forward(x, edge_index, edge_weight)


def run(layer, limits, monkeypatch, weight=None):
    """Return the output, the form that was used, and the number of destinations and edges of each block."""
    graph = EdgePlaceholder.make("cpu")
    kwargs = {} if weight is None else {"edge_weight": weight}
    leaves = [Leaf("rows", "x"), Leaf("graph")] + ([] if weight is None else [Leaf("edges", "edge_weight")])
    call = LayerCall(layer, "layer", Arguments(layer, (X, graph), kwargs), leaves)
    seen = []
    apply_form = conv_blocks.apply_form

    def spy(call, form, layer, given):
        seen.append((form, given.num_dst, given.edge_index.size(1)))
        return apply_form(call, form, layer, given)

    monkeypatch.setattr(conv_blocks, "apply_form", spy)
    values = (lambda ids: {}) if weight is None else (lambda ids: {2: weight[ids]})
    with torch.no_grad():
        found = layer_output(call, EDGES, {0: X}, values, limits, CPU)
    (form,) = {form for form, _, _ in seen}
    return found, form, [sizes for _, *sizes in seen]


@pytest.mark.parametrize("aggr", ["mean", "sum", "max"])
def test_a_sparse_product_is_bounded_by_nodes_alone(aggr, monkeypatch):
    layer = SAGEConv(4, 2, aggr=aggr)
    found, form, blocks = run(layer, Limits(25, 10), monkeypatch)
    torch.testing.assert_close(found, layer(X, EDGE_INDEX).detach())
    assert form == "csr"
    assert [nodes for nodes, _ in blocks] == [25, 25, 10]


def test_messages_are_bounded_by_edges_too(monkeypatch):
    layer = GATConv(4, 2, heads=2)
    found, form, blocks = run(layer, Limits(25, 40), monkeypatch)
    torch.testing.assert_close(found, layer(X, EDGE_INDEX).detach())
    assert form == "pair"
    assert all(nodes <= 25 and edges <= 40 for nodes, edges in blocks)
    assert sum(edges for _, edges in blocks) == 300


def test_layers_that_take_an_adjacency_get_one(monkeypatch):
    layer = AdjacencyConv()
    found, form, blocks = run(layer, Limits(25, 10), monkeypatch, WEIGHT)
    torch.testing.assert_close(found, layer(X, EDGE_INDEX, WEIGHT))
    assert form == "adjacency"
    assert len(blocks) == 3


def test_a_graph_of_hubs_alone(monkeypatch):
    """The trial works when no destination has few edges, and takes one of them."""
    degree = torch.zeros(60, dtype=torch.long)
    degree[[3, 9]] = torch.tensor([500, 400])
    probed = conv_blocks._probed_nodes(degree, torch.Generator().manual_seed(0))
    assert probed.tolist() == [9, 0, 1, 2, 4]
    assert conv_blocks._probed_nodes(torch.zeros(2, dtype=torch.long), torch.Generator()).tolist() == [0, 1]
