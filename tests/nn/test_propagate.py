"""What is constant is computed once: by all layers, and never where it is not."""

import copy
import gc
import importlib
import io
import pickle
import weakref

import pytest
import torch
from layers import close, twins, unsorted_graph
from torch import nn

from graphsparse.nn import propagate as module
from graphsparse.nn.propagate import add, propagate, propagate_and_transform
from graphsparse.ops import Adjacency, spmm

LAYERS = {
    "GCN": ("GCNConv", (5, 3), {}),
    "GCN, wide": ("GCNConv", (5, 40), {}),
    "GCN, no bias": ("GCNConv", (5, 3), {"bias": False}),
    "SAGE": ("SAGEConv", (5, 3), {}),
    "SAGE, max": ("SAGEConv", (5, 3), {"aggr": "max"}),
    "SAGE, alone": ("SAGEConv", (5, 3), {"root_weight": False}),
    "GIN": ("GINConv", (nn.Linear(5, 3),), {}),
    "GIN, trained": ("GINConv", (nn.Sequential(nn.ReLU(inplace=True), nn.Linear(5, 3)),), {"train_eps": True}),
}


@pytest.fixture
def products(monkeypatch):
    """Widths of what was multiplied by a graph."""
    seen = []
    spmm_module = importlib.import_module("graphsparse.ops.spmm")  # its name is also that of the function
    for name in ("product", "extremum"):
        real = getattr(spmm_module, name)

        def spy(pattern, value, x, *args, real=real):
            seen.append(x.size(1))
            return real(pattern, value, x, *args)

        monkeypatch.setattr(spmm_module, name, spy)
    return seen


@pytest.fixture
def without_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def step(layer, *args, **kwargs):
    layer.zero_grad()
    out = layer(*args, **kwargs)
    out.square().sum().backward()
    return [out.detach(), *(p.grad for p in layer.parameters() if p.grad is not None)]


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("weighted", [False, True])
def test_product_is_taken_once(name, weighted, products):
    edge_index, weight, x = unsorted_graph()
    kind, args, options = LAYERS[name]
    layer = twins(kind, *args, **options)[1]
    plain = copy.deepcopy(layer)
    plain.reuse_constant = False
    given = {"edge_weight": weight} if weighted else {}
    expected = step(plain, x, edge_index, **given)
    for number in range(5):
        products.clear()
        close(step(layer, x, edge_index, **given), expected, 1e-6)
        if number == 1:
            assert 5 in products
        if number > 1:
            assert products == []
    for _ in range(3):
        products.clear()
        step(plain, x, edge_index, **given)
        assert products


@pytest.mark.parametrize("name", LAYERS)
def test_every_change_is_noticed(name, products):
    edge_index, weight, x = unsorted_graph()
    kind, args, options = LAYERS[name]
    layer = twins(kind, *args, **options)[1]
    plain = copy.deepcopy(layer)
    plain.reuse_constant = False
    changes = [
        lambda: x.add_(1),
        lambda: x[3:5].zero_(),
        lambda: weight.mul_(torch.linspace(1, 2, weight.numel())),
        lambda: edge_index[:, :4].copy_(edge_index[:, 4:8].clone()),
        lambda: edge_index[1].fill_(2),
        lambda: layer.load_state_dict(plain.state_dict()),
    ]
    for change in changes:
        for _ in range(3):
            layer(x, edge_index, edge_weight=weight)
        with torch.no_grad():
            for parameter in plain.parameters():
                parameter.mul_(1.1)
        layer.load_state_dict(plain.state_dict())
        change()
        expected = step(plain, x.clone(), edge_index.clone(), edge_weight=weight.clone())
        for _ in range(3):
            close(step(layer, x, edge_index, edge_weight=weight), expected)


@pytest.mark.parametrize("name", LAYERS)
def test_nothing_learned_or_random_is_kept(name, products):
    edge_index, weight, x = unsorted_graph()
    kind, args, options = LAYERS[name]
    layer = twins(kind, *args, **options)[1]
    learned = x.clone().requires_grad_()
    for _ in range(4):
        products.clear()
        layer(learned, edge_index).sum().backward()
        assert products
    for _ in range(4):
        products.clear()
        layer(nn.functional.dropout(x, 0.5), edge_index)
        assert products
    weight.requires_grad_()
    for _ in range(4):
        products.clear()
        weight.grad = None
        layer(x, edge_index, edge_weight=weight).sum().backward()
        assert products
        assert weight.grad.abs().sum() > 0


