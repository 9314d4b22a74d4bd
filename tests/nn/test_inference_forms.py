import copy
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import MODELS
from torch import nn
from torch_geometric.nn import GCN, GCNConv, GPSConv, SAGEConv, TransformerConv

from graphsparse.nn import CompactLinear, CSRLinear, accelerate, inference_form
from graphsparse.nn.inference_forms import FORMS
from graphsparse.testing import random_graph
from graphsparse.utils.call_model import call_model

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


def form_of(model, form):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return inference_form(model, form)


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


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=8, deadline=None)
@given(
    sparsity=st.sampled_from([0.0, 0.5, 0.9, 0.99, 1.0]),
    dead=st.sets(st.sampled_from(["rows", "columns", "layer"])),
    seed=st.integers(0, 10**6),
    double=st.booleans(),
    words=st.booleans(),
)
def test_same_logits(name, form, sparsity, dead, seed, double, words):
    torch.manual_seed(seed)
    model = prune(MODELS[name](), sparsity, seed, dead=dead)
    data = copy.copy(WORDS if words else DATA)
    if double:
        model, data.x = model.double(), data.x.double()
    expected = call_model(copy.deepcopy(model).eval(), data)
    fast = form_of(model, form)
    for _ in range(3):  # what is constant is kept from the second time on
        assert_same(call_model(fast, data), expected, 1e-12 if double else 1e-6)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", MODELS)
def test_the_model_is_left_as_it_is(name, form):
    model = prune(MODELS[name](), 0.8, 0).train()
    before, shown = copy.deepcopy(model.state_dict()), str(model)
    state = torch.random.get_rng_state()
    fast = form_of(model, form)
    assert torch.equal(torch.random.get_rng_state(), state)
    call_model(fast, DATA)
    assert all(module.training for module in model.modules())
    assert not any(module.training for module in fast.modules())
    assert str(model) == shown
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not {id(module) for module in model.modules()} & {id(module) for module in fast.modules()}
    own = {id(tensor) for tensor in (*model.parameters(), *model.buffers())}
    replaced = [module for module in fast.modules() if isinstance(module, (CompactLinear, CSRLinear))]
    held = {id(tensor) for module in replaced for tensor in module.buffers()}
    assert own >= {id(tensor) for tensor in (*fast.parameters(), *fast.buffers())} - held
    assert bool(replaced) == (form in ("compact", "csr"))


def test_which_layers_are_replaced():
    model = Mixed()
    nn.utils.parametrizations.weight_norm(model.last)
    model.first.register_forward_hook(lambda module, args, out: out + 1)
    kinds = {name: type(module) for name, module in form_of(model, "csr").named_modules()}
    assert kinds["conv.conv.lin_l"] is kinds["other.lin_key"] is kinds["conv.mlp.0"] is CSRLinear
    assert CSRLinear not in (kinds["last"], kinds["first"], kinds["conv.attn.out_proj"])
    with torch.no_grad():
        model.conv.mlp[0].weight[0] = 0
    kinds = {name: type(module) for name, module in form_of(model, "compact").named_modules()}
    assert [name for name, kind in kinds.items() if kind is CompactLinear] == ["conv.mlp.0"]


def test_tied_layers_stay_tied():
    fast = form_of(Tied(), "csr")
    assert fast.block[0] is fast.block[2] is fast.first
    assert isinstance(fast.first, CSRLinear)
    assert fast.again.bias is None


@pytest.mark.parametrize("form", ["compact", "csr"])
def test_a_layer_alone(form):
    layer = prune(nn.Linear(8, 4), 0.5, 0, dead=["rows"])
    fast = inference_form(layer, form)
    assert type(fast) is {"compact": CompactLinear, "csr": CSRLinear}[form]
    torch.testing.assert_close(fast(DATA.x), layer(DATA.x))
    # It is made of the weights as they are now, even from a model that is already fast.
    torch.testing.assert_close(inference_form(accelerate(layer), form)(DATA.x), layer(DATA.x))


@pytest.mark.parametrize("form", FORMS[1:])
def test_scripted_and_compiled_parts_stay(form):
    inner = nn.Sequential(nn.Linear(8, 8))
    model = nn.Sequential(torch.jit.script(nn.Sequential(nn.Linear(8, 8))), torch.compile(inner), nn.Linear(8, 2))
    with pytest.warns(UserWarning, match=r"0 \(scripted\), 1 \(compiled\)"):
        fast = inference_form(model, form)
    assert fast[0] is model[0]
    assert fast[1] is model[1]
    assert type(inner[0]) is nn.Linear
    assert model[0].training
    assert inner.training
    assert not fast.training


def test_no_weight_is_trained_by_accident():
    fast = form_of(prune(GCN(8, 16, 2, 3), 0.5, 0), "csr")
    assert {name for name, _ in fast.named_parameters()} == {"convs.0.bias", "convs.1.bias"}
    with pytest.raises(RuntimeError, match="CSRLinear is for inference"):
        call_model(fast.train(), DATA)


def test_refuses():
    with pytest.raises(TypeError, match=r"'model' must be a torch module \(got function\)"):
        inference_form(lambda x: x, "csr")
    with pytest.raises(ValueError, match=r"'form' must be one of \('dense', .*\) \(got 'sparse'\)"):
        inference_form(nn.Linear(2, 2), "sparse")
    for form in FORMS[1:]:
        with pytest.raises(ValueError, match="'model' needs one forward pass first"):
            inference_form(GCN(-1, 8, 2), form)
