import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from graphsparse import typing
from graphsparse.ops import dense
from graphsparse.ops.dense import linear


@pytest.fixture
def by_onednn(monkeypatch):
    """Use oneDNN whatever the processor and the size, and count how often."""
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this build of torch has no oneDNN")
    calls = []

    def call(*args):
        calls.append(args)
        return torch.ops.mkldnn._linear_pointwise(*args)

    monkeypatch.setattr(dense, "onednn_linear", lambda: call)
    monkeypatch.setattr(dense, "_WORTH_IT", 1)
    return calls


def both(x, weight, bias, function, absolute=False):
    """Result and gradients for random outer gradients, or for the absolute values of everything."""
    operands = [None if t is None else (t.abs() if absolute else t.clone()) for t in (x, weight, bias)]
    operands = [None if t is None else t.requires_grad_() for t in operands]
    out = function(*operands)
    torch.manual_seed(1)
    outer = torch.randn(out.shape).to(out.dtype)
    out.backward(outer.abs() if absolute else outer)
    return [out.detach(), *(t.grad for t in operands if t is not None)]


def assert_within_rounding(x, weight, bias):
    """Compare with double precision: a sum of n products is off by at most n eps times the sum of their sizes."""
    doubles = [None if t is None else t.double() for t in (x, weight, bias)]
    exact, sizes = both(*doubles, F.linear), both(*doubles, F.linear, absolute=True)
    terms = (x.size(1) + 1, weight.size(0), x.size(0), x.size(0))  # of the output, and of the gradients
    for ours, reference, size, n in zip(both(x, weight, bias, linear), exact, sizes, terms, strict=False):
        assert bool(((ours.double() - reference).abs() <= n * torch.finfo(torch.float32).eps * size).all())


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 5000), st.integers(1, 40), st.integers(1, 40), st.booleans())
def test_equals_the_product_in_double_precision(num, width, out, has_bias):
    torch.manual_seed(num)
    x, weight = torch.randn(num, width), torch.randn(out, width)
    bias = torch.randn(out) if has_bias else None
    assert_within_rounding(x, weight, bias)


@pytest.mark.parametrize("num", [1, 7, 2048, 2049, 5000])
@pytest.mark.parametrize("has_bias", [False, True])
def test_onednn_equals_the_product_in_double_precision(by_onednn, num, has_bias):
    torch.manual_seed(num)
    x, weight, bias = torch.randn(num, 33), torch.randn(17, 33), torch.randn(17) if has_bias else None
    assert_within_rounding(x, weight, bias)
    assert len(by_onednn) == 2 + -(-num // 2048)  # forward, input, and the blocks of the weight


def test_strides_do_not_matter(by_onednn):
    x, weight = torch.randn(33, 40).t(), torch.randn(33, 17).t()
    torch.testing.assert_close(linear(x, weight), x @ weight.t(), rtol=1e-5, atol=1e-5)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(linear(x, weight).sum(), x)  # an expanded gradient
    torch.testing.assert_close(gradient, weight.sum(0).expand(40, -1), rtol=1e-5, atol=1e-5)
    assert len(by_onednn) == 3


def test_only_what_is_wanted_is_computed(by_onednn):
    x, weight = torch.randn(40, 8), torch.randn(4, 8, requires_grad=True)
    linear(x, weight).sum().backward()
    assert len(by_onednn) == 2


def test_gradient_of_the_gradient(by_onednn):
    x, weight = torch.randn(9, 5, requires_grad=True), torch.randn(4, 5, requires_grad=True)
    seconds = []
    for function in (linear, F.linear):
        first = torch.autograd.grad(function(x, weight).square().sum(), (x, weight), create_graph=True)
        seconds.append(torch.autograd.grad(sum(g.square().sum() for g in first), (x, weight)))
    for ours, reference in zip(*seconds, strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-4)
    assert by_onednn


def test_what_is_left_to_torch(by_onednn):
    x, weight = torch.randn(40, 8), torch.randn(4, 8)
    linear(x.double(), weight.double())
    linear(x.expand(2, 40, 8), weight)
    linear(x.to_sparse_csr(), weight)
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(x, weight).dtype == torch.bfloat16
    with torch.backends.mkldnn.flags(enabled=False):
        linear(x, weight)
    torch.func.vmap(lambda row: linear(x, row[None]))(weight)
    torch.func.jvp(lambda t: linear(t, weight), (x,), (x,))
    with pytest.raises(RuntimeError, match="shapes"):
        linear(x, torch.randn(4, 9))
    assert not by_onednn
    linear(nn.Parameter(x), nn.Parameter(weight))
    assert by_onednn


@pytest.mark.parametrize(
    ("processor", "capability", "used"),
    [
        ("vendor_id : AuthenticAMD", "AVX512", True),
        ("vendor_id : AuthenticAMD", "AVX2", False),
        ("GenuineIntel", "AVX512", False),
        ("", "AVX512", False),
    ],
)
def test_processors(monkeypatch, processor, capability, used):
    if not (torch.backends.mkldnn.is_available() and torch.backends.mkl.is_available()):
        pytest.skip("this build of torch has only one library")
    monkeypatch.setattr(typing, "_processor", lambda: processor)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    typing.onednn_linear.cache_clear()
    try:
        assert isinstance(typing.onednn_linear(), str) != used
        assert typing.backends()["onednn"][0].isdigit() == used
    finally:
        typing.onednn_linear.cache_clear()
