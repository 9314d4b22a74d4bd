from contextlib import nullcontext

import pytest
import torch
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

from graphsparse.nn import GATConv

DTYPES = st.sampled_from([torch.float32, torch.float64])
FILLS = ["mean", "add", "sum", "min", "max", "mul", 0.0, 1.5, torch.tensor([0.5, -1.0])]
OPTIONS = st.fixed_dictionaries(
    {
        "heads": st.integers(1, 3),
        "concat": st.booleans(),
        "negative_slope": st.sampled_from([0.2, 0.0, 1.0]),
        "add_self_loops": st.booleans(),
        "fill_value": st.sampled_from(FILLS),
        "bias": st.booleans(),
        "residual": st.booleans(),
    }
)


def pair(size, generator, dtype):
    return tuple(torch.randn(n, width, generator=generator, dtype=dtype) for n, width in zip(size, (5, 4), strict=True))


@settings(max_examples=200, deadline=None)
@given(edge_lists(), OPTIONS, st.sampled_from(FLOWS), st.booleans(), DTYPES)
def test_equals_pyg_on_any_graph(graph, options, flow, attributed, dtype):
    edge_index, (num_nodes, _), generator = graph
    attributed = {"edge_dim": 2} if attributed else {}
    theirs, ours = twins("GATConv", 5, 3, dtype=dtype, flow=flow, **options, **attributed)
    x = torch.randn(num_nodes, 5, generator=generator, dtype=dtype)
    edge_attr = torch.randn(edge_index.size(1), 2, generator=generator, dtype=dtype) if attributed else None
    for same_or_pair in (x, (x, x.clone())):
        same(theirs, ours, same_or_pair, edge_index, edge_attr, scale=1)


@settings(max_examples=100, deadline=None)
@given(edge_lists(bipartite=True), OPTIONS, st.booleans(), st.integers(0, 2), DTYPES)
def test_equals_pyg_on_any_bipartite_graph(graph, options, attributed, given_by, dtype):
    edge_index, size, generator = graph
    if isinstance(options["fill_value"], str) and size[1] > size[0] and options["add_self_loops"]:
        attributed = False  # PyG reduces the features of edges into nodes for which it has no place
    attributed = {"edge_dim": 2} if attributed else {}
    theirs, ours = twins("GATConv", (5, 4), 3, dtype=dtype, **options, **attributed)
    edge_attr = torch.randn(edge_index.size(1), 2, generator=generator, dtype=dtype) if attributed else None
    x = pair(size, generator, dtype)
    if given_by == 0:
        same(theirs, ours, x, edge_index, edge_attr, scale=1)
    elif given_by == 1:
        same(theirs, ours, x, edge_index, edge_attr, size=size, scale=1)
    else:
        same(theirs, ours, (x[0], None), edge_index, edge_attr, size=size, scale=1)


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("loops", [False, True])
@pytest.mark.parametrize("pair", [False, True])
@pytest.mark.parametrize("shown", [False, True])
def test_every_form(name, loops, pair, shown):
    edge_index, _, x = unsorted_graph(simple=True)
    if pair:
        edge_index = edge_index[:, edge_index[1] < 8]
        x = (x, x[:8])
    theirs, ours = twins("GATConv", 5, 3, heads=2, add_self_loops=loops)
    size = (12, 8 if pair else 12)
    edges = form(name, edge_index, size)
    reference = edge_index if name in ("Adjacency", "CSC") else edges
    shown = {"return_attention_weights": True} if shown and name not in ("CSC",) else {}
    close(result(ours, x, edges, **shown), result(theirs, x, reference, **shown))
    if shown and name == "edge_index":
        for ours_part, theirs_part in zip(ours(x, edges, **shown)[1], theirs(x, edges, **shown)[1], strict=True):
            close([ours_part], [theirs_part])


@pytest.mark.parametrize("flow", FLOWS)
def test_dropout_draws_as_pyg(flow):
    edge_index, _, x = unsorted_graph()
    edge_index = edge_index[:, edge_index[0] != edge_index[1]]
    theirs, ours = twins("GATConv", 5, 3, heads=2, dropout=0.5, flow=flow)
    expected = same(theirs, ours, x, edge_index, seed=3)
    assert not torch.equal(expected[0], result(theirs, x, edge_index, seed=4)[0])


