"""Attention coefficients by compiled loops against the softmax edge by edge."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sparse_reference import close, graphs
from torch.autograd import gradcheck, gradgradcheck
from torch_geometric.utils import softmax

from graphsparse.ops import Adjacency
from graphsparse.ops.attention import Ends, Scores, attention
from graphsparse.typing import has_module

needs_numba = pytest.mark.skipif("not __import__('graphsparse').typing.has_module('numba')", reason="needs numba")


def listed(edge_index, size):
    """Where the edges are, without and with the matrix that the loops need."""
    pattern = Adjacency.from_edge_index(edge_index, num_nodes=size).pattern
    return [Ends(*edge_index, size[1], pattern=given) for given in (None, pattern)]


@needs_numba
@settings(max_examples=80, deadline=None)
@given(graphs(), st.integers(1, 3), st.booleans(), st.booleans(), st.sampled_from([1.0, 1e3]))
def test_equals_the_softmax_edge_by_edge(graph, heads, with_target, with_edge, scale):
    edge_index, x, weight, num_dst, generator = graph
    sizes = [x.size(0), num_dst if with_target else None, edge_index.size(1) if with_edge else None]
    parts = [None if n is None else scale * torch.randn(n, heads, generator=generator).double() for n in sizes]
    weight = None if weight is None else weight.double()
    grad = torch.randn(edge_index.size(1), heads, generator=generator).double()
    found = []
    for ends in listed(edge_index, (x.size(0), num_dst)):
        leaves = [None if part is None else part.clone().requires_grad_() for part in parts]
        out = attention(Scores(*leaves), ends, weight, 0.2)
        out.backward(grad)
        found.append([out.detach(), *(leaf.grad for leaf in leaves if leaf is not None)])
    close(found[1], found[0], 1e-10, least=[1] * 4)
    if weight is None:
        score = parts[0][edge_index[0]]
        for part, index in ((parts[1], edge_index[1]), (parts[2], slice(None))):
            score = score if part is None else score + part[index]
        theirs = softmax(torch.nn.functional.leaky_relu(score, 0.2), edge_index[1], num_nodes=num_dst)
        close(found[1][:1], [theirs], 1e-10)


@pytest.mark.parametrize("which", [0, 1])
def test_derivatives(which):
    generator = torch.Generator().manual_seed(3)
    edge_index = torch.stack([torch.randint(n, (12,), generator=generator) for n in (4, 5)])
    ends = listed(edge_index, (4, 5))[which]
    parts = [torch.randn(n, 2, generator=generator).double().requires_grad_() for n in (4, 5, 12)]
    weight = torch.rand(12, generator=generator).double()
    for given_weight in (None, weight):

        def function(*parts, weight=given_weight):
            return attention(Scores(*parts), ends, weight, 0.2)

        assert gradcheck(function, parts, check_batched_grad=True)
        assert gradgradcheck(function, parts)


def test_a_learned_weight_has_its_gradient_with_the_matrix_too():
    edge_index = torch.tensor([[0, 1, 2], [0, 0, 1]])
    weight = torch.rand(3, dtype=torch.float64, requires_grad=True)
    score = torch.randn(3, 1, dtype=torch.float64)
    for ends in listed(edge_index, (3, 2)):
        assert gradcheck(lambda w, ends=ends: attention(Scores(score, None, None), ends, w, 0.2), weight)


@needs_numba
def test_loops_are_taken():
    ends = listed(torch.tensor([[0], [0]]), (1, 1))[1]
    out = attention(Scores(torch.zeros(1, 1, requires_grad=True), None, None), ends, None, 0.2)
    assert has_module("numba")
    assert "_Attention" in type(out.grad_fn).__name__
