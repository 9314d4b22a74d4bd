"""Gradients of every layer, in every way in which it may compute, for both types of indices and beyond the first."""

import contextlib

import pytest
import torch
import torch_geometric.nn as pyg
from layers import FLOWS, close, edge_by_edge, result, twins, unsorted_graph
from torch.func import functional_call, vmap
from torch_geometric import EdgeIndex

import graphsparse.nn
from graphsparse.nn import accelerate
from graphsparse.ops import Adjacency, spmm

pytestmark = pytest.mark.once  # nothing here depends on the compiled extensions but one form of graphs


def network():
    return torch.nn.Sequential(torch.nn.Linear(5, 6), torch.nn.Tanh(), torch.nn.Linear(6, 3))


#: Layer, what it takes first, and options.
LAYERS = [
    *(("GCNConv", (5, 3), {"add_self_loops": loops}) for loops in (True, False)),
    ("GCN2Conv", (5,), {"alpha": 0.1, "add_self_loops": False}),
    *(("SAGEConv", (5, 3), {"aggr": aggr}) for aggr in ("mean", "max", ["mean", "max"])),
    *(("GINConv", (network(),), {"aggr": aggr, "train_eps": True}) for aggr in ("add", "max")),
    *(("GATConv", (5, 3), {"heads": 2, "add_self_loops": loops}) for loops in (True, False)),
    ("GATConv", (5, 3), {"heads": 2, "add_self_loops": False, "edge_dim": 4}),
]
NAMES = [f"{name} {list(options.values())}" for name, _, options in LAYERS]


@contextlib.contextmanager
def plain(layer):
    yield layer


@contextlib.contextmanager
def hooked(layer):
    """A hook on messages, which a layer then makes one by one."""
    handle = layer.register_message_forward_hook(lambda module, inputs, message: message)
    yield layer
    handle.remove()


@contextlib.contextmanager
def traced(layer):
    with edge_by_edge():
        yield layer


@contextlib.contextmanager
def decomposed(layer):
    if isinstance(layer, pyg.GATConv) or not isinstance(layer.aggr, str):
        pytest.skip("PyG decomposes layers over the width of features alone")
    layer.decomposed_layers = 1
    yield layer


MODES = {"as it is": plain, "hooks": hooked, "traced": traced, "decomposed": decomposed}


def inputs(name, options):
    """Return ``(x, edge_index, further arguments)`` in float64."""
    edge_index, _, x = unsorted_graph(simple=options.get("add_self_loops", True))
    further = {"edge_attr": torch.randn(edge_index.size(1), 4, dtype=torch.float64)} if "edge_dim" in options else {}
    x = x.double()
    return ((x, x.tanh()) if name == "GCN2Conv" else (x,)), edge_index, further


def call(layer, name, xs, edge_index, further):
    """Return output and all gradients; the second input of GCNII is not learned."""
    if name == "GCN2Conv":
        return result(lambda_of(layer, xs[1]), xs[0], edge_index)
    return result(layer, xs[0], edge_index, **further)


class lambda_of(torch.nn.Module):  # noqa: N801 - a function that has the weights of a layer
    def __init__(self, layer, x_0):
        super().__init__()
        self.layer, self.x_0 = layer, x_0

    def forward(self, x, edge_index):
        return self.layer(x, self.x_0, edge_index)


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("name", "args", "options"), LAYERS, ids=NAMES)
def test_gradients_for_both_types_of_indices(name, args, options, mode, flow):
    """PyG's for int64 are right; those for int32 are wrong in torch itself, for widths from 2 on."""
    theirs, ours = twins(name, *args, dtype=torch.float64, flow=flow, **options)
    xs, edge_index, further = inputs(name, options)
    expected = call(theirs, name, xs, edge_index, further)
    with MODES[mode](ours) as layer:
        for dtype in (torch.int64, torch.int32):
            close(call(layer, name, xs, edge_index.to(dtype), further), expected, 1e-9)
            size = (len(xs[0]), len(xs[0]))
            if mode != "traced":
                listed = EdgeIndex(edge_index.to(dtype), sparse_size=size)
                close(call(layer, name, xs, listed, further), expected, 1e-9)


