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

from graphsparse.nn import GINConv

FUSED = ["mean", "sum", "add", "min", "max"]
DTYPES = st.sampled_from([torch.float32, torch.float64])
EPSILON = st.fixed_dictionaries({"eps": st.sampled_from([0.0, 0.3, -1.0]), "train_eps": st.booleans()})


def network(width=5):
    return torch.nn.Sequential(torch.nn.Linear(width, 6), torch.nn.Tanh(), torch.nn.Linear(6, 3))


def pair(size, generator, dtype):
    return tuple(torch.randn(n, 5, generator=generator, dtype=dtype) for n in size)


@settings(max_examples=150, deadline=None)
@given(
    edge_lists(),
    EPSILON,
    st.sampled_from([*FUSED, "var", "softmax"]),
    st.sampled_from(FLOWS),
    DTYPES,
)
def test_equals_pyg_on_any_graph(graph, epsilon, aggr, flow, dtype):
    edge_index, (num_nodes, _), generator = graph
    theirs, ours = twins("GINConv", network(), aggr=aggr, flow=flow, dtype=dtype, **epsilon)
    x = torch.randn(num_nodes, 5, generator=generator, dtype=dtype)
    same(theirs, ours, x, edge_index, scale=1)
    same(theirs, ours, (x, x.clone()), edge_index, scale=1)


@settings(max_examples=100, deadline=None)
@given(edge_lists(bipartite=True), EPSILON, st.sampled_from(FUSED), st.integers(0, 2), DTYPES)
def test_equals_pyg_on_any_bipartite_graph(graph, epsilon, aggr, given_by, dtype):
    edge_index, size, generator = graph
    theirs, ours = twins("GINConv", network(), aggr=aggr, dtype=dtype, **epsilon)
    x = pair(size, generator, dtype)
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
    theirs, ours = twins("GINConv", network(), aggr=aggr, train_eps=True)
    size = (12, 12 if pair is False else 8)
    edges = form(name, edge_index, size)
    sized = {"size": size} if pair is None and name == "edge_index" else {}
    reference = form("CSR", edge_index, size) if name in ("Adjacency", "CSC") else edges
    close(result(ours, x, edges, **sized), result(theirs, x, reference, **sized))


@settings(max_examples=200, deadline=None)
@given(
    edge_lists(bipartite=True),
    EPSILON,
    st.sampled_from(FUSED),
    DTYPES,
    st.sampled_from(["weight", "Adjacency", "edge by edge"]),
)
def test_weight_0_equals_deleting_the_edge(graph, epsilon, aggr, dtype, way):
    edge_index, size, generator = graph
    theirs, ours = twins("GINConv", network(), aggr=aggr, dtype=dtype, **epsilon)
    x = pair(size, generator, dtype)
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
    ours = twins("GINConv", network(), aggr=aggr, dtype=dtype, flow=FLOWS[backward])[1]
    x = pair(size, generator, dtype)
    weight = torch.rand(edge_index.size(1), generator=generator, dtype=dtype) + 0.1
    removed = torch.rand(edge_index.size(1), generator=generator) < 0.3
    weight[removed] = 0
    weight.requires_grad_()
    fused = result(ours, x, edge_index, edge_weight=weight, learned=[weight])
    with edge_by_edge():
        plain = result(ours, x, edge_index, edge_weight=weight, learned=[weight])
    close(fused, plain, TOLERANCE[dtype], scale=1)
    kept = weight.detach()[~removed].requires_grad_()
    deleted = result(ours, x, edge_index[:, ~removed], edge_weight=kept, learned=[kept])
    fused[3] = fused[3][~removed]
    close(fused, deleted, TOLERANCE[dtype], scale=1)


def test_first_value_of_epsilon():
    edge_index, _, x = unsorted_graph()
    theirs, ours = twins("GINConv", network(), eps=0.5)
    for change in (
        lambda layer: layer.eps.fill_(2),
        lambda layer: layer.eps.data.fill_(3),
        lambda layer: layer.load_state_dict(layer.state_dict() | {"eps": torch.tensor([4.0])}),
        lambda layer: [torch.manual_seed(0), layer.reset_parameters()],
        lambda layer: setattr(layer, "eps", torch.tensor([5.0])),
    ):
        for layer in (theirs, ours):
            for _ in range(2):
                layer(x, edge_index)
            change(layer)
        close([ours(x, edge_index)], [theirs(x, edge_index)])
    other = {"eps": torch.tensor([7.0])}
    found, expected = (torch.func.functional_call(layer, other, (x, edge_index)) for layer in (ours, theirs))
    close([found], [expected])


def test_static_graph_and_any_function():
    edge_index, weight, x = unsorted_graph()
    theirs, ours = twins("GINConv", network(), train_eps=True)
    many = torch.stack([x, x + 1])
    same(theirs, ours, many, edge_index)
    with pytest.raises(ValueError, match="takes no 'edge_weight' for features of 3 dimensions"):
        ours(many, edge_index, edge_weight=weight)
    for function in (torch.sin, lambda x: x.view(-1, 1, 5)):
        close([GINConv(function)(x, edge_index)], [pyg.GINConv(function)(x, edge_index)])
    with pytest.raises(ValueError, match="GINConv takes no 'edge_weight' with aggr='median'"):
        GINConv(network(), aggr="median")(x, edge_index, edge_weight=weight)


def test_half_precision():
    edge_index, _, x = unsorted_graph()
    for options in ({}, {"aggr": "max"}, {"train_eps": True}):
        theirs, ours = twins("GINConv", network(), **options)
        for _ in range(3):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                found, expected = ours(x, edge_index), theirs(x, edge_index)
            assert found.dtype == expected.dtype
            close([found.float()], [expected.float()], 2e-2)


def test_no_tensor_of_messages():
    edge_index, weight, _ = unsorted_graph(200, 3000)
    theirs, ours = twins("GINConv", network(64))
    wide = torch.randn(200, 64)
    assert largest_tensor(lambda: result(theirs, wide, edge_index)) >= 3000 * 64
    weight.requires_grad_()
    assert largest_tensor(lambda: result(ours, wide, edge_index, edge_weight=weight)) <= 30_000