@pytest.mark.parametrize("name", LAYERS)
def test_memory_goes_with_features_and_with_edges(name, without_collector, monkeypatch):
    found = []
    real = module.remember_repeated

    def spy(inputs, key, compute):
        value = real(inputs, key, compute)
        if value is not None:
            found.append(weakref.ref(value))
        return value

    monkeypatch.setattr(module, "remember_repeated", spy)
    kind, args, options = LAYERS[name]
    layer = twins(kind, *args, **options)[1]
    for dies in ("x", "edge_index"):
        held = dict(zip(("edge_index", "weight", "x"), unsorted_graph(), strict=True))
        adjacencies = []
        build = Adjacency.from_edge_index

        def watched(*args, build=build, adjacencies=adjacencies):
            adjacencies.append(weakref.ref(adj := build(*args)))
            return adj

        with monkeypatch.context() as patch:
            patch.setattr(Adjacency, "from_edge_index", watched)
            for _ in range(3):
                layer(held["x"], held["edge_index"]).sum().backward()
        assert len(adjacencies) == 1
        assert len(found) == 2
        assert found[0]() is found[1]() is not None
        del held[dies]
        assert found[0]() is None
        assert (adjacencies[0]() is None) == (dies == "edge_index")
        found.clear()


class Passing(torch.autograd.Function):
    """Gives a tensor a history that can be watched."""

    @staticmethod
    def forward(ctx, weight):
        return weight * 2

    @staticmethod
    def backward(ctx, grad):
        return grad * 2


def test_no_history_is_held(without_collector):
    edge_index, _, x = unsorted_graph()
    layer = twins("GCNConv", 5, 3)[1]
    weight = Passing.apply(layer.lin.weight)
    for _ in range(3):
        out = torch.func.functional_call(layer, {"lin.weight": weight}, (x, edge_index))
    history = weakref.ref(weight.grad_fn)
    del weight
    assert history() is not None
    del out
    assert history() is None


def test_inference_first_and_training_after():
    edge_index, _, x = unsorted_graph()
    for kind, args, options in (*LAYERS.values(), ("GATConv", (5, 3), {"heads": 2})):
        theirs, layer = twins(kind, *args, **options)
        x, edge_index = x.clone(), edge_index.clone()
        with torch.inference_mode():
            expected = theirs(x, edge_index)
            for _ in range(3):
                close([layer(x, edge_index)], [expected])
        close(step(layer, x, edge_index), step(theirs, x, edge_index))
        with torch.inference_mode():
            inside, edges = x.clone(), edge_index.clone()
            for _ in range(3):
                close([layer(inside, edges)], [expected])
                close([layer(inside, edge_index)], [expected])
                close([layer(x, edges)], [expected])
        close(step(layer, inside.clone(), edges.clone()), step(theirs, x, edge_index))


def test_state_copies_and_pickles_are_as_small_as_before():
    edge_index, _, _ = unsorted_graph(num_nodes=500)
    x = torch.randn(500, 200)
    for kind, args, options in (*LAYERS.values(), ("GATConv", (5, 3), {})):
        args = tuple(200 if arg == 5 else nn.Linear(200, 3) if isinstance(arg, nn.Module) else arg for arg in args)
        layer = twins(kind, *args, **options)[1]
        keys, size = list(layer.state_dict()), len(pickle.dumps(layer))
        for _ in range(3):
            out = layer(x, edge_index)
        assert list(layer.state_dict()) == keys
        assert len(pickle.dumps(layer)) <= size + 100
        torch.save(layer, file := io.BytesIO())
        assert file.tell() < x.nbytes / 2
        for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            close([twin(x, edge_index)], [out])


