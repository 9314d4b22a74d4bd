import copy
import io
import warnings

import pytest
import scipy.sparse
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from models import MODELS
from torch import nn
from torch_geometric.nn import GCN, GCNConv, GPSConv, SAGEConv, TransformerConv

from graphsparse.nn import CSRLinear, accelerate, to_csr
from graphsparse.nn import csr_linear as module
from graphsparse.nn.features import constant_features
from graphsparse.testing import random_graph
from graphsparse.utils.call_model import call_model


def sparse(rows=6, columns=9, dtype=torch.float32):
    """Return a weight with dead rows and columns, and zeros beside."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(rows, columns, generator=generator, dtype=dtype)
    weight = weight * (torch.rand(rows, columns, generator=generator) < 0.5)
    weight[1] = 0
    weight[:, 4:6] = 0
    return weight


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(9,), (0, 9), (5, 9), (2, 3, 9)])
def test_any_shape(bias, shape):
    weight, bias = sparse(), torch.randn(6) if bias else None
    x = torch.randn(shape)
    before = x.clone()
    out = CSRLinear(weight, bias)(x)
    torch.testing.assert_close(out, F.linear(x, weight, bias))
    assert out.is_contiguous()
    assert torch.equal(x, before)


def test_gradient_of_the_input():
    weight, bias = sparse(dtype=torch.float64), torch.randn(6, dtype=torch.float64)
    x = torch.randn(4, 9, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(CSRLinear(weight, bias), x)
    CSRLinear(weight, bias)(x).square().sum().backward()
    twin = x.detach().clone().requires_grad_()
    F.linear(twin, weight, bias).square().sum().backward()
    torch.testing.assert_close(x.grad, twin.grad)


def test_sparse_inputs():
    weight, bias = sparse(), torch.randn(6)
    x = torch.randn(20, 9) * (torch.rand(20, 9) < 0.2)
    expected = F.linear(x, weight, bias)
    layer = CSRLinear(weight, bias)
    torch.testing.assert_close(layer(constant_features(x.to_sparse_csr(), True)), expected)
    torch.testing.assert_close(layer(x.to_sparse_coo()), expected)
    torch.testing.assert_close(layer(x.t().contiguous().t()), expected)


def test_it_is_frozen():
    source = nn.Parameter(sparse())
    bias = torch.ones(6)
    layer = CSRLinear(source, bias)
    assert list(layer.parameters()) == []
    assert not layer.training
    assert torch.equal(layer.weight, source)
    expected = layer(torch.ones(9))
    with torch.no_grad():
        source.fill_(3)
        bias.fill_(3)
    assert torch.equal(layer(torch.ones(9)), expected)
    layer.train()
    with pytest.raises(RuntimeError, match="CSRLinear is for inference: its weight cannot be trained"):
        layer(torch.ones(9))


def test_it_is_a_module_like_any_other():
    layer = CSRLinear(sparse(), torch.ones(6))
    x = torch.randn(3, 9)
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    for other in (copy.deepcopy(layer), torch.load(file, weights_only=False)):
        assert torch.equal(other(x), layer(x))
    other = CSRLinear(sparse() * 2, torch.zeros(6))
    other.load_state_dict(layer.state_dict(), strict=True)
    assert torch.equal(other(x), layer(x))
    wide = copy.deepcopy(layer).double()
    torch.testing.assert_close(wide(x.double()).float(), layer(x))
    with torch.inference_mode():
        torch.testing.assert_close(layer(x), F.linear(x, sparse(), torch.ones(6)))


def test_refuses():
    layer = CSRLinear(sparse())
    with pytest.raises(ValueError, match=r"'x' must have 9 columns \(got shape \[3, 8\]\)"):
        layer(torch.ones(3, 8))
    with pytest.raises(ValueError, match="'x' must have 9 columns"):
        layer(torch.tensor(1.0))
    with pytest.raises(TypeError, match=r"'weight' must be a dense floating point tensor \(got torch.int64"):
        CSRLinear(torch.ones(2, 2, dtype=torch.int64))
    with pytest.raises(TypeError, match=r"got torch.float32, torch.sparse_csr"):
        CSRLinear(torch.eye(2).to_sparse_csr())
    with pytest.raises(TypeError, match=r"got list"):
        CSRLinear([[1.0]])
    with pytest.raises(ValueError, match=r"'weight' must be a matrix \[outputs, inputs\] \(got shape \[2\]\)"):
        CSRLinear(torch.ones(2))
    with pytest.raises(ValueError, match=r"'bias' must have one entry per output, \[2\] \(got \[3\]\)"):
        CSRLinear(torch.ones(2, 3), torch.ones(3))


@pytest.mark.parametrize("rows", [511, 512, 513, 1025])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_blocks_of_rows(rows, dtype):
    """As SciPy multiplies, at the ends of the blocks too."""
    generator = torch.Generator().manual_seed(rows)
    weight = torch.randn(7, 30, generator=generator, dtype=dtype)
    weight *= torch.rand(7, 30, generator=generator) < 0.1
    x = torch.randn(rows, 30, generator=generator, dtype=dtype)
    expected = torch.from_numpy((scipy.sparse.csr_array(weight.numpy()) @ x.numpy().T).T)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(CSRLinear(weight)(x), expected, rtol=tolerance, atol=tolerance)


def test_holds_what_is_not_zero():
    weight = torch.zeros(100, 50)
    weight[3, 4], weight[99, 0] = 2.0, -1.0
    layer = CSRLinear(weight, torch.zeros(100))
    assert layer.value.tolist() == [2.0, -1.0]
    assert layer.col.tolist() == [4, 0]
    assert sum(buffer.nbytes for buffer in layer.buffers()) == 2 * 8 + 101 * 4 + 100 * 4
    assert str(layer) == "CSRLinear(in_features=50, out_features=100, bias=True, nonzero=2)"


@pytest.mark.parametrize("shape", [(4, 3), (0, 3), (4, 0)])
def test_nothing_left(shape):
    bias = torch.randn(shape[0])
    out = CSRLinear(torch.zeros(shape), bias)(torch.randn(600, shape[1]))
    assert torch.equal(out, bias.expand(600, -1))


def test_products_are_those_of_the_entries(monkeypatch):
    """One product for every block of the input, with the weight as the sparse operand."""
    seen = []
    spmm = module.spmm

    def watched(matrix, x):
        seen.append((matrix.num_edges, tuple(x.shape)))
        return spmm(matrix, x)

    monkeypatch.setattr(module, "spmm", watched)
    layer = CSRLinear(torch.eye(5))
    x = torch.randn(1000, 5)
    assert torch.equal(layer(x), x)
    assert seen == [(5, (5, 512)), (5, (5, 488))]
    seen.clear()
    layer(x.requires_grad_())
    assert seen == [(5, (5, 1000))]


DATA = random_graph(seed=1)
WORDS = random_graph(seed=1)
WORDS.x = (WORDS.x > 1.9).float()  # few enough words to be multiplied as a sparse matrix


class Mixed(nn.Module):
    """A table, attention over all nodes and over edges, a recurrent layer, and linear layers before and after."""

    def __init__(self):
        super().__init__()
        self.first, self.pair = nn.Linear(8, 8), nn.Embedding(4, 8)
        self.conv = GPSConv(8, SAGEConv(8, 8), heads=2)
        self.other = TransformerConv(8, 4, heads=2)
        self.gru = nn.GRU(8, 6)
        self.norm, self.last = nn.LayerNorm(6), nn.Linear(6, 3)

    def forward(self, x, edge_index):
        x = self.conv(self.first(x) + self.pair.weight[1], edge_index)
        return self.last(self.norm(self.gru(self.other(x, edge_index))[0]))


class Tied(nn.Module):
    """One layer twice, and two layers with one weight."""

    def __init__(self):
        super().__init__()
        self.first, self.again = nn.Linear(8, 8), nn.Linear(8, 8, bias=False)
        self.again.weight = self.first.weight
        self.block = nn.Sequential(self.first, nn.ReLU(), self.first)
        self.conv = GCNConv(8, 3)

    def forward(self, x, edge_index):
        return self.conv(self.again(self.block(x)), edge_index)


MODELS = MODELS | {
    "mixed": Mixed,
    "tied": Tied,
    "GIN, BatchNorm": lambda: MODELS["GIN"]().__class__(8, 16, 2, 3, norm="batch_norm", train_eps=True),
    "jumping knowledge": lambda: GCN(8, 16, 3, 3, jk="cat"),
}


def quiet(model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return to_csr(model)


def prune(model, sparsity, seed, *, dead=()):
    """Set weights to zero at random; `dead` names what else is zero of every matrix."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() != 2:
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
                continue
            parameter.mul_(torch.rand(parameter.shape, generator=generator) >= sparsity)
            if "rows" in dead:
                parameter[::3] = 0
            if "columns" in dead:
                parameter[:, 1::2] = 0
        matrices = [parameter for parameter in model.parameters() if parameter.dim() == 2]
        if "layer" in dead:
            matrices[seed % len(matrices)].zero_()
    return model


