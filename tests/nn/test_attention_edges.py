import gc
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layers import FLOWS, FORMS, close, form, unsorted_graph
from sparse_reference import edge_lists
from torch_geometric.utils import add_self_loops, remove_self_loops

from graphsparse.nn.attention_edges import attention_edges
from graphsparse.ops import Adjacency, spmm

FILLS = ["mean", "add", "sum", "min", "max", "amax", "mul", 0.0, 2.5, torch.tensor([0.5, -1.0])]


def as_pyg(edge_index, edge_attr, num_nodes, fill_value):
    return add_self_loops(*remove_self_loops(edge_index, edge_attr), fill_value=fill_value, num_nodes=num_nodes)


@settings(max_examples=150, deadline=None)
@given(
    edge_lists(), st.sampled_from(FILLS), st.sampled_from(FLOWS), st.booleans(), st.sampled_from(["no", "01", "all"])
)
def test_present_edges_are_those_of_pyg(graph, fill_value, flow, fused, weights):
    edge_index, (num_nodes, _), generator = graph
    edge_attr = torch.randn(edge_index.size(1), 2, generator=generator)
    weight, kept = None, torch.ones(edge_index.size(1), dtype=torch.bool)
    if weights != "no":
        kept = torch.rand(edge_index.size(1), generator=generator) < 0.6
        weight = kept.float()
    if weights == "all" and not isinstance(fill_value, str):
        weight = weight * (1 + torch.rand(edge_index.size(1), generator=generator))
    edges = attention_edges(edge_index, weight, (num_nodes,) * 2, add_self_loops=True, flow=flow, fused=fused)
    expected, expected_attr = as_pyg(edge_index[:, kept], edge_attr[kept], num_nodes, fill_value)
    present = torch.ones(edges.edge_index.size(1), dtype=torch.bool) if edges.weight is None else edges.weight != 0
    assert torch.equal(edges.edge_index[:, present], expected)
    close([edges.extend(edge_attr, fill_value)[present]], [expected_attr])
    assert torch.equal(edges.edge_index[:, edges.shown()], as_pyg(edge_index, None, num_nodes, None)[0])
    assert edges.num_dst == num_nodes
    source, target = edges.edge_index if flow == FLOWS[0] else edges.edge_index.flip(0)
    assert torch.equal(edges.source, source)
    assert torch.equal(edges.target, target)
    if not fused:
        assert edges.adjacency is None
        assert edges.edge_index.size(1) == edge_index.size(1) + num_nodes
    else:  # its edge list has the order of the edges here
        value = torch.randn(edges.edge_index.size(1), generator=generator)
        dense = torch.zeros(num_nodes, num_nodes).index_put((target, source), value, accumulate=True)
        close([spmm(edges.adjacency, torch.eye(num_nodes), value=value)], [dense])


@settings(max_examples=60, deadline=None)
@given(edge_lists(bipartite=True), st.booleans(), st.sampled_from(["mean", "max", 1.0]))
def test_bipartite(graph, loops, fill_value):
    edge_index, ends, generator = graph
    edge_attr = torch.randn(edge_index.size(1), 2, generator=generator)
    edges = attention_edges(edge_index, None, ends, add_self_loops=loops, flow=FLOWS[0], fused=True)
    extended = edges.extend(edge_attr, fill_value)
    assert edges.num_loops == (min(ends) if loops else 0)
    present = slice(None) if edges.weight is None else edges.weight != 0
    found = edges.edge_index[:, present]
    # PyG has no place for edges into nodes that are no sources, so it is asked for as many nodes as there are.
    expected, expected_attr = edge_index, edge_attr
    if loops:
        expected, expected_attr = remove_self_loops(edge_index, edge_attr)
        count = expected.size(1)
        expected, expected_attr = add_self_loops(expected, expected_attr, fill_value, num_nodes=max(*ends, 1))
        expected, expected_attr = expected[:, : count + min(ends)], expected_attr[: count + min(ends)]
    assert torch.equal(found, expected)
    close([extended[present]], [expected_attr])


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("loops", [False, True])
def test_every_form_is_built_once(name, loops):
    edge_index, weight, _ = unsorted_graph(simple=True)
    given_edges = form(name, edge_index, (12, 12), weight if name in ("Adjacency", "CSR", "COO") else None)
    found = [
        attention_edges(given_edges, None, (12, 12), add_self_loops=loops, flow=FLOWS[0], fused=True) for _ in range(3)
    ]
    if loops:
        assert found[1].edge_index is found[2].edge_index
    assert found[1].adjacency.pattern is found[2].adjacency.pattern
    assert found[0].adjacency.value is None
    expected = {tuple(edge) for edge in edge_index.t().tolist()}
    if loops:
        expected |= {(node, node) for node in range(12)}
    present = slice(None) if found[0].weight is None else found[0].weight != 0
    assert {tuple(edge) for edge in found[0].edge_index[:, present].t().tolist()} == expected
    if name == "Adjacency":
        off = edge_index[0] != edge_index[1]
        assert torch.equal(found[0].weight[: off.numel()], weight * off if loops else weight)
        plain = given_edges.with_value(None)
        other = attention_edges(plain, 2 * weight, (12, 12), add_self_loops=loops, flow=FLOWS[0], fused=True)
        assert torch.equal(other.weight[: off.numel()], 2 * weight * off if loops else 2 * weight)


@pytest.mark.parametrize("loops", [False, True])
def test_memory_goes_with_the_edges(loops, monkeypatch):
    gc.collect()
    gc.disable()
    try:
        built, real = [], Adjacency._build.__func__

        def spy(cls, *args):
            built.append(weakref.ref(adj := real(cls, *args)))
            return adj

        monkeypatch.setattr(Adjacency, "_build", classmethod(spy))
        for name in FORMS:
            edges = form(name, unsorted_graph(simple=True)[0], (12, 12))
            for _ in range(3):
                attention_edges(edges, None, (12, 12), add_self_loops=loops, flow=FLOWS[0], fused=True)
            assert any(ref() is not None for ref in built)
            del edges
            assert all(ref() is None for ref in built)
            built.clear()
    finally:
        gc.enable()


def test_weights_keep_their_gradients():
    edge_index = torch.tensor([[0, 1, 1], [1, 1, 0]])
    weight = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    edges = attention_edges(edge_index, weight, (2, 2), add_self_loops=True, flow=FLOWS[0], fused=True)
    assert edges.weight.tolist() == [1, 0, 3, 1, 1]
    edges.weight.sum().backward()
    assert weight.grad.tolist() == [1, 0, 1]


def test_reduction_that_has_no_weights():
    edge_index = torch.tensor([[0, 1, 1], [1, 1, 0]])
    edges = attention_edges(edge_index, torch.ones(3), (2, 2), add_self_loops=True, flow=FLOWS[0], fused=True)
    with pytest.raises(ValueError, match="'fill_value' 'any' does not go with weights"):
        edges.extend(torch.ones(3, 1), "any")
