import copy
import pickle
import warnings

import pytest
import torch
import torch_geometric.nn as pyg
from layers import close, result
from torch import nn
from torch_geometric.data import HeteroData

import graphsparse.nn as ours
from graphsparse.nn import accelerate
from graphsparse.ops import Adjacency, spmm
from graphsparse.testing import random_graph

DATA = random_graph(seed=1)
CONVS = {"GCNConv", "GCN2Conv", "SAGEConv", "GINConv", "GATConv"}


class Nested(nn.Module):
    """Layers in lists, dictionaries and sequences, one of them under two names, beside a layer that stays."""

    def __init__(self):
        super().__init__()
        self.first = nn.ModuleList([nn.ModuleDict({"conv": pyg.GCNConv(8, 16)})])
        self.shared = pyg.SAGEConv(16, 16)
        self.again = self.shared
        self.block = pyg.Sequential("x, e", [(pyg.GATConv(16, 4, heads=4), "x, e -> x"), nn.ReLU()])
        self.other = pyg.GATv2Conv(16, 16)
        self.last = nn.Linear(16, 3)
        self.last.weight.data[0] = 0
        self.none = None
        self.register_module("nothing", None)

    def forward(self, x, edge_index):
        x = self.first[0]["conv"](x, edge_index).relu()
        x = self.again(self.shared(x, edge_index).relu(), edge_index)
        return self.last(self.other(self.block(x, edge_index), edge_index))


class Residual(nn.Module):
    """GCNII, whose layers take what came in, too."""

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList(pyg.GCN2Conv(8, 0.1, 0.5, depth + 1, shared_weights=depth > 0) for depth in range(3))

    def forward(self, x, edge_index):
        start = x
        for conv in self.convs:
            x = conv(x, start, edge_index).relu()
        return x


MODELS = {
    "GCN": lambda: pyg.GCN(8, 16, 2, 3),
    "GCN, BatchNorm and jumping knowledge": lambda: pyg.GCN(8, 16, 2, 3, norm="batch_norm", jk="cat"),
    "GraphSAGE, lstm": lambda: pyg.GraphSAGE(8, 16, 2, 3, aggr="lstm"),
    "GraphSAGE, several": lambda: pyg.GraphSAGE(8, 16, 2, 3, aggr=["mean", "std"]),
    "GraphSAGE, module": lambda: pyg.GraphSAGE(8, 16, 2, 3, aggr=pyg.SoftmaxAggregation(learn=True)),
    "GraphSAGE, max": lambda: pyg.GraphSAGE(8, 16, 3, 3, aggr="max", project=True, jk="lstm"),
    "GIN": lambda: pyg.GIN(8, 16, 2, 3, train_eps=True),
    "GAT": lambda: pyg.GAT(8, 16, 2, 3, heads=4, edge_dim=None),
    "GAT, one head": lambda: pyg.GATConv(8, 3),
    "decomposed": lambda: pyg.GCNConv(8, 4, decomposed_layers=2),
    "back": lambda: pyg.GCNConv(8, 3, flow="target_to_source"),
    "nested": Nested,
    "GCNII": Residual,
}


def sorted_edges():
    return DATA.edge_index[:, DATA.edge_index[1].argsort(stable=True)]


