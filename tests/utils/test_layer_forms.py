import pytest
import torch
from torch_geometric.nn import GATConv, GCN2Conv, GraphConv, SAGEConv, SimpleConv

from graphsparse.ops import Adjacency, spmm
from graphsparse.utils.layer_forms import BlockInput, apply_form, pair_leaves, possible_forms
from graphsparse.utils.replay import Arguments, EdgePlaceholder
from graphsparse.utils.trace_layers import LayerCall, Leaf


class AdjacencyConv(SimpleConv):
    """Stands for the layers that take an ``Adjacency``."""

    SUPPORTS_ADJACENCY = True

    def forward(self, x, edge_index, edge_weight=None):
        if not isinstance(edge_index, Adjacency):
            return super().forward(x, edge_index, edge_weight)
        assert edge_weight is None
        return spmm(edge_index, x[0])


def make_call(layer, kinds, args, kwargs=None):
    return LayerCall(layer, "layer", Arguments(layer, args, kwargs or {}), [Leaf(kind) for kind in kinds])


ROWS, GRAPH, WEIGHT = torch.randn(5, 4), EdgePlaceholder.make("cpu"), torch.rand(6)
ATTR = torch.randn(6, 3)
CALLS = {
    "SAGE": (make_call(SAGEConv(4, 2), ["rows", "graph"], (ROWS, GRAPH)), ["csr", "pair", "square"]),
    "SAGE, pair": (
        make_call(SAGEConv(4, 2), ["rows", "rows", "graph"], ((ROWS, ROWS), GRAPH)),
        ["csr", "pair", "square"],
    ),
    "weights": (
        make_call(GraphConv(4, 2), ["rows", "graph", "edges"], (ROWS, GRAPH, WEIGHT)),
        ["pair", "square"],
    ),
    "GAT": (
        make_call(GATConv(4, 2, edge_dim=3), ["rows", "graph", "edges"], (ROWS, GRAPH), {"edge_attr": ATTR}),
        ["pair", "square"],
    ),
    "two inputs": (make_call(GCN2Conv(4, 0.5), ["rows", "rows", "graph"], (ROWS, ROWS, GRAPH)), ["square"]),
    "Adjacency": (
        make_call(AdjacencyConv(), ["rows", "graph", "edges"], (ROWS, GRAPH), {"edge_weight": WEIGHT}),
        ["adjacency", "pair", "square"],
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_forms(name):
    call, forms = CALLS[name]
    assert possible_forms(call) == forms
    assert bool(pair_leaves(call)) == (name != "two inputs")


@pytest.mark.parametrize("name", [name for name in CALLS if name != "two inputs"])
def test_all_forms_give_the_same(name):
    call, forms = CALLS[name]
    # Two destinations, three more sources.
    edge_index = torch.tensor([[0, 2, 4, 1, 3, 3], [0, 0, 0, 1, 1, 1]])
    leaves = list(call.arguments.leaves)
    given = BlockInput(edge_index, torch.tensor([0, 3, 6]), 2, leaves)
    before = [leaf.clone() if isinstance(leaf, torch.Tensor) and leaf is not GRAPH else leaf for leaf in leaves]
    expected = apply_form(call, "square", call.layer, given)
    assert expected.size(0) == 5
    for form in forms[:-1]:
        torch.testing.assert_close(apply_form(call, form, call.layer, given), expected[:2])
    assert all(a is GRAPH or torch.equal(a, b) for a, b in zip(leaves, before, strict=True))