@settings(max_examples=200, deadline=None)
@given(
    edge_lists(bipartite=True),
    OPTIONS,
    st.booleans(),
    DTYPES,
    st.sampled_from(["weight", "Adjacency", "edge by edge"]),
)
def test_weight_0_equals_deleting_the_edge(graph, options, attributed, dtype, way):
    edge_index, size, generator = graph
    if isinstance(options["fill_value"], str) and size[1] > size[0] and options["add_self_loops"]:
        attributed = False
    attributed = {"edge_dim": 2} if attributed else {}
    theirs, ours = twins("GATConv", (5, 4), 3, dtype=dtype, **options, **attributed)
    x = pair(size, generator, dtype)
    edge_attr = torch.randn(edge_index.size(1), 2, generator=generator, dtype=dtype) if attributed else None
    mask = torch.rand(edge_index.size(1), generator=generator) < 0.6
    expected = result(theirs, x, edge_index[:, mask], edge_attr[mask] if attributed else None)
    if attributed:
        edge_attr[~mask] *= 1e4  # a score that would leave the others without a share
    if way == "Adjacency":
        found = result(ours, x, form("Adjacency", edge_index, size, mask.to(dtype)), edge_attr)
    else:
        with edge_by_edge() if way == "edge by edge" else nullcontext():
            found = result(ours, x, edge_index, edge_attr, edge_weight=mask.to(dtype))
    close(found, expected, TOLERANCE[dtype], scale=1)


@settings(max_examples=100, deadline=None)
@given(edge_lists(bipartite=True), OPTIONS, DTYPES)
def test_paths_agree_on_learned_weights(graph, options, dtype):
    edge_index, size, generator = graph
    ours = twins("GATConv", (5, 4), 3, dtype=dtype, edge_dim=2, **options)[1]
    x = pair(size, generator, dtype)
    edge_attr = torch.randn(edge_index.size(1), 2, generator=generator, dtype=dtype)
    weight = torch.rand(edge_index.size(1), generator=generator, dtype=dtype) + 0.1
    removed = torch.rand(edge_index.size(1), generator=generator) < 0.3
    weight[removed] = 0
    weight.requires_grad_()
    fused = result(ours, x, edge_index, edge_attr, edge_weight=weight, learned=[weight])
    with edge_by_edge():
        plain = result(ours, x, edge_index, edge_attr, edge_weight=weight, learned=[weight])
    close(fused, plain, TOLERANCE[dtype], scale=1)
    kept = weight.detach()[~removed].requires_grad_()
    deleted = result(ours, x, edge_index[:, ~removed], edge_attr[~removed], edge_weight=kept, learned=[kept])
    fused[3] = fused[3][~removed]
    close(fused, deleted, TOLERANCE[dtype], scale=1)


def test_weights_enter_the_attention():
    edge_index, weight, x = unsorted_graph()
    theirs, ours = twins("GATConv", 5, 3, heads=2)
    out, (edges, alpha) = ours(x, edge_index, edge_weight=weight, return_attention_weights=True)
    _, (expected, plain) = theirs(x, edge_index, return_attention_weights=True)
    assert torch.equal(edges, expected)
    given = torch.cat([weight[edge_index[0] != edge_index[1]], torch.ones(12)]).view(-1, 1)
    total = torch.zeros(12, 2).index_add(0, edges[1], plain * given)
    close([alpha], [plain * given / total[edges[1]]])
    message = alpha.unsqueeze(-1) * theirs.lin(x).view(12, 2, 3)[edges[0]]
    close([out], [torch.zeros(12, 2, 3).index_add(0, edges[1], message).view(12, 6) + theirs.bias])
    with edge_by_edge():
        again, (same_edges, other) = ours(x, edge_index, edge_weight=weight, return_attention_weights=True)
    close([again, other], [out, alpha])
    assert torch.equal(same_edges, edges)
    for nothing in (False, None):
        assert torch.is_tensor(theirs(x, edge_index, return_attention_weights=nothing))
        assert torch.is_tensor(ours(x, edge_index, return_attention_weights=nothing))


