import pytest
import torch
from torch_geometric.nn import GCN2Conv, GCNConv, LGConv, SAGEConv
from torch_geometric.nn.conv.gcn_conv import gcn_norm

from graphsparse.utils.conv_blocks import Limits, layer_output
from graphsparse.utils.gcn_layers import full_norm, gcn_output, is_gcn, normalises, weight_leaf, with_full_norm
from graphsparse.utils.in_edges import InEdges
from graphsparse.utils.replay import Arguments, EdgePlaceholder
from graphsparse.utils.trace_layers import LayerCall, Leaf

CPU = torch.device("cpu")
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(30, 4, generator=GENERATOR)
EDGE_INDEX = torch.randint(28, (2, 90), generator=GENERATOR)
EDGE_INDEX[:, :3] = 5
WEIGHT = torch.rand(90, generator=GENERATOR)
EDGES = InEdges.sort(EDGE_INDEX, 30)


def make_call(layer, kinds, args, kwargs=None):
    return LayerCall(layer, "layer", Arguments(layer, args, kwargs or {}), [Leaf(kind) for kind in kinds])


class OtherGCN(GCNConv):
    def message(self, x_j, edge_weight):
        return x_j.relu()


class OurGCN(GCNConv):
    SUPPORTS_ADJACENCY = True


def test_known_layers():
    assert is_gcn(GCNConv(4, 2))
    assert is_gcn(OurGCN(4, 2))
    assert not is_gcn(OtherGCN(4, 2))
    assert not is_gcn(GCNConv(4, 2, aggr="max"))
    assert not is_gcn(SAGEConv(4, 2))
    assert normalises(LGConv())
    assert normalises(GCNConv(4, 2, aggr="max"))
    assert not normalises(LGConv(normalize=False))
    assert not normalises(OtherGCN(4, 2))
    assert not normalises(SAGEConv(4, 2))


@pytest.mark.parametrize("weight", [None, WEIGHT])
@pytest.mark.parametrize(
    "options",
    [{}, {"improved": True}, {"add_self_loops": False}, {"normalize": False}, {"bias": False}],
)
def test_gcn_output(options, weight):
    options = {"add_self_loops": options.get("normalize", True)} | options
    layer = GCNConv(4, 3, **options)
    torch.nn.init.normal_(layer.bias) if layer.bias is not None else None
    call = make_call(layer, ["rows", "graph"], (X, EdgePlaceholder.make("cpu")))
    with torch.no_grad():
        expected = layer(X, EDGE_INDEX, weight)
        found = gcn_output(call, EDGES, layer.lin(X), weight, Limits(7, 1), CPU)
    torch.testing.assert_close(found, expected)


def test_full_norm_is_that_of_pyg():
    layer = GCNConv(4, 3, improved=True)
    index, weight = gcn_norm(EDGE_INDEX, WEIGHT, 30, improved=True)
    expected = torch.zeros(30, 30).index_put_((index[1], index[0]), weight, accumulate=True)
    found = full_norm(layer, EDGES, WEIGHT, torch.float32).to_torch_csr().to_dense()
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("how", ["left out", "none", "by place", "by name"])
@pytest.mark.parametrize("two_inputs", [False, True])
def test_the_same_layer_on_normalised_edges(how, two_inputs):
    layer = GCN2Conv(4, 0.3) if two_inputs else LGConv()
    graph = EdgePlaceholder.make("cpu")
    rows = (X, X.flip(0)) if two_inputs else (X,)
    kinds = ["rows"] * len(rows) + ["graph"]
    weighted = how.startswith("by")
    args = (*rows, graph, *{"none": [None], "by place": [WEIGHT]}.get(how, []))
    kinds += {"none": ["constant"], "left out": []}.get(how, ["edges"])
    call = make_call(layer, kinds, args, {"edge_weight": WEIGHT} if how == "by name" else {})
    assert (weight_leaf(call) >= 0) == weighted
    weight = WEIGHT if weighted else None
    stored = dict(enumerate(rows))
    with torch.no_grad():
        expected = layer(*rows, EDGE_INDEX, weight)
        found = layer_output(*with_full_norm(call, EDGES, weight, stored, CPU), Limits(7, 20), CPU)
    torch.testing.assert_close(found, expected)
    assert layer.normalize