def fast(model, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return accelerate(model, **options)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("training", [True, False])
def test_same_model(name, training):
    torch.manual_seed(0)
    model = MODELS[name]().train(training)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    theirs = copy.deepcopy(model)  # BatchNorm moves its buffers, which both models share
    expected = result(theirs, DATA.x, sorted_edges())
    close(result(fast(model), DATA.x, sorted_edges()), expected, scale=1)  # gradients into BatchNorm cancel
    if not training:
        close(model.state_dict().values(), before.values())
    again = fast(model)
    assert list(again.state_dict()) == list(before)
    again.load_state_dict(before, strict=True)
    model.load_state_dict(again.state_dict(), strict=True)
    assert again.training is training
    assert all(a is b for a, b in zip(again.parameters(), model.parameters(), strict=True))
    assert all(a is b for a, b in zip(again.buffers(), model.buffers(), strict=True))
    kinds = [type(module).__module__.split(".")[0] for module in again.modules() if type(module).__name__ in CONVS]
    assert kinds
    assert set(kinds) == {"graphsparse"}
    assert str(again) == str(model)


def test_layers_that_stay_are_named():
    model = nn.ModuleDict({"a": nn.ModuleList([pyg.GATv2Conv(3, 3)]), "b": pyg.GCNConv(3, 3)})

    class Mine(pyg.GCNConv):
        pass

    model["c"] = Mine(3, 3)
    model["d"] = pyg.GCNConv(3, 3)
    model["d"].forward = lambda x, edge_index: x
    with pytest.warns(UserWarning, match=r"a.0 \(GATv2Conv\), c \(Mine\), d \(GCNConv\)$") as caught:
        quick = accelerate(model)
    assert caught[0].filename == __file__
    assert type(quick["c"]) is Mine
    assert quick["c"] is not model["c"]
    assert quick["d"](DATA.x, None) is DATA.x
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        accelerate(model["b"])


def test_scripted_and_compiled_modules_stay():
    model = nn.ModuleList([torch.jit.script(nn.Linear(3, 3)), torch.compile(pyg.GCNConv(3, 3))])
    with pytest.warns(UserWarning, match=r"0 \(scripted\), 1 \(compiled\)"):
        quick = accelerate(model)
    assert quick[0] is model[0]
    assert type(quick[1]._orig_mod) is pyg.GCNConv
    assert quick[1].eval()._orig_mod.lin.weight is model[1].lin.weight
    assert model[1].training


def test_refuses():
    with pytest.raises(TypeError, match="'model' must be a torch module"):
        accelerate(DATA)
    with pytest.raises(ValueError, match="'0.lin.weight' without"):
        accelerate(nn.ModuleList([pyg.GCNConv(-1, 3)]))
    lazy = pyg.SAGEConv(-1, 3)
    expected = lazy(DATA.x, DATA.edge_index)
    close([accelerate(lazy)(DATA.x, DATA.edge_index)], [expected])


def test_shared_layers_stay_shared():
    model = Nested()
    quick = fast(model)
    assert quick.again is quick.shared
    assert quick.shared is not model.shared
    assert type(quick.shared) is ours.SAGEConv
    tied = pyg.GCN(8, 8, 2, 8)
    tied.convs[1].lin.weight = tied.convs[0].lin.weight
    quick = fast(tied)
    assert quick.convs[1].lin.weight is quick.convs[0].lin.weight is tied.convs[0].lin.weight


def test_training_one_moves_the_other():
    model = pyg.GCN(8, 16, 2, 3, dropout=0.5, norm="batch_norm")
    quick = fast(model)
    twin = copy.deepcopy(model)
    for one in (quick, twin):
        optimizer = torch.optim.SGD((model if one is quick else one).parameters(), 0.1)
        torch.manual_seed(0)
        for _ in range(3):
            optimizer.zero_grad()
            nn.functional.cross_entropy(one(DATA.x, DATA.edge_index), DATA.y).backward()
            optimizer.step()
    close(model.state_dict().values(), twin.state_dict().values(), 1e-4)


def test_the_original_is_left_alone():
    model = Nested()
    kinds = [type(module) for module in model.modules()]
    keys = [set(vars(module)) for module in model.modules()]
    quick = fast(model)
    assert [type(module) for module in model.modules()] == kinds
    assert [set(vars(module)) for module in model.modules()] == keys
    seen = []
    quick.first[0]["conv"].register_forward_hook(lambda *_: seen.append("fast"))
    quick.last.register_forward_hook(lambda *_: seen.append("fast"))
    quick.shared.register_message_forward_hook(lambda *_: seen.append("fast"))
    model(DATA.x, DATA.edge_index)
    assert seen == []
    model.last.register_forward_pre_hook(lambda *_: seen.append("slow"))
    quick.eval()
    quick(DATA.x, DATA.edge_index)
    assert seen == ["fast"] * 4
    assert model.last.training
    quick.last.register_buffer("more", torch.zeros(1))
    quick.last.new = nn.Linear(1, 1)
    assert not hasattr(model.last, "more")
    assert not hasattr(model.last, "new")


def test_hooks_come_along():
    model = pyg.GCNConv(8, 3)
    model.register_forward_hook(lambda module, args, out: out + 1)
    expected = model(DATA.x, DATA.edge_index)
    quick = accelerate(model)
    close([quick(DATA.x, DATA.edge_index)], [expected])
    model = pyg.GCNConv(8, 3)
    model.register_message_forward_hook(lambda module, args, out: 2 * out)
    close([accelerate(model)(DATA.x, DATA.edge_index)], [model(DATA.x, DATA.edge_index)])
    nn.utils.parametrizations.weight_norm(model.lin)
    close(result(accelerate(model), DATA.x, DATA.edge_index), result(model, DATA.x, DATA.edge_index))


def test_methods_of_an_object_come_along():
    model = pyg.GCNConv(8, 3)
    model.message = lambda x_j, edge_weight: x_j
    close([accelerate(model)(DATA.x, DATA.edge_index)], [model(DATA.x, DATA.edge_index)])

    def message(self, x_j, edge_weight):
        return x_j * self.factor

    model.message = message.__get__(model)
    model.factor = 2
    quick = accelerate(model)
    quick.factor = 3
    bias = model.bias.detach()
    close([quick(DATA.x, DATA.edge_index) - bias], [1.5 * (model(DATA.x, DATA.edge_index) - bias)])
    own = pyg.GCNConv(8, 3)
    own.propagate = lambda edge_index, x, edge_weight: x
    close([accelerate(own)(DATA.x, DATA.edge_index)], [own(DATA.x, DATA.edge_index)])


def test_graph_that_was_cached():
    model = pyg.GCNConv(8, 3, cached=True)
    expected = model(DATA.x, DATA.edge_index)
    other = torch.randint(60, (2, 10))
    close([accelerate(model)(DATA.x, other)], [expected])


def test_hetero_models():
    data = HeteroData()
    data["a"].x, data["b"].x = torch.randn(20, 8), torch.randn(30, 8)
    for edge_type in (("a", "to", "b"), ("b", "back", "a"), ("a", "near", "a")):
        sizes = [data[kind].num_nodes for kind in (edge_type[0], edge_type[2])]
        data[edge_type].edge_index = torch.stack([torch.randint(size, (60,)) for size in sizes])
    convs = {
        edge_type: pyg.SAGEConv((-1, -1), 4) if edge_type[1] != "near" else pyg.GCNConv(-1, 4)
        for edge_type in data.edge_types
    }
    models = [pyg.HeteroConv(convs, aggr="sum"), pyg.to_hetero(pyg.GraphSAGE(8, 16, 2, 3), data.metadata())]
    for model in models:
        expected = model(data.x_dict, data.edge_index_dict)
        quick = accelerate(model)
        found = quick(data.x_dict, data.edge_index_dict)
        close(found.values(), expected.values())
        kinds = {type(module).__module__.split(".")[0] for module in quick.modules() if type(module).__name__ in CONVS}
        assert kinds == {"graphsparse"}
        assert not any(isinstance(module, (ours.SAGEConv, ours.GCNConv)) for module in model.modules())


@pytest.mark.parametrize("name", ["GraphSAGE, max", "GIN", "GAT", "GCN"])
def test_models_of_pyg_take_weights(name):
    model = MODELS[name]().eval()
    mask = torch.rand(DATA.num_edges) < 0.5
    quick = accelerate(model)
    found = quick(DATA.x, DATA.edge_index, edge_weight=mask.float())
    close([found], [model(DATA.x, DATA.edge_index[:, mask])])
    assert not torch.allclose(found, model(DATA.x, DATA.edge_index))
    assert model.supports_edge_weight is (name == "GCN")
    mixed = pyg.GraphSAGE(8, 16, 2, 3)
    mixed.convs[0] = pyg.SGConv(8, 16)
    assert fast(mixed).supports_edge_weight is False


def test_accelerated_already():
    model = pyg.GCN(8, 16, 2, 3)
    quick = accelerate(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = accelerate(quick, reuse_constant=False)
    assert again.convs[0] is not quick.convs[0]
    assert type(again.convs[0]) is ours.GCNConv
    assert [module.reuse_constant for module in (*quick.convs, *again.convs)] == [True, True, False, False]
    close([again(DATA.x, DATA.edge_index)], [model(DATA.x, DATA.edge_index)])


def test_copies_and_pickles():
    model = pyg.GCN(8, 16, 2, 3)
    quick = accelerate(model)
    adj = Adjacency.from_edge_index(DATA.edge_index, num_nodes=60)
    expected = [quick(DATA.x, adj) for _ in range(3)][-1]
    for twin in (copy.deepcopy(quick), pickle.loads(pickle.dumps(quick))):
        close([twin(DATA.x, DATA.edge_index)], [expected])
        assert twin.convs[0].lin.weight is not quick.convs[0].lin.weight
    assert spmm(adj.gcn_norm(), DATA.x).shape == DATA.x.shape


def test_a_model_inside_another_one_ignores_weights_as_before():
    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = pyg.GAT(8, 16, 2, 3)

        def forward(self, x, edge_index, edge_weight=None):
            return self.inner(x, edge_index, edge_weight)

    model, weight = Outer(), torch.rand(DATA.num_edges)
    assert not accelerate(model.inner)(DATA.x, DATA.edge_index, weight).equal(model.inner(DATA.x, DATA.edge_index))
    close([accelerate(model)(DATA.x, DATA.edge_index, weight)], [model(DATA.x, DATA.edge_index, weight)])