def test_hooks_and_messages_of_a_subclass_see_weights():
    edge_index, weight, x = unsorted_graph()
    ours = twins("GATConv", 5, 3)[1]
    expected = ours(x, edge_index, edge_weight=weight) - ours.bias
    ours.register_message_forward_hook(lambda conv, args, out: 2 * out)
    close([ours(x, edge_index, edge_weight=weight) - ours.bias], [2 * expected])

    class Tripled(GATConv):
        def message(self, x_j, alpha):
            return 3 * alpha.unsqueeze(-1) * x_j

    triple = Tripled(5, 3)
    triple.load_state_dict(ours.state_dict())
    close([triple(x, edge_index, edge_weight=weight) - ours.bias], [3 * expected])


def test_refuses_weights_that_would_not_count():
    edge_index, weight, x = unsorted_graph()
    adj = form("Adjacency", edge_index, (12, 12), weight)
    plain = form("Adjacency", edge_index, (12, 12))
    mean = twins("GATConv", 5, 3, aggr="mean")[1]
    explained = GATConv(5, 3)
    explained.explain = True
    hooked = GATConv(5, 3)
    hooked.register_edge_update_forward_hook(lambda *_: None)

    class Own(GATConv):
        def edge_update(self, alpha_j, alpha_i, edge_attr, index, ptr, dim_size):
            return torch.ones_like(alpha_j)

    reasons = [
        "with aggr='mean'",
        "while it is explained",
        "with hooks on 'edge_update'",
        "with a method 'edge_update'",
    ]
    for layer, reason in zip((mean, explained, hooked, Own(5, 3)), reasons, strict=True):
        for given_edges, given_weight in ((edge_index, weight), (adj, None)):
            with pytest.raises(ValueError, match=f"takes no 'edge_weight' {reason}"):
                layer(x, given_edges, edge_weight=given_weight)
        if layer is not explained:
            close([layer(x, plain)], [layer(x, edge_index)])
    with pytest.raises(ValueError, match="for features of 3 dimensions"):
        GATConv(5, 3)(x.view(1, 12, 5), edge_index, edge_weight=weight)
    with pytest.raises(AssertionError, match="Static graphs"):
        GATConv(5, 3)(x.view(1, 12, 5), edge_index)


def test_other_aggregations():
    edge_index, _, x = unsorted_graph()
    for aggr in ("mean", "max", "softmax"):
        theirs, ours = twins("GATConv", 5, 3, heads=2, aggr=aggr)
        same(theirs, ours, x, edge_index)
        close(result(ours, x, form("Adjacency", edge_index, (12, 12))), result(theirs, x, edge_index))


def test_lazy_width_and_half_precision():
    edge_index, _, x = unsorted_graph()
    for width in (5, (5, 5)):
        theirs, ours = twins("GATConv", width, 3, heads=2)
        lazy = GATConv(-1 if width == 5 else (-1, -1), 3, heads=2)
        lazy(x, edge_index)
        lazy.load_state_dict(theirs.state_dict(), strict=True)
        close([lazy(x, edge_index)], [theirs(x, edge_index)])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found, expected = ours(x, edge_index), theirs(x, edge_index)
        assert found.dtype == expected.dtype
        close([found.float()], [expected.float()], 2e-2)


def test_edge_features_of_one_dimension():
    edge_index, _, x = unsorted_graph()
    edge_attr = torch.rand(edge_index.size(1))
    for fill_value in ("mean", 2.0, torch.tensor(0.5)):
        theirs, ours = twins("GATConv", 5, 3, edge_dim=1, fill_value=fill_value)
        same(theirs, ours, x, edge_index, edge_attr)


def test_no_tensor_of_messages():
    edge_index, weight, x = unsorted_graph(200, 3000)
    theirs, ours = twins("GATConv", 5, 32, heads=2)
    assert largest_tensor(lambda: result(theirs, x, edge_index)) >= 2900 * 64
    weight.requires_grad_()
    assert largest_tensor(lambda: result(ours, x, edge_index, edge_weight=weight)) <= 30_000
