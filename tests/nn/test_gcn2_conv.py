from contextlib import nullcontext

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layers import (
    FLOWS,
    FORMS,
    MATRICES,
    TOLERANCE,
    close,
    edge_by_edge,
    form,
    largest_tensor,
    result,
    same,
    twins,
    unsorted_graph,
)
from sparse_reference import edge_lists
from torch_geometric.data import Data
from torch_geometric.nn import to_hetero

from graphsparse.nn import GCN2Conv
from graphsparse.utils import layerwise_inference

OPTIONS = st.fixed_dictionaries(
    {
        "alpha": st.sampled_from([0.0, 0.1, 1.0]),
        "shared_weights": st.booleans(),
        "cached": st.booleans(),
        "flow": st.sampled_from(FLOWS),
        "aggr": st.sampled_from(["add", "sum", "mean"]),  # PyG cannot go back through others: it changes them in place
    }
)
LOOPS = st.sampled_from([{}, {"normalize": False}, {"add_self_loops": False}])
DEPTH = st.sampled_from([{}, {"theta": 0.5, "layer": 3}])
DTYPES = st.sampled_from([torch.float32, torch.float64])


def features(num_nodes, generator, dtype):
    """Return features and initial features, which learn."""
    x, x_0 = torch.randn(2, num_nodes, 5, generator=generator, dtype=dtype)
    return x, x_0.clone().requires_grad_()


@settings(max_examples=150, deadline=None)
@given(edge_lists(), OPTIONS, LOOPS, DEPTH, st.booleans(), DTYPES)
def test_equals_pyg_on_any_graph(graph, options, loops, depth, weighted, dtype):
    edge_index, (num_nodes, _), generator = graph
    theirs, ours = twins("GCN2Conv", 5, dtype=dtype, **options, **loops, **depth)
    x, x_0 = features(num_nodes, generator, dtype)
    weight = torch.rand(edge_index.size(1), generator=generator, dtype=dtype) + 0.1 if weighted else None
    for _ in range(2):
        same(theirs, ours, x, x_0, edge_index, weight, scale=1, learned=[x_0])


@settings(max_examples=100, deadline=None)
@given(edge_lists(), OPTIONS, LOOPS, DTYPES)
def test_weight_0_equals_deleting_the_edge(graph, options, loops, dtype):
    edge_index, (num_nodes, _), generator = graph
    theirs, ours = twins("GCN2Conv", 5, dtype=dtype, **options, **loops)
    x, x_0 = features(num_nodes, generator, dtype)
    weight = torch.rand(edge_index.size(1), generator=generator, dtype=dtype) + 0.1
    mask = torch.rand(edge_index.size(1), generator=generator) < 0.6
    expected = result(theirs, x, x_0, edge_index[:, mask], weight[mask])
    close(result(ours, x, x_0, edge_index, weight * mask), expected, TOLERANCE[dtype], scale=1)


@settings(max_examples=60, deadline=None)
@given(edge_lists(), LOOPS, st.sampled_from(FLOWS), DTYPES)
def test_paths_agree_on_learned_weights(graph, loops, flow, dtype):
    edge_index, (num_nodes, _), generator = graph
    ours = twins("GCN2Conv", 5, 0.1, dtype=dtype, flow=flow, **loops)[1]
    x, x_0 = features(num_nodes, generator, dtype)
    weight = torch.rand(edge_index.size(1), generator=generator, dtype=dtype) + 0.1
    removed = torch.rand(edge_index.size(1), generator=generator) < 0.3
    weight[removed] = 0
    weight.requires_grad_()
    fused = result(ours, x, x_0, edge_index, weight, learned=[weight])
    with edge_by_edge():
        close(result(ours, x, x_0, edge_index, weight, learned=[weight]), fused, TOLERANCE[dtype], scale=1)
    kept = weight.detach()[~removed].requires_grad_()
    deleted = result(ours, x, x_0, edge_index[:, ~removed], kept, learned=[kept])
    fused[2] = fused[2][~removed]
    close(fused, deleted, TOLERANCE[dtype], scale=1)


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("loops", [{}, {"normalize": False}, {"add_self_loops": False}])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("hooked", [False, True])
def test_every_form(name, loops, weighted, hooked):
    edge_index, weight, x = unsorted_graph(simple=True)
    weighted = weighted and not name.startswith("EdgeIndex by")  # sorted edges have another order than the weights
    theirs, ours = twins("GCN2Conv", 5, 0.1, 0.5, 2, **loops)
    seen = []
    if hooked:
        ours.register_propagate_forward_pre_hook(lambda *_: seen.append(None))
    holds_values = weighted and name in (*MATRICES, "Adjacency")
    edges = form(name, edge_index, (12, 12), weight if weighted else None)
    apart = weight if weighted and not holds_values else None
    reference, reference_weight = edges, apart
    if name == "Adjacency":
        reference, reference_weight = edge_index, weight if weighted else None
    elif name == "CSC":  # which PyG cannot normalise
        reference = form("CSR", edge_index, (12, 12), weight if weighted else None)
    for _ in range(3):
        close(result(ours, x, 2 * x, edges, apart), result(theirs, x, 2 * x, reference, reference_weight))
    assert len(seen) == 3 * hooked


