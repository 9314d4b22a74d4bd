import copy
import io

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from graphsparse.nn import CompactLinear, CSRLinear
from graphsparse.nn.features import constant_features
from graphsparse.nn.frozen_linear import FrozenLinear

KINDS = [CSRLinear, CompactLinear]


def sparse(rows=6, columns=9, dtype=torch.float32):
    """Return a weight with dead rows and columns, and zeros beside."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(rows, columns, generator=generator, dtype=dtype)
    weight = weight * (torch.rand(rows, columns, generator=generator) < 0.5)
    weight[1] = 0
    weight[:, 4:6] = 0
    return weight


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(9,), (0, 9), (5, 9), (2, 3, 9)])
def test_any_shape(kind, bias, shape):
    weight, bias = sparse(), torch.randn(6) if bias else None
    x = torch.randn(shape)
    before = x.clone()
    out = kind(weight, bias)(x)
    torch.testing.assert_close(out, F.linear(x, weight, bias))
    assert out.is_contiguous()
    assert torch.equal(x, before)


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_of_the_input(kind):
    weight, bias = sparse(dtype=torch.float64), torch.randn(6, dtype=torch.float64)
    x = torch.randn(4, 9, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(kind(weight, bias), x)
    kind(weight, bias)(x).square().sum().backward()
    twin = x.detach().clone().requires_grad_()
    F.linear(twin, weight, bias).square().sum().backward()
    torch.testing.assert_close(x.grad, twin.grad)


@pytest.mark.parametrize("kind", KINDS)
def test_sparse_inputs(kind):
    weight, bias = sparse(), torch.randn(6)
    x = torch.randn(20, 9) * (torch.rand(20, 9) < 0.2)
    expected = F.linear(x, weight, bias)
    layer = kind(weight, bias)
    torch.testing.assert_close(layer(constant_features(x.to_sparse_csr(), True)), expected)
    torch.testing.assert_close(layer(x.to_sparse_coo()), expected)
    torch.testing.assert_close(layer(x.t().contiguous().t()), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_frozen(kind):
    source = nn.Parameter(sparse())
    bias = torch.ones(6)
    layer = kind(source, bias)
    assert list(layer.parameters()) == []
    assert not layer.training
    assert torch.equal(layer.weight, source)
    expected = layer(torch.ones(9))
    with torch.no_grad():
        source.fill_(3)
        bias.fill_(3)
    assert torch.equal(layer(torch.ones(9)), expected)
    layer.train()
    with pytest.raises(RuntimeError, match=f"{kind.__name__} is for inference: its weight cannot be trained"):
        layer(torch.ones(9))


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_a_module_like_any_other(kind):
    layer = kind(sparse(), torch.ones(6))
    x = torch.randn(3, 9)
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    for other in (copy.deepcopy(layer), torch.load(file, weights_only=False)):
        assert torch.equal(other(x), layer(x))
    other = kind(sparse() * 2, torch.zeros(6))
    other.load_state_dict(layer.state_dict(), strict=True)
    assert torch.equal(other(x), layer(x))
    wide = copy.deepcopy(layer).double()
    torch.testing.assert_close(wide(x.double()).float(), layer(x))
    with torch.inference_mode():
        torch.testing.assert_close(layer(x), F.linear(x, sparse(), torch.ones(6)))


@pytest.mark.parametrize("kind", KINDS)
def test_refuses(kind):
    layer = kind(sparse())
    with pytest.raises(ValueError, match=r"'x' must have 9 columns \(got shape \[3, 8\]\)"):
        layer(torch.ones(3, 8))
    with pytest.raises(ValueError, match="'x' must have 9 columns"):
        layer(torch.tensor(1.0))
    with pytest.raises(TypeError, match=r"'weight' must be a dense floating point tensor \(got torch.int64"):
        kind(torch.ones(2, 2, dtype=torch.int64))
    with pytest.raises(TypeError, match=r"got torch.float32, torch.sparse_csr"):
        kind(torch.eye(2).to_sparse_csr())
    with pytest.raises(TypeError, match=r"got list"):
        kind([[1.0]])
    with pytest.raises(ValueError, match=r"'weight' must be a matrix \[outputs, inputs\] \(got shape \[2\]\)"):
        kind(torch.ones(2))
    with pytest.raises(ValueError, match=r"'bias' must have one entry per output, \[2\] \(got \[3\]\)"):
        kind(torch.ones(2, 3), torch.ones(3))


def test_a_subclass_says_how():
    with pytest.raises(NotImplementedError):
        FrozenLinear(torch.ones(2, 2))