def assert_same(found, expected, tolerance):
    assert expected.isfinite().all()
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=8, deadline=None)
@given(
    sparsity=st.sampled_from([0.0, 0.5, 0.9, 0.99, 1.0]),
    dead=st.sets(st.sampled_from(["rows", "columns", "layer"])),
    seed=st.integers(0, 10**6),
    double=st.booleans(),
    words=st.booleans(),
)
def test_same_logits(name, sparsity, dead, seed, double, words):
    torch.manual_seed(seed)
    model = prune(MODELS[name](), sparsity, seed, dead=dead)
    data = copy.copy(WORDS if words else DATA)
    if double:
        model, data.x = model.double(), data.x.double()
    expected = call_model(copy.deepcopy(model).eval(), data)
    fast = quiet(model)
    for _ in range(3):  # what is constant is kept from the second time on
        assert_same(call_model(fast, data), expected, 1e-12 if double else 1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_the_model_is_left_as_it_is(name):
    model = prune(MODELS[name](), 0.8, 0).train()
    before, shown = copy.deepcopy(model.state_dict()), str(model)
    state = torch.random.get_rng_state()
    fast = quiet(model)
    assert torch.equal(torch.random.get_rng_state(), state)
    call_model(fast, DATA)
    assert all(module.training for module in model.modules())
    assert not any(module.training for module in fast.modules())
    assert str(model) == shown
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not {id(module) for module in model.modules()} & {id(module) for module in fast.modules()}
    own = {id(tensor) for tensor in (*model.parameters(), *model.buffers())}
    replaced = [module for module in fast.modules() if isinstance(module, CSRLinear)]
    held = {id(tensor) for module in replaced for tensor in module.buffers()}
    assert own >= {id(tensor) for tensor in (*fast.parameters(), *fast.buffers())} - held
    assert replaced


def test_which_layers_are_replaced():
    model = Mixed()
    nn.utils.parametrizations.weight_norm(model.last)
    model.first.register_forward_hook(lambda module, args, out: out + 1)
    kinds = {name: type(module) for name, module in quiet(model).named_modules()}
    assert kinds["conv.conv.lin_l"] is kinds["other.lin_key"] is kinds["conv.mlp.0"] is CSRLinear
    assert CSRLinear not in (kinds["last"], kinds["first"], kinds["conv.attn.out_proj"])


def test_tied_layers_stay_tied():
    fast = quiet(Tied())
    assert fast.block[0] is fast.block[2] is fast.first
    assert isinstance(fast.first, CSRLinear)
    assert fast.again.bias is None


def test_a_layer_alone():
    layer = prune(nn.Linear(8, 4), 0.5, 0, dead=["rows"])
    fast = to_csr(layer)
    assert type(fast) is CSRLinear
    torch.testing.assert_close(fast(DATA.x), layer(DATA.x))
    # It is made of the weights as they are now, even from a model that is already fast.
    torch.testing.assert_close(to_csr(accelerate(layer))(DATA.x), layer(DATA.x))


def test_scripted_and_compiled_parts_stay():
    inner = nn.Sequential(nn.Linear(8, 8))
    model = nn.Sequential(torch.jit.script(nn.Sequential(nn.Linear(8, 8))), torch.compile(inner), nn.Linear(8, 2))
    with pytest.warns(UserWarning, match=r"0 \(scripted\), 1 \(compiled\)"):
        fast = to_csr(model)
    assert fast[0] is model[0]
    assert type(fast[1]._orig_mod[0]) is nn.Linear
    assert type(inner[0]) is nn.Linear
    assert model[0].training
    assert inner.training
    assert not fast.training


def test_no_weight_is_trained_by_accident():
    fast = quiet(prune(GCN(8, 16, 2, 3), 0.5, 0))
    assert {name for name, _ in fast.named_parameters()} == {"convs.0.bias", "convs.1.bias"}
    with pytest.raises(RuntimeError, match="CSRLinear is for inference"):
        call_model(fast.train(), DATA)


def test_refuses_models():
    with pytest.raises(TypeError, match=r"'model' must be a torch module \(got function\)"):
        to_csr(lambda x: x)
    with pytest.raises(ValueError, match="'model' needs one forward pass first"):
        to_csr(GCN(-1, 8, 2))