@pytest.mark.parametrize("order", [(True, False), (False, True)])
def test_cached_graph_is_that_of_the_first_call_on_either_path(order):
    edge_index, weight, x = unsorted_graph()
    theirs, ours = twins("GCN2Conv", 5, 0.1, cached=True)
    expected = result(theirs, x, x, edge_index, weight)
    for traced in (*order, *order):
        with edge_by_edge() if traced else nullcontext():
            close(result(ours, x, x, edge_index, weight), expected)
        edge_index, weight = torch.randint(12, (2, 5)), None
    ours.reset_parameters()
    theirs.load_state_dict(ours.state_dict())
    theirs._cached_edge_index = None
    close(result(ours, x, x, edge_index), result(theirs, x, x, edge_index))


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


@pytest.mark.parametrize("weighted", [False, True])
def test_compiles(weighted):
    edge_index, weight, x = unsorted_graph()
    theirs, ours = twins("GCN2Conv", 5, 0.1, 0.5, 2)
    options = {}
    if weighted:
        weight[::3] = 0
        options = {"edge_weight": weight.requires_grad_(), "learned": [weight]}
    expected = result(ours if weighted else theirs, x, x, edge_index, **options)
    torch.compiler.reset()
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
    close(result(compiled, x, x, edge_index, **options), expected)
    torch.compiler.reset()


def test_subclass_with_its_own_messages():
    class Silent(GCN2Conv):
        def message(self, x_j):
            return x_j * 0

    edge_index, _, x = unsorted_graph()
    layer = Silent(5, alpha=0.25)
    assert not layer.is_fused(x)
    close([layer(x, x, edge_index)], [0.25 * x @ layer.weight1])


def test_half_precision():
    edge_index, _, x = unsorted_graph()
    theirs, ours = twins("GCN2Conv", 5, 0.1, 0.5, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, expected = ours(x, x, edge_index), theirs(x, x, edge_index)
    assert found.dtype == expected.dtype
    close([found.float()], [expected.float()], 2e-2)
    half = x.bfloat16()
    wide = ours.bfloat16()(half, half, edge_index)
    assert wide.dtype == torch.bfloat16
    close([wide.float()], [expected.float()], 4e-2)


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


def test_layer_by_layer():
    edge_index, weight, x = unsorted_graph(60, 300)

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.convs = torch.nn.ModuleList(GCN2Conv(5, 0.1, 0.5, depth + 1) for depth in range(3))

        def forward(self, x, edge_index, edge_weight=None):
            start = x
            for conv in self.convs:
                x = conv(x, start, edge_index, edge_weight).relu()
            return x

    model = Net().eval()
    for edge_weight in (None, weight):
        data = Data(x=x, edge_index=edge_index, edge_weight=edge_weight)
        close([layerwise_inference(model, data, batch_size=7)], [model(x, edge_index, edge_weight)])


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


def test_no_tensor_of_messages():
    edge_index, weight, _ = unsorted_graph(200, 3000)
    x = torch.randn(200, 64)
    theirs, ours = twins("GCN2Conv", 64, 0.1, 0.5, 1)
    weight.requires_grad_()
    assert largest_tensor(lambda: result(theirs, x, x, edge_index, weight)) >= 2900 * 64
    assert largest_tensor(lambda: result(ours, x, x, edge_index, weight)) <= 30_000
