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

from graphsparse.nn import GCNConv

OPTIONS = st.fixed_dictionaries(
    {
        "improved": st.booleans(),
        "cached": st.booleans(),
        "bias": st.booleans(),
        "flow": st.sampled_from(FLOWS),
        "aggr": st.sampled_from(["add", "sum", "mean", "max", "min", "softmax", ["sum", "max"]]),
    }
)
LOOPS = st.sampled_from([{}, {"normalize": False}, {"add_self_loops": False}, {"add_self_loops": True}])


@settings(max_examples=150, deadline=None)
@given(edge_lists(), OPTIONS, LOOPS, st.booleans(), st.sampled_from([torch.float32, torch.float64]))
def test_equals_pyg_on_any_graph(graph, options, loops, weighted, dtype):
    edge_index, (num_nodes, _), generator = graph
    if isinstance(options["aggr"], list):
        options = options | {"aggr_kwargs": {"mode": "sum"}}
    theirs, ours = twins("GCNConv", 5, 3, dtype=dtype, **options, **loops)
    x = torch.randn(num_nodes, 5, generator=generator, dtype=dtype)
    weight = torch.rand(edge_index.size(1), generator=generator, dtype=dtype) + 0.1 if weighted else None
    for _ in range(2):
        same(theirs, ours, x, edge_index, weight, scale=1)


@settings(max_examples=100, deadline=None)
@given(edge_lists(), OPTIONS, LOOPS, st.sampled_from([torch.float32, torch.float64]))
def test_weight_0_equals_deleting_the_edge(graph, options, loops, dtype):
    edge_index, (num_nodes, _), generator = graph
    if isinstance(options["aggr"], list):
        options = options | {"aggr_kwargs": {"mode": "sum"}}
    theirs, ours = twins("GCNConv", 5, 3, dtype=dtype, **options, **loops)
    x = torch.randn(num_nodes, 5, generator=generator, dtype=dtype)
    weight = torch.rand(edge_index.size(1), generator=generator, dtype=dtype) + 0.1
    mask = torch.rand(edge_index.size(1), generator=generator) < 0.6
    expected = result(theirs, x, edge_index[:, mask], weight[mask])
    close(result(ours, x, edge_index, weight * mask), expected, TOLERANCE[dtype], scale=1)


@settings(max_examples=60, deadline=None)
@given(edge_lists(), LOOPS, st.booleans(), st.sampled_from(FLOWS), st.sampled_from([torch.float32, torch.float64]))
def test_paths_agree_on_learned_weights(graph, loops, improved, flow, dtype):
    edge_index, (num_nodes, _), generator = graph
    ours = twins("GCNConv", 5, 3, dtype=dtype, flow=flow, improved=improved, **loops)[1]
    x = torch.randn(num_nodes, 5, generator=generator, dtype=dtype)
    weight = torch.rand(edge_index.size(1), generator=generator, dtype=dtype) + 0.1
    removed = torch.rand(edge_index.size(1), generator=generator) < 0.3
    weight[removed] = 0
    weight.requires_grad_()
    fused = result(ours, x, edge_index, weight, learned=[weight])
    with edge_by_edge():
        close(result(ours, x, edge_index, weight, learned=[weight]), fused, TOLERANCE[dtype], scale=1)
    kept = weight.detach()[~removed].requires_grad_()
    deleted = result(ours, x, edge_index[:, ~removed], kept, learned=[kept])
    fused[2] = fused[2][~removed]
    close(fused, deleted, TOLERANCE[dtype], scale=1)


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("improved", [False, True])
@pytest.mark.parametrize("loops", [{}, {"normalize": False}, {"add_self_loops": False}])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("hooked", [False, True])
def test_every_form(name, improved, loops, weighted, hooked):
    edge_index, weight, x = unsorted_graph(simple=True)
    weighted = weighted and not name.startswith("EdgeIndex by")  # sorted edges have another order than the weights
    theirs, ours = twins("GCNConv", 5, 3, improved=improved, **loops)
    if hooked:
        ours.register_propagate_forward_pre_hook(lambda *_: None)
    holds_values = weighted and name in (*MATRICES, "Adjacency")
    edges = form(name, edge_index, (12, 12), weight if weighted else None)
    apart = weight if weighted and not holds_values else None
    reference, reference_weight = edges, apart
    if name == "Adjacency":
        reference, reference_weight = edge_index, weight if weighted else None
    elif name == "CSC":  # which PyG cannot normalise
        reference = form("CSR", edge_index, (12, 12), weight if weighted else None)
    for _ in range(3):
        close(result(ours, x, edges, apart), result(theirs, x, reference, reference_weight))


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("order", [(True, False), (False, True)])
def test_cached_graph_is_that_of_the_first_call_on_either_path(flow, order):
    edge_index, weight, x = unsorted_graph()
    weight[3] = 0  # a self-loop
    kept = weight != 0
    theirs, ours = twins("GCNConv", 5, 3, cached=True, flow=flow)
    expected = result(theirs, x, edge_index[:, kept], weight[kept])
    for traced in (*order, *order):
        with edge_by_edge() if traced else nullcontext():
            close(result(ours, x, edge_index, weight), expected)
        edge_index, weight = torch.randint(12, (2, 5)), None
    ours.register_message_forward_hook(lambda *_: None)
    close(result(ours, x, edge_index), expected)
    ours.reset_parameters()
    theirs.load_state_dict(ours.state_dict())
    theirs._cached_edge_index = None
    close(result(ours, x, edge_index), result(theirs, x, edge_index))


def test_static_graph_and_lazy_width():
    edge_index, weight, x = unsorted_graph()
    theirs, ours = twins("GCNConv", 5, 3)
    many = torch.stack([x, x + 1])
    for edge_weight in (None, weight):
        same(theirs, ours, many, edge_index, edge_weight)
    close([ours(many, edge_index)[1]], [ours(x + 1, edge_index)])
    lazy = GCNConv(-1, 3)
    lazy(x, edge_index)
    lazy.load_state_dict(theirs.state_dict(), strict=True)
    close([lazy(x, edge_index)], [theirs(x, edge_index)])


def test_half_precision():
    edge_index, _, x = unsorted_graph()
    theirs, ours = twins("GCNConv", 5, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, expected = ours(x, edge_index), theirs(x, edge_index)
    assert found.dtype == expected.dtype
    close([found.float()], [expected.float()], 2e-2)
    wide = ours.bfloat16()(x.bfloat16(), edge_index)
    assert wide.dtype == torch.bfloat16
    close([wide.float()], [expected.float()], 4e-2)


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


def test_no_tensor_of_messages():
    edge_index, weight, x = unsorted_graph(200, 3000)
    theirs, ours = twins("GCNConv", 5, 64)
    weight.requires_grad_()
    assert largest_tensor(lambda: result(theirs, x, edge_index, weight)) >= 2900 * 64
    assert largest_tensor(lambda: result(ours, x, edge_index, weight)) <= 30_000
