"""Layers and models of PyG through all that the package does to a model: the logits of PyG, or a refusal in time."""

import copy
import dataclasses
import functools
import os
import threading
import weakref
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import torch_geometric.nn as pyg
from torch import nn
from torch.nn.utils import parametrizations

import graphsparse.nn as ours
from graphsparse.nn import Supermask, accelerate
from graphsparse.soups import Evaluator, combine
from graphsparse.testing import random_graph
from graphsparse.tickets import Ticket, Untrained, find_ticket
from graphsparse.training import Training, build_model, fit, predict

pytestmark = pytest.mark.filterwarnings("ignore")  # of layers that stay as they are, and of whole tensors that are zero
DATA = random_graph(24, seed=1).sort(sort_by_row=False)
DATA.edge_attr = torch.rand(DATA.num_edges, 2, generator=torch.Generator().manual_seed(0))
DATA.edge_attr[:, 1] = DATA.edge_attr[:, 0]


class Node(nn.Module):
    """A layer between two linear ones; arguments that it wants besides are made of the graph."""

    def __init__(self, conv, width=8, edge_attr=False, more=()):
        super().__init__()
        self.conv, self.last = conv, nn.Linear(width, 3)
        self.edge_attr, self.more = edge_attr, more

    def forward(self, x, edge_index, edge_attr=None):
        more = [getattr(self, f"_{name}")(x, edge_index) for name in self.more]
        named = {"edge_attr": edge_attr} if self.edge_attr else {}
        return self.last(self.conv(x, *more[:1], edge_index, *more[1:], **named).relu())

    def _start(self, x, edge_index):
        return x

    def _pos(self, x, edge_index):
        return x[:, :3]

    def _type(self, x, edge_index):
        return edge_index.sum(0) % 2


def node(*args, **kwargs):
    return lambda make: lambda: Node(make(), *args, **kwargs)


def mlp(before, after=8):
    return nn.Sequential(nn.Linear(before, after), nn.ReLU(), nn.Linear(after, after))


class Pooled(nn.Module):
    """Nodes are pooled, and what is left is read out to all of them."""

    def __init__(self, pool):
        super().__init__()
        self.conv, self.pool, self.last = pyg.GCNConv(8, 8), pool, nn.Linear(16, 3)

    def forward(self, x, edge_index):
        x = self.conv(x, edge_index).relu()
        left = self.pool(x, edge_index)[0]
        return self.last(torch.cat([x, left.mean(0, keepdim=True).expand_as(x)], 1))


class EdgePooled(Pooled):
    def forward(self, x, edge_index):
        x = self.conv(x, edge_index).relu()
        left, _, _, info = self.pool(x, edge_index, torch.zeros(len(x), dtype=torch.int64))
        return self.last(torch.cat([x, self.pool.unpool(left, info)[0]], 1))


