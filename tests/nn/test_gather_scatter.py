import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layers import close
from sparse_reference import edge_lists, graphs, reference
from torch.autograd import gradcheck
from torch_geometric.nn.conv.gcn_conv import gcn_norm
from torch_geometric.utils import softmax

from graphsparse.nn.gather_scatter import aggregate, append_loops, gcn_weights, reduce_messages
from graphsparse.ops.attention import attention_softmax

REDUCTIONS = ("sum", "mean", "min", "max")


def dense(edge_index, weight, num_nodes):
    matrix = torch.zeros(num_nodes, num_nodes, dtype=torch.float64)
    return matrix.index_put((edge_index[1], edge_index[0]), weight.double(), accumulate=True)


@pytest.mark.parametrize("reduce", REDUCTIONS)
@settings(max_examples=60, deadline=None)
@given(graphs())
def test_aggregate_equals_the_reference(reduce, graph):
    edge_index, x, value, num_dst, generator = graph
    weight = torch.rand(edge_index.size(1), generator=generator) + 0.1 if value is None else value
    grads = []
    for function in (reference, lambda e, x, r, w, n: aggregate(x, e, w, n, r)):
        leaves = [x.double().requires_grad_(), weight.double().requires_grad_()]
        out = function(edge_index, leaves[0], reduce, leaves[1], num_dst)
        (out * torch.arange(1.0, out.numel() + 1).view(out.shape)).sum().backward()
        grads.append([out.detach(), leaves[0].grad, leaves[1].grad])
    if reduce in ("min", "max"):  # equal extrema of repeated edges share in one and not in the other
        grads = [parts[:1] for parts in grads]
    close(grads[1], grads[0], 1e-10)
    turned = aggregate(x.double(), edge_index.flip(0), weight.double(), num_dst, reduce, flow="target_to_source")
    close([turned], [grads[0][0]], 1e-10)


def test_gradients():
    generator = torch.Generator().manual_seed(0)
    edge_index = torch.randint(6, (2, 14), generator=generator)
    x = torch.randn(7, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = (torch.rand(14, generator=generator, dtype=torch.float64) + 0.2).requires_grad_()
    for reduce in REDUCTIONS:
        assert gradcheck(lambda x, w, r=reduce: aggregate(x, edge_index, w, 7, r), (x, weight))
    for loops in (False, True):
        options = {"improved": True, "add_self_loops": loops, "dtype": torch.float64}
        assert gradcheck(lambda w, o=options: gcn_weights(edge_index, w, 7, **o)[1], weight)
    score = torch.randn(14, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda s, w: attention_softmax(s, w, edge_index[1], 7), (score, weight))
    assert gradcheck(lambda s: attention_softmax(s, None, edge_index[1], 7), score)
    # A weight of 0 has a gradient, too: that of bringing the edge back.
    zeros = weight.detach().clone()
    zeros[edge_index[1] != edge_index[1, 0]] = 0
    zeros[:7] = 0
    zeros[edge_index[1].diff(prepend=edge_index[1, :1]) != 0] += 0.5
    some = torch.zeros(14, 7, dtype=torch.float64)
    some[torch.arange(14), edge_index[1]] = 1
    present = (some.t() @ zeros > 0)[edge_index[1]]
    change = torch.autograd.functional.jvp(
        lambda w: attention_softmax(score.detach(), w, edge_index[1], 7), zeros, present.double()
    )[1]
    step = 1e-7
    moved = attention_softmax(score, zeros + step * present, edge_index[1], 7)
    close([change], [(moved - attention_softmax(score, zeros, edge_index[1], 7)).detach() / step], 1e-5)


def test_product():
    message = torch.tensor([[2.0], [3.0], [5.0], [7.0]])
    target, weight = torch.tensor([0, 0, 2, 0]), torch.tensor([1.0, 2.0, 0.0, 0.0])
    message = message * weight.view(-1, 1)
    assert reduce_messages(message, weight, target, 3, "mul").flatten().tolist() == [12, 1, 1]


def test_extrema_of_infinite_messages_and_of_none():
    message = torch.tensor([[-1e30], [2.0], [1e38]])
    weight, target = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0, 0, 1])
    assert reduce_messages(message, weight, target, 3, "max").flatten().tolist() == [message[0].item(), 0, 0]
    assert reduce_messages(message, weight, target, 3, "min").flatten().tolist() == [message[0].item(), 0, 0]


@settings(max_examples=100, deadline=None)
@given(edge_lists(), st.booleans(), st.booleans())
def test_gcn_weights_equal_those_of_pyg_on_the_pruned_graph(graph, improved, loops):
    edge_index, (num_nodes, _), generator = graph
    weight = torch.rand(edge_index.size(1), generator=generator, dtype=torch.float64) + 0.1
    mask = torch.rand(edge_index.size(1), generator=generator) < 0.6
    found = gcn_weights(
        edge_index, weight * mask, num_nodes, improved=improved, add_self_loops=loops, dtype=torch.float64
    )
    expected = gcn_norm(edge_index[:, mask], weight[mask], num_nodes, improved, loops, dtype=torch.float64)
    close([dense(*found, num_nodes)], [dense(*expected, num_nodes)], 1e-12)
    assert found[0].size(1) == edge_index.size(1) + num_nodes * loops


def test_appended_loops():
    edge_index = torch.tensor([[0, 1, 2, 2], [1, 1, 2, 0]])
    edges, weight = append_loops(edge_index, torch.tensor([1.0, 2, 3, 4]), torch.tensor([7.0, 8, 9]))
    assert edges.tolist() == [[0, 1, 2, 2, 0, 1, 2], [1, 1, 2, 0, 0, 1, 2]]
    assert weight.tolist() == [1, 0, 0, 4, 7, 8, 9]


@settings(max_examples=100, deadline=None)
@given(edge_lists(bipartite=True), st.sampled_from([1.0, 1e-30, 1e30]))
def test_softmax_equals_that_of_the_pruned_graph(graph, factor):
    edge_index, (_, num_dst), generator = graph
    score = torch.randn(edge_index.size(1), 2, generator=generator)
    mask = torch.rand(edge_index.size(1), generator=generator) < 0.6
    expected = torch.zeros_like(score)
    expected[mask] = softmax(score[mask], edge_index[1, mask], num_nodes=num_dst)
    ones = torch.ones(edge_index.size(1))
    close([attention_softmax(score, None, edge_index[1], num_dst)], [softmax(score, edge_index[1], num_nodes=num_dst)])
    close([attention_softmax(score, ones * factor, edge_index[1], num_dst)], [softmax(score, edge_index[1])])
    for huge in (1e4, -1e4, 3e38):
        score[~mask] = huge
        found = attention_softmax(score, mask * factor, edge_index[1], num_dst)
        close([found], [expected])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_softmax_of_removed_edges_has_finite_gradients(dtype):
    score = torch.tensor([[1e4], [0.0], [2.0], [1e4]], dtype=dtype, requires_grad=True)
    weight = torch.tensor([0.0, 1.0, 0.5, 0.0], dtype=dtype, requires_grad=True)
    out = attention_softmax(score, weight, torch.tensor([0, 0, 0, 1]), 3)
    assert out[0] == out[3] == 0
    (out * torch.tensor([[1.0], [2.0], [3.0], [4.0]], dtype=dtype)).sum().backward()
    assert torch.isfinite(score.grad).all()
    assert torch.isfinite(weight.grad).all()
    assert score.grad[0] == score.grad[3] == weight.grad[3] == 0