@pytest.mark.parametrize("mode", ["as it is", "hooks", "traced"])
@pytest.mark.parametrize(("name", "args", "options"), LAYERS, ids=NAMES)
def test_gradients_are_those_of_differences(name, args, options, mode):
    _, ours = twins(name, *args, dtype=torch.float64, **options)
    xs, edge_index, further = inputs(name, options)
    with MODES[mode](ours) as layer:
        for dtype in (torch.int64, torch.int32):
            rest = (*xs[1:], edge_index.to(dtype))
            assert torch.autograd.gradcheck(
                lambda x, rest=rest: layer(x, *rest, **further), xs[0].requires_grad_(), fast_mode=True
            )


SMOOTH = [
    entry
    for entry in zip(LAYERS, NAMES, strict=True)
    if entry[0][2].get("aggr") in (None, "mean", "add") and "edge_dim" not in entry[0][2]
]
smooth = pytest.mark.parametrize(("name", "args", "options"), [one for one, _ in SMOOTH], ids=[n for _, n in SMOOTH])


@smooth
def test_many_weights_at_once(name, args, options):
    theirs, ours = twins(name, *args, dtype=torch.float64, **options)
    xs, edge_index, _ = inputs(name, options)
    weights = {key: torch.stack([value, 2 * value]) for key, value in ours.named_parameters()}
    out = [
        vmap(lambda held, f=f: functional_call(f, held, (*xs, edge_index)))({k: w.detach() for k, w in weights.items()})
        for f in (ours, theirs)
    ]
    close([out[0]], [out[1]], 1e-9)


@pytest.mark.parametrize("reduce", ["sum", "mean", "max"])
def test_products_are_derived_twice(reduce):
    edge_index, weight, x = unsorted_graph()
    adj, weight, x = Adjacency.from_edge_index(edge_index, None, 12), weight.double(), x.double()
    given = (x.requires_grad_(), weight.requires_grad_())
    assert torch.autograd.gradcheck(lambda x, w: spmm(adj, x, reduce, value=w), given)
    if reduce != "max":
        assert torch.autograd.gradgradcheck(lambda x, w: spmm(adj, x, reduce, value=w), given)


@pytest.mark.parametrize("name", ["GCN", "GraphSAGE", "GIN", "GAT"])
def test_types_of_accelerated_models_under_autocast(name):
    edge_index, _, x = unsorted_graph()
    model = getattr(pyg, name)(5, 8, 2, 3)
    with torch.autocast("cpu", torch.bfloat16):
        assert accelerate(model)(x, edge_index).dtype == model(x, edge_index).dtype


class Marked(torch.Tensor):
    """A weight that is a class of its own, as quantised and distributed ones are."""

    seen = 0

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func is torch.nn.functional.linear:
            cls.seen += 1
        return super().__torch_function__(func, types, args, kwargs or {})


@pytest.mark.parametrize("name", ["GCNConv", "SAGEConv", "GATConv"])
def test_weights_of_a_class_of_their_own_go_through_it(name, monkeypatch):
    monkeypatch.setattr("graphsparse.ops.dense._WORTH_IT", 1)
    theirs, _ = twins(name, 5, 3)
    edge_index, _, x = unsorted_graph()
    expected = theirs(x, edge_index)
    ours = accelerate(theirs)
    for part in ours.modules():
        if isinstance(getattr(part, "weight", None), torch.Tensor):
            part.weight = torch.nn.Parameter(part.weight.detach().as_subclass(Marked))
    Marked.seen = 0
    found = torch.as_tensor(ours(x, edge_index)).as_subclass(torch.Tensor)
    assert Marked.seen > 0
    close([found], [expected])


@pytest.mark.parametrize("name", ["GCNConv", "SAGEConv", "GATConv", "GCN2Conv"])
def test_scripting_is_refused_with_the_way_out(name):
    layer = getattr(graphsparse.nn, name)(*((5, 0.1) if name == "GCN2Conv" else (5, 3)))
    for scripted in (layer, torch.nn.Sequential(torch.nn.ReLU(), layer)):
        with pytest.raises(TypeError, match=f"cannot compile {name} of graphsparse: script the model that accelerate"):
            torch.jit.script(scripted)


def test_quantisation_says_that_it_does_nothing():
    model = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.ReLU())
    with pytest.warns(UserWarning, match="quantise the model first, then accelerate"):
        torch.ao.quantization.quantize_dynamic(accelerate(model), {torch.nn.Linear}, dtype=torch.qint8)