class PanPooled(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.pool, self.last = pyg.PANConv(8, 8, 2), pyg.PANPooling(8), nn.Linear(16, 3)

    def forward(self, x, edge_index):
        x, matrix = self.conv(x, edge_index)
        left = self.pool(x, matrix)[0]
        return self.last(torch.cat([x, left.mean(0, keepdim=True).expand_as(x)], 1))


class Jumping(nn.Module):
    def __init__(self, mode):
        super().__init__()
        self.convs = nn.ModuleList(pyg.GCNConv(8, 8) for _ in range(2))
        self.jump = pyg.JumpingKnowledge(mode, 8, 2)
        self.last = nn.Linear(16 if mode == "cat" else 8, 3)

    def forward(self, x, edge_index):
        seen = [x := conv(x, edge_index).relu() for conv in self.convs]
        return self.last(self.jump(seen))


class Deep(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 3)
        self.layers = nn.ModuleList(
            pyg.DeepGCNLayer(pyg.GENConv(8, 8), nn.LayerNorm(8), nn.ReLU(), **options) for _ in range(2)
        )

    def forward(self, x, edge_index):
        x = self.first(x)
        for layer in self.layers:
            x = layer(x, edge_index)
        return self.last(x)


class Checkpointed(nn.Module):
    def __init__(self, use_reentrant):
        super().__init__()
        self.first, self.conv, self.last = nn.Linear(8, 8), pyg.GATConv(8, 8), nn.Linear(8, 3)
        self.use_reentrant = use_reentrant

    def forward(self, x, edge_index):
        x = self.first(x)
        x = torch.utils.checkpoint.checkpoint(self.conv, x, edge_index, use_reentrant=self.use_reentrant)
        return self.last(x)


class Hetero(nn.Module):
    """A model for several types of edges, made by PyG of one for one type."""

    def __init__(self):
        super().__init__()
        types = [("n", "to", "n"), ("n", "also", "n")]
        self.inner = pyg.to_hetero(pyg.GraphSAGE(8, 8, 2, 3), (["n"], types))

    def forward(self, x, edge_index):
        edges = {("n", "to", "n"): edge_index, ("n", "also", "n"): edge_index[:, ::2]}
        return self.inner({"n": x}, edges)["n"]


class HeteroConv(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = pyg.HeteroConv({("n", "to", "n"): pyg.SAGEConv(8, 3), ("n", "also", "n"): pyg.GCNConv(8, 3)})

    def forward(self, x, edge_index):
        edges = {("n", "to", "n"): edge_index, ("n", "also", "n"): edge_index}
        return self.conv({"n": x}, edges)["n"]


def tied():
    model = pyg.GCN(8, 8, 3, 3)
    model.convs[1].lin.weight = nn.Parameter(model.convs[0].lin.weight.detach().clone())
    model.convs[0].lin.weight = model.convs[1].lin.weight
    return model


def normed(how):
    model = Node(pyg.GCNConv(8, 8))
    how(model.last)
    return model


def normed_pyg(how):
    model = pyg.GCN(8, 8, 2, 3)
    how(model.convs[0].lin)
    return model


def sequential():
    return pyg.Sequential("x, edge_index", [(pyg.GCNConv(8, 8), "x, edge_index -> x"), nn.ReLU(), nn.Linear(8, 3)])


class Kept(nn.Module):
    """Keeps what it has computed, as an attribute and in a list."""

    def __init__(self):
        super().__init__()
        self.conv, self.last, self.seen = pyg.GCNConv(8, 8), nn.Linear(8, 3), []

    def forward(self, x, edge_index):
        self.hidden = self.conv(x, edge_index).relu()
        self.seen = [self.hidden]
        return self.last(self.hidden)


class Scaled(nn.Module):
    """Single numbers, of several shapes, that scale what is computed."""

    def __init__(self):
        super().__init__()
        self.conv, self.last = pyg.GCNConv(8, 8), nn.Linear(8, 3)
        self.scale, self.shift = nn.Parameter(torch.ones(1, 1)), nn.Parameter(torch.zeros(()))
        self.layer_scale = nn.Parameter(torch.full((8,), 0.1))

    def forward(self, x, edge_index):
        return self.last(x + self.layer_scale * self.conv(x, edge_index)) * self.scale + self.shift


DEGREES = torch.bincount(DATA.edge_index[1].bincount())
#: Every layer of PyG that takes ``(x, edge_index)``, and what else it may take.
CONVS = {
    "SimpleConv": node()(lambda: pyg.SimpleConv()),
    "GCNConv": node()(lambda: pyg.GCNConv(8, 8)),
    "ChebConv": node()(lambda: pyg.ChebConv(8, 8, 2)),
    "SAGEConv": node()(lambda: pyg.SAGEConv(8, 8)),
    "GraphConv": node()(lambda: pyg.GraphConv(8, 8)),
    "GatedGraphConv": node()(lambda: pyg.GatedGraphConv(8, 2)),
    "ResGatedGraphConv": node()(lambda: pyg.ResGatedGraphConv(8, 8)),
    "GATConv": node()(lambda: pyg.GATConv(8, 4, heads=2)),
    "GATv2Conv": node(edge_attr=True)(lambda: pyg.GATv2Conv(8, 4, heads=2, edge_dim=2)),
    "TransformerConv": node(edge_attr=True)(lambda: pyg.TransformerConv(8, 4, heads=2, edge_dim=2)),
    "AGNNConv": node()(lambda: pyg.AGNNConv()),
    "TAGConv": node()(lambda: pyg.TAGConv(8, 8, 2)),
    "GINConv": node()(lambda: pyg.GINConv(mlp(8), train_eps=True)),
    "GINEConv": node(edge_attr=True)(lambda: pyg.GINEConv(mlp(8), edge_dim=2)),
    "ARMAConv": node()(lambda: pyg.ARMAConv(8, 8, num_stacks=2, num_layers=2)),
    "SGConv": node()(lambda: pyg.SGConv(8, 8, 2)),
    "SSGConv": node()(lambda: pyg.SSGConv(8, 8, 0.1, 2)),
    "APPNP": node()(lambda: pyg.APPNP(2, 0.1)),
    "MFConv": node()(lambda: pyg.MFConv(8, 8, 2)),
    "RGCNConv": node(more=("start", "type"))(lambda: RGCN(pyg.RGCNConv(8, 8, 2))),
    "FastRGCNConv": node(more=("start", "type"))(lambda: RGCN(pyg.FastRGCNConv(8, 8, 2))),
    "RGATConv": node(more=("start", "type"))(lambda: RGCN(rgat())),
    "SignedConv": node()(lambda: Twice(pyg.SignedConv(8, 4, True))),
    "PointNetConv": node(more=("pos",))(lambda: pyg.PointNetConv(mlp(11))),
    "GMMConv": node(edge_attr=True)(lambda: pyg.GMMConv(8, 8, 2, 2)),
    "NNConv": node(edge_attr=True)(lambda: pyg.NNConv(8, 8, nn.Linear(2, 64))),
    "CGConv": node(edge_attr=True)(lambda: pyg.CGConv(8, 2)),
    "EdgeConv": node()(lambda: pyg.EdgeConv(mlp(16))),
    "FeaStConv": node()(lambda: pyg.FeaStConv(8, 8, 2)),
    "PointTransformerConv": node(more=("pos",))(lambda: pyg.PointTransformerConv(8, 8)),
    "HypergraphConv": node()(lambda: pyg.HypergraphConv(8, 8)),
    "LEConv": node()(lambda: pyg.LEConv(8, 8)),
    "PNAConv": node(edge_attr=True)(lambda: pyg.PNAConv(8, 8, ["mean", "max"], ["identity"], DEGREES, edge_dim=2)),
    "ClusterGCNConv": node()(lambda: pyg.ClusterGCNConv(8, 8)),
    "GENConv": node(edge_attr=True)(lambda: pyg.GENConv(8, 8, learn_t=True, edge_dim=2)),
    "GCN2Conv": node(more=("start",))(lambda: pyg.GCN2Conv(8, 0.1, 0.5, 1)),
    "PANConv": node()(lambda: First(pyg.PANConv(8, 8, 2))),
    "WLConvContinuous": node()(lambda: pyg.WLConvContinuous()),
    "FiLMConv": node()(lambda: pyg.FiLMConv(8, 8)),
    "SuperGATConv": node()(lambda: pyg.SuperGATConv(8, 4, heads=2)),
    "FAConv": node(more=("start",))(lambda: pyg.FAConv(8)),
    "EGConv": node()(lambda: pyg.EGConv(8, 8, num_heads=2, num_bases=2)),
    "PDNConv": node(edge_attr=True)(lambda: pyg.PDNConv(8, 8, 2, 4)),
    "GeneralConv": node(edge_attr=True)(lambda: pyg.GeneralConv(8, 8, 2)),
    "LGConv": node()(lambda: pyg.LGConv()),
    "PointGNNConv": node(more=("pos",))(lambda: pyg.PointGNNConv(mlp(8, 3), mlp(11), mlp(8))),
    "GPSConv": node()(lambda: pyg.GPSConv(8, pyg.GCNConv(8, 8), heads=2)),
    "AntiSymmetricConv": node()(lambda: pyg.AntiSymmetricConv(8)),
    "DirGNNConv": node()(lambda: pyg.DirGNNConv(pyg.SAGEConv(8, 8))),
    "MixHopConv": node(24)(lambda: pyg.MixHopConv(8, 8)),
    "HeteroConv": HeteroConv,
}
#: Layers that take something else, and what.
OTHERS = {
    "MessagePassing": "the base of all",
    "CuGraphSAGEConv": "a graph of cuGraph",
    "CuGraphGATConv": "a graph of cuGraph",
    "CuGraphRGCNConv": "a graph of cuGraph",
    "FusedGATConv": "three forms of the graph, for a GPU",
    "GravNetConv": "points, no edges; needs torch-cluster",
    "DynamicEdgeConv": "points, no edges; needs torch-cluster",
    "XConv": "points, no edges; needs torch-cluster",
    "PPFConv": "normals of points in space",
    "SplineConv": "needs torch-spline-conv",
    "DNAConv": "all layers before it",
    "WLConv": "colours in place of features, without a gradient",
    "HGTConv": "nodes and edges by type",
    "HANConv": "nodes and edges by type",
    "HEATConv": "nodes and edges by type",
    "MeshCNNConv": "the edges of a mesh, five to a row",
}


class RGCN(nn.Module):
    """Takes the type of each edge last."""

    def __init__(self, conv):
        super().__init__()
        self.conv = conv

    def forward(self, x, start, edge_index, edge_type):
        return self.conv(x, edge_index, edge_type)


class Twice(nn.Module):
    def __init__(self, conv):
        super().__init__()
        self.conv = conv

    def forward(self, x, edge_index):
        return self.conv(x, edge_index, edge_index)


class First(Twice):
    def forward(self, x, edge_index):
        return self.conv(x, edge_index)[0]


#: Other parts of models, and whole models.
PARTS = {
    "SAGPooling": lambda: Pooled(pyg.SAGPooling(8)),
    "TopKPooling": lambda: Pooled(pyg.TopKPooling(8)),
    "ASAPooling": lambda: Pooled(pyg.ASAPooling(8)),
    "EdgePooling": lambda: EdgePooled(pyg.EdgePooling(8)),
    "PANPooling": PanPooled,
    "JumpingKnowledge, cat": lambda: Jumping("cat"),
    "JumpingKnowledge, lstm": lambda: Jumping("lstm"),
    "DeepGCNLayer": Deep,
    "DeepGCNLayer, checkpoints": lambda: Deep(ckpt_grad=True),
    "checkpoint": lambda: Checkpointed(False),
    "checkpoint, reentrant": lambda: Checkpointed(True),
    "to_hetero": Hetero,
    "Sequential": sequential,
    "weight_norm, old": lambda: normed(nn.utils.weight_norm),
    "tied": tied,
    "kept activations": Kept,
    "single numbers": Scaled,
    "GCN, jumping knowledge": lambda: pyg.GCN(8, 8, 2, 3, jk="lstm"),
    "GAT, v2": lambda: pyg.GAT(8, 6, 2, 3, heads=3, v2=True),
    "PNA": lambda: pyg.PNA(8, 8, 2, 3, aggregators=["mean", "max"], scalers=["identity"], deg=DEGREES),
    "PNA, edge_dim": lambda: pyg.PNA(8, 8, 2, 3, aggregators=["mean"], scalers=["identity"], deg=DEGREES, edge_dim=2),
    "EdgeCNN": lambda: pyg.EdgeCNN(8, 8, 2, 3),
    "LINKX": lambda: pyg.LINKX(24, 8, 8, 3, 1),
    "MLP": lambda: Edgeless(pyg.MLP([8, 8, 3])),
    **{f"GraphSAGE, {norm}": lambda norm=norm: pyg.GraphSAGE(8, 8, 2, 3, norm=norm) for norm in (
        "batch_norm", "instance_norm", "layer_norm", "graph_norm", "pair_norm",
    )},
    **{f"GraphSAGE, {aggr}": lambda aggr=aggr: pyg.GraphSAGE(8, 8, 2, 3, aggr=aggr) for aggr in (
        "sum", "max", "min", "mul", "var", "std", "median", "softmax", "powermean", "lstm", ["mean", "max"],
    )},
}  # fmt: skip


class Edgeless(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x, edge_index):
        return self.inner(x)


def rgat():
    """PyG leaves one parameter of this layer as the memory was, which may be no number."""
    conv = pyg.RGATConv(8, 8, 2)
    nn.init.constant_(conv.l2, 1 / 8)
    return conv


MODELS = CONVS | PARTS


class Around(nn.Module):
    """A model that is taught how to reach its own layers by ``set_up``."""

    def __init__(self, set_up=lambda model: None, run=None):
        super().__init__()
        self.conv, self.drop, self.last = pyg.GATConv(8, 8), nn.Dropout(), nn.Linear(8, 3)
        self.run = run
        set_up(self)

    def usual(self, x, edge_index):
        return self.last(self.drop(self.conv(x, edge_index)))

    def forward(self, x, edge_index):
        return self.usual(x, edge_index) if self.run is None else self.run(self, x, edge_index)

    def change(self, module, args, out):
        return self.drop(out)

    @functools.cached_property
    def layers(self):
        return [self.conv, self.drop, self.last]

    @functools.lru_cache  # noqa: B019 - as people write it
    def kept(self):
        return self.layers


class Child(nn.Module):
    def __init__(self, parent):
        super().__init__()
        self.parent = parent

    def forward(self, x, edge_index):
        parent = self.parent[0] if isinstance(self.parent, list) else self.parent()
        return parent.usual(x, edge_index)


@dataclasses.dataclass(frozen=True)
class Parts:
    conv: nn.Module
    rest: tuple


def by(layers):
    return lambda model, x, edge_index: layers(model)[2](layers(model)[1](layers(model)[0](x, edge_index)))


def put(name, value):
    return lambda model: setattr(model, name, value(model))


#: Ways to reach a layer: what is put into the model, and how it calls its layers then.
WAYS = {
    "list": (put("all", lambda m: m.layers), by(lambda m: m.all)),
    "tuple in a dictionary": (put("all", lambda m: {"all": tuple(m.layers)}), by(lambda m: m.all["all"])),
    "dataclass": (put("all", lambda m: Parts(m.conv, (m.drop, m.last))), by(lambda m: [m.all.conv, *m.all.rest])),
    "keys and sets": (put("all", lambda m: ({m.conv: 0}, {m.drop}, [m.last])), by(lambda m: [*map(first, m.all)])),
    "partial function": (put("all", lambda m: functools.partial(Around.usual, m)), lambda m, *args: m.all(*args)),
    "bound method": (put("all", lambda m: m.usual), lambda m, *args: m.all(*args)),
    "bound method of a layer": (put("all", lambda m: [m.conv.forward, m.drop, m.last]), by(lambda m: m.all)),
    "forward of the object": (put("forward", lambda m: m.usual), None),
    "cached property": (None, by(lambda m: m.layers)),
    "cached method": (None, by(lambda m: m.kept())),
    "a child that knows its parent": (put("all", lambda m: Child([m])), lambda m, *args: m.all(*args)),
    "a weak reference to the parent": (put("all", lambda m: Child(weakref.ref(m))), lambda m, *args: m.all(*args)),
    "a hook": (lambda m: m.conv.register_forward_hook(m.change), None),
    "a layer nobody knows of": (put("all", lambda m: [pyg.GCNConv(3, 3)]), lambda m, *a: m.all[0](m.usual(*a), a[1])),
    "a module of Python": (put("math", lambda m: torch.nn.functional), None),
    "kept activations": (None, lambda m, *args: setattr(m, "all", [m.usual(*args)]) or m.all[0]),
}


def first(items):
    return next(iter(items))


@pytest.mark.parametrize("name", WAYS)
def test_a_copy_reaches_its_own_layers(name):
    set_up, run = WAYS[name]
    torch.manual_seed(0)
    model = Around(set_up or (lambda model: None), run)
    predict(model, DATA)  # what is kept is there
    model(DATA.x, DATA.edge_index)
    fast = accelerate(model)
    assert isinstance(fast.conv, ours.GATConv)
    assert fast.conv.lin.weight is model.conv.lin.weight
    assert model.drop.training
    found = fast.eval()(DATA.x, DATA.edge_index)
    assert model.drop.training
    close(found, model.eval()(DATA.x, DATA.edge_index))
    masked = Supermask(model, 0.5, seed=1)
    close(predict(masked, DATA), predict(masked.materialize(), DATA))
    assert torch.equal(masked(DATA.x, DATA.edge_index), masked(DATA.x, DATA.edge_index))  # no dropout of the original
    masked.train()(DATA.x, DATA.edge_index).sum().backward()
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def loop(model):
    return lambda x, edge_index: model.usual(x, edge_index)


GLOBAL = Around()


def global_name(model, x, edge_index):
    return GLOBAL.usual(x, edge_index)


#: What Python does not copy, and by which attribute.
HALF = {
    "closure": (put("all", loop), "'all' of a copy leads back to 'Around'"),
    "closure in a dictionary": (put("all", lambda m: {"f": [loop(m)]}), "'all' of a copy leads back"),
    "default of a function": (put("all", lambda m: lambda x, conv=m.conv: conv(x)), "'all' .* back to 'conv'"),
    "hook": (
        lambda m: m.conv.register_forward_hook(lambda *_: m.train and None),
        "'conv._forward_hooks' .* back to 'Around'",
    ),
    "cache of the object": (put("all", lambda m: functools.lru_cache(m.usual)), "'all' .* back"),
    "method of a dictionary": (put("all", lambda m: m._modules.__getitem__), "'all' .* back to 'conv'"),
    "dictionary of weak references": (put("all", lambda m: weakref.WeakValueDictionary(a=m.conv)), "back to 'conv'"),
    "weak proxy": (put("all", lambda m: [weakref.proxy(m)]), "'all' holds a weakref.proxy"),
    "lock": (put("all", lambda m: threading.Lock()), "'all' holds lock"),
    "generator": (put("all", lambda m: (layer for layer in m.layers)), "'all' holds generator"),
    "file": (put("all", lambda m: {"log": Path(os.devnull).open()}), "'all' holds dict.*TextIO"),  # noqa: SIM115
}


@pytest.mark.parametrize("name", HALF)
def test_half_a_copy_is_refused(name):
    set_up, message = HALF[name]
    seen, quick = [], Training(epochs=1)
    for call in (
        accelerate,
        lambda model: Supermask(model, 0.5),
        lambda model: Evaluator(model, DATA),
        lambda _: find_ticket(
            lambda: Around(set_up), DATA, weight_sparsity=0.5, training=replace(quick, log=seen.append)
        ),
    ):
        with pytest.raises(ValueError, match=f"'model' cannot be copied: .*{message}"):
            call(Around(set_up))
    assert not seen
    assert fit(Around(set_up), DATA, training=quick).epochs_run == 1  # trains what it is given


def test_a_global_name_is_refused_where_it_is_read():
    GLOBAL.run = global_name
    try:
        with pytest.raises(ValueError, match="'run' of a copy leads back to 'Around'"):
            accelerate(GLOBAL)
    finally:
        GLOBAL.run = None
    assert accelerate(Around(run=global_name)).training  # another model: it reaches no layer of its own


class Drawing(pyg.GCN):
    def forward(self, x, edge_index):
        return nn.functional.dropout(super().forward(x, edge_index))


class Forgetful(pyg.GCN):
    """Its scale is drawn for each object, and stands in no state dict."""

    made = iter(range(1, 1000))

    def __init__(self, *args):
        super().__init__(*args)
        self.scale = next(self.made)

    def forward(self, x, edge_index):
        return super().forward(x, edge_index) * self.scale


class Extra(pyg.GCN):
    def get_extra_state(self):
        return {"a": 1}

    def set_extra_state(self, state):
        pass


#: Models that are refused by each of some methods before an epoch is over, and with what words.
REFUSED = {
    "weight_norm, old": (
        lambda: normed_pyg(nn.utils.weight_norm),
        "must take its own state dict.*(\n.*)*convs.0.lin",
        "all",
    ),
    "weight_norm": (
        lambda: normed_pyg(parametrizations.weight_norm),
        "must take its own state dict.*(\n.*)*convs.0.lin",
        "all",
    ),
    "spectral_norm": (
        lambda: normed_pyg(parametrizations.spectral_norm),
        "must take its own state dict.*(\n.*)*convs.0.lin",
        "all",
    ),
    "weight_norm of torch's layer": (
        lambda: normed(parametrizations.weight_norm),
        "cannot be projected",
        "projections",
    ),
    "spectral_norm of it": (lambda: normed(parametrizations.spectral_norm), "cannot be projected", "projections"),
    "DataParallel": (lambda: nn.DataParallel(pyg.GCN(8, 8, 2, 3)), "holds a DataParallel", "untrained"),
    "draws in evaluation": (lambda: Drawing(8, 8, 2, 3), "random numbers in evaluation mode", "tickets"),
    "state elsewhere": (lambda: Forgetful(8, 8, 2, 3), "its state dict does not hold", "tickets"),
    "extra state": (lambda: Extra(8, 8, 2, 3), "'_extra_state' in its state dict, which is no tensor", "tickets"),
    "no matrix": (lambda: Edgeless(nn.Sequential(First3(), nn.LayerNorm(3))), "nothing is masked", "untrained"),
    "one object": (lambda: GLOBAL, "must build a new model each time, but 'conv", "tickets"),
    "one part": (lambda: Edgeless(nn.Sequential(GLOBAL.last, nn.Linear(3, 3))), "each time, but 'inner.0.", "tickets"),
    "several outputs": (lambda: Pair(), "must return a tensor of logits", "all"),
}


class First3(nn.Module):
    def forward(self, x):
        return x[:, :3]


class Pair(Around):
    def forward(self, x, edge_index):
        return (self.usual(x, edge_index),)


@pytest.mark.parametrize("name", REFUSED)
def test_refused_before_an_epoch_is_over(name):
    make, message, by_whom = REFUSED[name]
    seen = []
    training, methods = Training(epochs=1, log=seen.append), ("teddy", "random", "magnitude", Untrained(epochs=1))
    for method in {"untrained": methods[3:], "projections": methods[:3]}.get(by_whom, methods):
        with pytest.raises((TypeError, ValueError), match=message):
            find_ticket(make, DATA, weight_sparsity=0.5, method=method, training=training)
    if by_whom == "all":
        with pytest.raises((TypeError, ValueError), match=message):
            fit(make(), DATA, training=training)
    assert not seen


def plain(make, state):
    """Return PyG's model with a state, by no code of ours."""
    model = make()
    predict(model, DATA) if any(nn.parameter.is_lazy(p) for p in model.parameters()) else None
    model.load_state_dict(state)
    return model


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def accuracy(logits, data, part):
    return float((logits.argmax(1) == data.y)[data[f"{part}_mask"]].float().mean())


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_what_it_is_in_pyg(name, tmp_path):
    if name.startswith("PAN") and find_spec("torch_sparse") is None:
        pytest.skip("PyG's layer needs torch-sparse")
    make, data = MODELS[name], DATA
    model = build_model(make, 0)
    expected = predict(model, data)
    close(predict(accelerate(model), data), expected)
    result = fit(build_model(make, 0), data, epochs=1)
    close(result.logits, predict(plain(make, result.state_dict), data))
    states = [result.state_dict]
    for method, edges in (("teddy", 0.3), (Untrained(epochs=1), 0)):
        options = {"edge_sparsity": edges, "weight_sparsity": 0.5, "training": Training(epochs=1)}
        find_ticket(make, data, method=method, **options).save(tmp_path / "ticket")
        ticket = Ticket.load(tmp_path / "ticket")
        sparse = ticket.sparsify(data)
        logits = predict(plain(make, ticket.state_dict), sparse)
        close(predict(ticket.materialize(make), sparse), logits)
        for part in ("val", "test"):
            assert ticket.metrics[part] == pytest.approx(accuracy(logits, data, part))
        states.append(ticket.state_dict)
    state = combine(states[:2], torch.tensor([0.5, 0.5]))
    found = Evaluator(make(), data, batch_norm="keep").logits(state)
    close(found, predict(plain(make, state), data)[data.val_mask])


def test_the_table_is_complete():
    convs = set(pyg.conv.__all__)
    assert convs == {*CONVS, *OTHERS}


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("transform", ["identity", "abs"])
def test_scores_learn_the_same_from_layers_that_are_run_again(transform, fast):
    def gradient(make):
        model = build_model(make, 0)
        masked = Supermask(accelerate(model) if fast else model, 0.5, seed=1, transform=transform)
        for _ in range(2):  # the second call finds what the first has left
            masked.zero_grad()
            masked(DATA.x, DATA.edge_index).square().sum().backward()
        copy.deepcopy(masked)
        assert not any("weight" in vars(module) for module in masked.materialize().modules())
        return masked.scores.grad

    close(gradient(lambda: Deep(ckpt_grad=True)), gradient(Deep))
    close(gradient(lambda: Checkpointed(True)), gradient(lambda: Checkpointed(False)))


class Weighted(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = pyg.GAT(8, 8, 2, 3)

    def forward(self, x, edge_index, edge_weight=None):
        return self.inner(x, edge_index, edge_weight)


#: Models on a graph with edge weights, and with what words they are refused.
ON_WEIGHTS = {
    "GCN": (lambda: pyg.GCN(8, 8, 2, 3), None),
    "GAT": (lambda: pyg.GAT(8, 8, 2, 3), "GAT does not take edge weights"),
    "GIN": (lambda: pyg.GIN(8, 8, 2, 3), "GIN does not take edge weights"),
    "GraphSAGE": (lambda: pyg.GraphSAGE(8, 8, 2, 3), "GraphSAGE does not take edge weights"),
    "GATConv": (lambda: pyg.GATConv(8, 3), "has no argument 'edge_weight'"),
    "GraphSAGE of ours": (lambda: accelerate(pyg.GraphSAGE(8, 8, 2, 3)), None),
    "GAT inside, to which PyG gives none": (Weighted, None),
}


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("name", ON_WEIGHTS)
def test_edge_weights_count_in_search_and_ticket_or_in_neither(name, fast):
    make, message = ON_WEIGHTS[name]
    data = DATA.clone()
    data.edge_weight = torch.rand(data.num_edges, generator=torch.Generator().manual_seed(0))
    training, seen = Training(epochs=1, fast=fast), []
    for method in (Untrained(epochs=1), "random_untrained", "teddy"):
        if message is not None:
            with pytest.raises(ValueError, match=f"'data.edge_weight' is given, but .*{message}"):
                find_ticket(make, data, weight_sparsity=0.5, method=method, training=replace(training, log=seen.append))
            continue
        ticket = find_ticket(make, data, weight_sparsity=0.5, method=method, training=training)
        logits = predict(plain(make, ticket.state_dict), data)
        assert ticket.metrics["test"] == pytest.approx(accuracy(logits, data, "test"))
    assert not seen
    if message is not None:
        with pytest.raises(ValueError, match=message):
            predict(Supermask(make(), 0.5), data)
