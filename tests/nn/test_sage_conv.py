from contextlib import nullcontext

import pytest
import torch
import torch_geometric.nn as pyg
from hypothesis import given, settings
from hypothesis import strategies as st
from layers import (
    FLOWS,
    FORMS,
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

from graphsparse.nn import SAGEConv
from graphsparse.typing import has_module

FUSED = ["mean", "sum", "add", "min", "max"]
DTYPES = st.sampled_from([torch.float32, torch.float64])
SWITCHES = {name: st.booleans() for name in ("normalize", "root_weight", "bias", "project")}


def features(size, generator, dtype):
    return tuple(torch.randn(n, width, generator=generator, dtype=dtype) for n, width in zip(size, (5, 4), strict=True))


@settings(max_examples=150, deadline=None)
@given(
    edge_lists(),
    st.fixed_dictionaries(SWITCHES | {"flow": st.sampled_from(FLOWS)}),
    st.sampled_from([*FUSED, "var", "std", "softmax", ["mean", "max"], ["sum", "std"]]),
    DTYPES,
)
def test_equals_pyg_on_any_graph(graph, options, aggr, dtype):
    edge_index, (num_nodes, _), generator = graph
    theirs, ours = twins("SAGEConv", 5, 3, aggr=aggr, dtype=dtype, **options)
    x = torch.randn(num_nodes, 5, generator=generator, dtype=dtype)
    if options["normalize"]:  # the gradient of the norm of nothing has no scale
        close(ours(x, edge_index), theirs(x, edge_index), TOLERANCE[dtype], scale=1)
    else:
        same(theirs, ours, x, edge_index, scale=1)
    same(theirs, ours, (x, x.clone()), edge_index, scale=1)


@settings(max_examples=100, deadline=None)
@given(edge_lists(bipartite=True), st.fixed_dictionaries(SWITCHES), st.sampled_from(FUSED), st.integers(0, 2), DTYPES)
def test_equals_pyg_on_any_bipartite_graph(graph, options, aggr, given_by, dtype):
    edge_index, size, generator = graph
    theirs, ours = twins("SAGEConv", (5, 4), 3, aggr=aggr, dtype=dtype, **options | {"normalize": False})
    x = features(size, generator, dtype)
    if given_by == 0:
        same(theirs, ours, x, edge_index, scale=1)
    elif given_by == 1:
        same(theirs, ours, x, edge_index, size=size, scale=1)
    else:
        same(theirs, ours, (x[0], None), edge_index, size=size, scale=1)


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("aggr", [*FUSED, "median"])
@pytest.mark.parametrize("pair", [False, True, None])
def test_every_form(name, aggr, pair):
    edge_index, _, x = unsorted_graph(simple=True)
    if pair is not False:
        edge_index = edge_index[:, edge_index[1] < 8]
        x = (x, x[:8] if pair else None)
    theirs, ours = twins("SAGEConv", 5, 3, aggr=aggr)
    size = (12, 12 if pair is False else 8)
    edges = form(name, edge_index, size)
    sized = {"size": size} if pair is None and name == "edge_index" else {}
    reference = form("CSR", edge_index, size) if name in ("Adjacency", "CSC") else edges
    close(result(ours, x, edges, **sized), result(theirs, x, reference, **sized))


@settings(max_examples=200, deadline=None)
@given(
    edge_lists(bipartite=True),
    st.fixed_dictionaries(SWITCHES),
    st.sampled_from(FUSED),
    DTYPES,
    st.sampled_from(["weight", "Adjacency", "edge by edge"]),
)
def test_weight_0_equals_deleting_the_edge(graph, options, aggr, dtype, way):
    edge_index, size, generator = graph
    theirs, ours = twins("SAGEConv", (5, 4), 3, aggr=aggr, dtype=dtype, **options | {"normalize": False})
    x = features(size, generator, dtype)
    mask = torch.rand(edge_index.size(1), generator=generator) < 0.6
    expected = result(theirs, x, edge_index[:, mask])
    if way == "Adjacency":
        found = result(ours, x, form("Adjacency", edge_index, size, mask.to(dtype)))
    else:
        with edge_by_edge() if way == "edge by edge" else nullcontext():
            found = result(ours, x, edge_index, edge_weight=mask.to(dtype))
    close(found, expected, TOLERANCE[dtype], scale=1)


@settings(max_examples=100, deadline=None)
@given(edge_lists(bipartite=True), st.sampled_from(FUSED), DTYPES, st.booleans())
def test_paths_agree_on_learned_weights(graph, aggr, dtype, backward):
    edge_index, size, generator = graph
    if backward:
        edge_index = edge_index.flip(0)
    ours = twins("SAGEConv", (5, 4), 3, aggr=aggr, dtype=dtype, flow=FLOWS[backward])[1]
    x = features(size, generator, dtype)
    weight = torch.rand(edge_index.size(1), generator=generator, dtype=dtype) + 0.1
    removed = torch.rand(edge_index.size(1), generator=generator) < 0.3
    weight[removed] = 0
    weight.requires_grad_()
    fused = result(ours, x, edge_index, edge_weight=weight, learned=[weight])
    with edge_by_edge():
        plain = result(ours, x, edge_index, edge_weight=weight, learned=[weight])
    close(fused, plain, TOLERANCE[dtype], scale=1)
    # With the edges deleted, too, all but the gradients of their own weights is the same.
    kept = weight.detach()[~removed].requires_grad_()
    deleted = result(ours, x, edge_index[:, ~removed], edge_weight=kept, learned=[kept])
    fused[3] = fused[3][~removed]
    close(fused, deleted, TOLERANCE[dtype], scale=1)


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


def test_static_graph_and_lazy_width():
    edge_index, weight, x = unsorted_graph()
    theirs, ours = twins("SAGEConv", 5, 3)
    many = torch.stack([x, x + 1])
    same(theirs, ours, many, edge_index)
    close(result(ours, many, form("Adjacency", edge_index, (12, 12))), result(theirs, many, edge_index))
    with pytest.raises(ValueError, match="takes no 'edge_weight' for features of 3 dimensions"):
        ours(many, edge_index, edge_weight=weight)
    lazy = SAGEConv((-1, -1), 3)
    lazy((x, x), edge_index)
    lazy.load_state_dict(theirs.state_dict(), strict=True)
    close([lazy(x, edge_index)], [theirs(x, edge_index)])


def test_half_precision():
    edge_index, _, x = unsorted_graph()
    for options in ({}, {"aggr": "max"}, {"aggr": "sum", "bias": False}):
        theirs, ours = twins("SAGEConv", 5, 3, **options)
        for _ in range(3):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                found, expected = ours(x, edge_index), theirs(x, edge_index)
            assert found.dtype == expected.dtype
            close([found.float()], [expected.float()], 2e-2)


def test_values_of_torch_matrices_are_weights():
    edge_index, weight, x = unsorted_graph(simple=True)
    _, ours = twins("SAGEConv", 5, 3)
    expected = result(ours, x, edge_index, edge_weight=weight)
    for name in ("CSR", "COO", "CSC", "Adjacency"):
        close(result(ours, x, form(name, edge_index, (12, 12), weight)), expected)
    if has_module("torch_sparse"):  # of which PyG ignores the values
        close(result(ours, x, form("SparseTensor", edge_index, (12, 12), weight)), result(ours, x, edge_index))


@pytest.mark.parametrize("aggr", ["mean", "max"])
def test_no_tensor_of_messages(aggr):
    edge_index, weight, _ = unsorted_graph(200, 3000)
    wide = torch.randn(200, 64)
    theirs, ours = twins("SAGEConv", 64, 64, aggr=aggr)
    assert largest_tensor(lambda: result(theirs, wide, edge_index)) >= 3000 * 64
    weight.requires_grad_()
    assert largest_tensor(lambda: result(ours, wide, edge_index, edge_weight=weight)) <= 30_000
