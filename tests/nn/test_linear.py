import copy
import importlib
import pickle

import pytest
import torch
from torch import nn
from torch_geometric.nn import dense as pyg

from graphsparse.nn import accelerate
from graphsparse.nn.linear import FASTER, apply_linear, is_plain


@pytest.mark.parametrize("cls", list(FASTER))
@pytest.mark.parametrize("bias", [False, True])
def test_same_layer(cls, bias):
    layer, x = cls(30, 20, bias=bias), torch.randn(3000, 30)
    fast = FASTER[cls](30, 20, bias=bias)
    fast.load_state_dict(layer.state_dict())
    torch.testing.assert_close(fast(x), layer(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(apply_linear(layer, x), layer(x), rtol=1e-5, atol=1e-5)
    assert str(fast) == str(layer)
    assert isinstance(fast, cls)
    for other in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
        assert type(other) is type(fast)
        assert torch.equal(other(x), fast(x))


def test_what_a_user_has_put_there_is_called():
    layer = pyg.Linear(3, 2)
    assert is_plain(layer)
    layer.register_forward_hook(lambda module, args, out: out + 1)
    assert not is_plain(layer)
    assert torch.equal(apply_linear(layer, torch.zeros(1, 3)), layer.bias[None] + 1)
    own = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
    assert apply_linear(own, torch.randn(5, 3)).min() >= 0
    changed = nn.Linear(3, 2)
    changed.forward = lambda x: x * 0
    assert apply_linear(changed, torch.ones(1, 3)).abs().sum() == 0


def words(num_nodes=50, width=40):
    generator = torch.Generator().manual_seed(0)
    return (torch.rand(num_nodes, width, generator=generator) < 0.05).float()


@pytest.mark.parametrize("cls", list(FASTER))
@pytest.mark.parametrize("form", ["dense", "CSR", "COO"])
def test_constant_words_are_multiplied_as_a_sparse_matrix(cls, form, monkeypatch):
    """Results and gradients are those of the dense product, which is carried out for the first call alone."""
    layer, x = cls(40, 3), words()
    fast, seen = accelerate(layer), []
    given = {"dense": x, "CSR": x.to_sparse_csr(), "COO": x.to_sparse()}[form]
    module = importlib.import_module("graphsparse.nn.linear")
    real = module.linear
    monkeypatch.setattr(module, "linear", lambda x, *rest: seen.append(type(x) is torch.Tensor) or real(x, *rest))
    for _ in range(3):
        layer.zero_grad()
        expected = layer(x)
        expected.square().sum().backward()
        gradient = layer.weight.grad.clone()
        layer.zero_grad()
        found = fast(given)
        found.square().sum().backward()
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(layer.weight.grad, gradient)
    assert seen == [form == "dense", False, False]
    with torch.no_grad():
        x.add_(1)  # no longer what was kept, and not sparse
    if form == "dense":
        torch.testing.assert_close(fast(x), layer(x))
        assert seen[-1]


def test_what_is_not_constant_or_not_to_be_kept_is_dense():
    layer, x = nn.Linear(40, 3), words()
    fast = accelerate(layer, reuse_constant=False)
    learned = x.clone().requires_grad_()
    for _ in range(3):
        torch.testing.assert_close(fast(x), layer(x))
        fast(learned).sum().backward()
    torch.testing.assert_close(learned.grad, 3 * layer.weight.sum(0).expand(50, 40))
    many = torch.stack([x, 2 * x])
    for _ in range(3):
        torch.testing.assert_close(accelerate(layer)(many), layer(many))
    compiled = torch.compile(accelerate(layer), fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), layer(x))
    torch.compiler.reset()