def test_cached_graph_travels():
    edge_index, _, x = unsorted_graph()
    theirs, layer = twins("GCNConv", 5, 3, cached=True)
    expected = theirs(x, edge_index)
    layer(x, edge_index)
    for twin in (layer, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        close([twin(x, edge_index[:, :3])], [expected])
    layer.reset_parameters()
    theirs.load_state_dict(layer.state_dict())
    theirs._cached_edge_index = None
    close([layer(x, edge_index[:, :3])], [theirs(x, edge_index[:, :3])])


class Doubling(nn.Module):
    def forward(self, x):
        return x.mul_(2)


def test_no_module_corrupts_what_is_kept():
    edge_index, _, x = unsorted_graph()
    before = x.clone()
    for replacement in (
        nn.Linear(5, 5),
        nn.Tanh(),
        nn.Identity(),
        Doubling(),
        nn.Sequential(nn.ReLU(inplace=True)),
        nn.Dropout(0.0, inplace=True),
    ):
        for kind, args in (("GCNConv", (5, 5)), ("SAGEConv", (5, 5)), ("GINConv", (nn.Identity(),))):
            theirs, layer = twins(kind, *args)
            for one in (theirs, layer):
                name = {"GCNConv": "lin", "SAGEConv": "lin_l", "GINConv": "nn"}[kind]
                setattr(one, name, replacement)
                if kind == "SAGEConv":
                    one.root_weight = False
            given = (x, None) if kind == "GINConv" else x
            # PyG's GCN gives the features themselves to the layer.
            expected = theirs(x.clone() if kind == "GCNConv" else given, edge_index).detach().clone()
            for _ in range(4):
                out = layer(given, edge_index)
                close([out], [expected])
                out.detach().zero_()
                if kind == "GCNConv" and not torch.equal(x, before):
                    x.copy_(before)
            assert torch.equal(x, before)


def test_layer_of_the_users_own_is_called():
    edge_index, _, x = unsorted_graph()
    for kind, args, name in (("GCNConv", (5, 3), "lin"), ("SAGEConv", (5, 3), "lin_l")):
        theirs, layer = twins(kind, *args)
        seen = []
        getattr(layer, name).register_forward_hook(lambda *_, seen=seen: seen.append("forward"))
        getattr(layer, name).register_full_backward_hook(lambda *_, seen=seen: seen.append("backward"))
        for number in range(4):
            close(step(layer, x, edge_index), step(theirs, x, edge_index))
            assert len(seen) == 2 * (number + 1)
        backward_only = twins(kind, *args)[1]
        getattr(backward_only, name).register_full_backward_pre_hook(lambda *_, seen=seen: seen.append("pre"))
        step(backward_only, x, edge_index)
        assert seen[-1] == "pre"
        for one in (theirs, layer):
            nn.utils.parametrizations.weight_norm(getattr(one, name))
        for _ in range(4):
            close(step(layer, x, edge_index), step(theirs, x, edge_index))
        patched = twins(kind, *args)[1]
        getattr(patched, name).forward = lambda x: x[:, :3] * 0
        if kind == "SAGEConv":
            patched.root_weight = False
        close([patched(x, edge_index)], [torch.zeros(12, 3) + (patched.bias if kind == "GCNConv" else 0)])


@pytest.mark.parametrize("reduce", ["sum", "mean", "min", "max"])
@pytest.mark.parametrize("width", [1, 5, 300])
@pytest.mark.parametrize("learned", ["", "x", "value", "both"])
@pytest.mark.parametrize("kind", ["plain", "no bias", "sequence"])
def test_any_order_gives_the_same(reduce, width, learned, kind):
    edge_index, weight, x = unsorted_graph()
    torch.manual_seed(0)
    linear = {"plain": nn.Linear(5, width), "no bias": nn.Linear(5, width, bias=False)}.get(
        kind, nn.Sequential(nn.Linear(5, width))
    )
    x.requires_grad_(learned in ("x", "both"))
    weight.requires_grad_(learned in ("value", "both"))
    leaves = [leaf for leaf in (x, weight, *linear.parameters()) if leaf.requires_grad]
    adj = Adjacency.from_edge_index(edge_index, weight, 12)
    expected = linear(spmm(adj, x, reduce)) + 1
    # Both ways of going back use the graph of the one adjacency.
    wanted = torch.autograd.grad(expected.square().sum(), leaves, retain_graph=True)
    for reuse in (False, True, True, True):
        out, fresh = propagate_and_transform(adj, x, linear, reduce, reuse)
        assert not (fresh and kind == "sequence")
        out = add(out, torch.ones(width), fresh)
        close([out], [expected])
        close(torch.autograd.grad(out.square().sum(), leaves, retain_graph=True), wanted)


@pytest.mark.parametrize("reduce", ["sum", "mean", "min", "max"])
def test_what_is_fresh_may_be_changed(reduce):
    edge_index, weight, x = unsorted_graph()
    for learned in (False, True):
        value = weight.clone().requires_grad_(learned)
        adj = Adjacency.from_edge_index(edge_index, value, 12)
        for number in range(4):
            out, fresh = propagate(adj, x, reduce, True)
            assert fresh == (not learned and number == 0)
            total = add(out, torch.ones(5), fresh, 2)
            assert (total is out) == fresh
            close([total], [spmm(adj, x, reduce) + 2])
            if learned:
                value.grad = None
                total.square().sum().backward(retain_graph=True)
                wanted = torch.autograd.grad((spmm(adj, x, reduce) + 2).square().sum(), value, retain_graph=True)
                close([value.grad], wanted)


def test_sum_of_half_and_single_precision_is_single():
    half, single = torch.ones(3, dtype=torch.bfloat16), torch.full((3,), 2**-10)
    assert add(half, single, True).tolist() == [1 + 2**-10] * 3
    assert half.tolist() == [1] * 3


def test_narrow_side_is_aggregated(products):
    adj = Adjacency.from_edge_index(unsorted_graph(num_edges=400)[0], num_nodes=12)
    for width, given in ((2, 50), (50, 2)):
        products.clear()
        propagate_and_transform(adj, torch.randn(12, given), nn.Linear(given, width), "sum", False)
        assert products == [2]
