import copy
import importlib
import pickle

import pytest
import torch
import torch_geometric.nn as convs
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch_geometric.nn import dense as pyg

from graphsparse.nn import accelerate
from graphsparse.nn.linear import FASTER, apply_linear, is_plain
from graphsparse.ops import dense
from graphsparse.testing import random_graph


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


class Counting(torch.Tensor):
    """A weight that knows itself what it is multiplied by, as a quantised one does."""

    products = 0

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        Counting.products += func is torch.nn.functional.linear
        return super().__torch_function__(func, types, args, kwargs or {})


@pytest.mark.parametrize("name", ["GCN", "GraphSAGE", "GIN", "GAT"])
@pytest.mark.parametrize("features", ["dense", "sparse"])
def test_a_weight_that_is_no_plain_tensor_does_its_own_product(name, features, monkeypatch):
    monkeypatch.setattr(dense, "_WORTH_IT", 1)
    data = random_graph()
    x = data.x * (torch.rand(data.x.shape) < 0.05) if features == "sparse" else data.x
    model = getattr(convs, name)(8, 6, 2, 3)
    expected = model(x, data.edge_index).detach()
    fast = accelerate(copy.deepcopy(model))
    layers = [module for module in fast.modules() if isinstance(module, (nn.Linear, pyg.Linear))]
    for layer in layers:
        layer.weight = nn.Parameter(layer.weight.detach().as_subclass(Counting))
    for _ in range(3):  # constants are kept when they come again
        Counting.products = 0
        out = fast(x, data.edge_index)
        assert Counting.products == len(layers)
        torch.testing.assert_close(out.detach().as_subclass(torch.Tensor), expected, rtol=1e-4, atol=1e-5)


CHANGES = {
    "pruned": lambda layer: prune.l1_unstructured(layer, "weight", amount=0.5),
    "weight norm": parametrizations.weight_norm,
    "spectral norm": parametrizations.spectral_norm,
    "spectral norm by a hook": nn.utils.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", ["GCN", "GraphSAGE", "GAT"])
def test_pruned_and_parametrised_weights(change, name):
    data = random_graph()
    results = []
    for before in (None, False, True):
        torch.manual_seed(0)
        model = getattr(convs, name)(8, 6, 2, 3)
        fast = model if before is None else accelerate(model)
        changed = model if before else fast
        torch.manual_seed(1)
        for conv in changed.convs:
            CHANGES[change](conv.lin_l if name == "GraphSAGE" else conv.lin)
        fast = accelerate(model) if before else fast
        steps = []
        for _ in range(3):
            out = fast(data.x, data.edge_index)
            grads = torch.autograd.grad(out.square().sum(), [p for p in fast.parameters() if p.requires_grad])
            with torch.no_grad():
                for weight, grad in zip(fast.parameters(), grads, strict=True):
                    weight -= 0.001 * grad
            steps.append(out.detach())
        results.append(torch.stack(steps))
    for found in results[1:]:
        torch.testing.assert_close(found, results[0], rtol=1e-4, atol=1e-4)


def test_a_quantised_model_stays_quantised():
    model = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    quantised = torch.ao.quantization.quantize_dynamic(model, {nn.Linear})
    x = torch.randn(5, 8)
    assert torch.equal(accelerate(quantised)(x), quantised(x))


@pytest.mark.parametrize("fast_dropout", [False, True])
def test_torchscript_is_refused_by_name(fast_dropout):
    model = nn.Sequential(nn.Dropout(), *([] if fast_dropout else [nn.Linear(3, 2)]))
    torch.jit.script(model)
    with pytest.raises(TypeError, match="TorchScript cannot compile (FastDropout|TorchLinear) of graphsparse"):
        torch.jit.script(accelerate(model, fast_dropout=fast_dropout))
