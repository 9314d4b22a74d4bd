"""Channels that can be removed, for every kind of model, and smaller models that compute the same."""

import copy

import pytest
import torch
from models import MODELS, sequential
from torch import nn
from torch_geometric.data import Batch, HeteroData
from torch_geometric.nn import (
    GAT,
    GCN,
    GIN,
    GATConv,
    GCN2Conv,
    GCNConv,
    GraphConv,
    GraphSAGE,
    HeteroConv,
    SAGEConv,
    SGConv,
    TransformerConv,
    global_mean_pool,
)

from graphsparse.nn import accelerate, channel_units, shrink
from graphsparse.testing import random_graph
from graphsparse.training import fit


class Residual(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.first, self.last = nn.Linear(8, width), nn.Linear(width, 3)
        self.convs = nn.ModuleList(GCNConv(width, width) for _ in range(2))

    def forward(self, x, edge_index):
        x = self.first(x)
        for conv in self.convs:
            x = x + conv(x, edge_index).relu()
        return self.last(x)


class GCNII(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.first, self.last = nn.Linear(8, width), nn.Linear(width, 3)
        self.convs = nn.ModuleList(
            GCN2Conv(width, alpha=0.1, theta=0.5, layer=i + 1, shared_weights=i > 0) for i in range(3)
        )

    def forward(self, x, edge_index):
        start = x = self.first(x).relu()
        for conv in self.convs:
            x = conv(x, start, edge_index).relu()
        return self.last(x)


class Tied(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.first, self.second, self.third = GCNConv(8, width), GCNConv(width, width), GCNConv(width, width)
        self.norm, self.last = nn.BatchNorm1d(width), nn.Linear(width, 3)
        self.third.lin.weight = self.second.lin.weight

    def forward(self, x, edge_index):
        x = self.norm(self.first(x, edge_index)).relu()
        return self.last(self.third(self.second(x, edge_index).relu(), edge_index).relu())


def transformer(width=16):
    first = TransformerConv(8, 4, heads=width // 4, beta=True)
    return sequential("x, edge_index", [(first, "x, edge_index -> x"), nn.ReLU(), nn.Linear(width, 3)])


#: Models by width, and how many units each layer has at a width of 16.
CASES = {
    "GCN": (lambda width=16: GCN(8, width, 3, 3), [16, 16]),
    "GCN, BatchNorm": (lambda width=16: GCN(8, width, 3, 3, norm="batch_norm"), [16, 16]),
    "GraphSAGE": (lambda width=16: GraphSAGE(8, width, 3, 3), [16, 16]),
    "GraphSAGE, maximum": (lambda width=16: GraphSAGE(8, width, 2, 3, aggr="max"), [16]),
    "GIN": (lambda width=16: GIN(8, width, 2, 3, norm="batch_norm", jk="cat"), [16, 16, 16, 16]),
    "JumpingKnowledge, cat": (lambda width=16: GCN(8, width, 3, 3, jk="cat"), [16, 16, 16]),
    "JumpingKnowledge, max": (lambda width=16: GCN(8, width, 3, 3, jk="max"), [16]),
    "GAT": (lambda width=16: GAT(8, width, 2, 3, heads=width // 4, jk="cat"), [4, 4]),
    "GATv2": (lambda width=16: GAT(8, width, 2, 3, heads=width // 4, v2=True, jk="max"), [4]),
    "TransformerConv": (transformer, [4]),
    "GCNII": (GCNII, [16]),
    "residual": (Residual, [16]),
    "tied, BatchNorm": (Tied, [16]),
}


def moved(model, dtype=torch.float64):
    """Return the model in evaluation mode with weights and statistics that are not those of the first step."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            if tensor.is_floating_point():
                tensor.add_(torch.rand(tensor.shape, generator=generator) * 0.2)
    return model.to(dtype).eval()


def graph(dtype=torch.float64):
    data = random_graph()
    data.x = data.x.to(dtype)
    return data


def kill(model, units, dead):
    """Return a copy of the model in which nothing reads some of the units."""
    model = copy.deepcopy(model)
    gone = torch.zeros(units.num_units, dtype=torch.bool)
    gone[dead] = True
    with torch.no_grad():
        for (name, axis), label in units.labels.items():
            if (name, axis) in units.read:
                model.get_parameter(name).index_fill_(axis, ((label >= 0) & gone[label]).nonzero().squeeze(1), 0.0)
    return model


DOUBLE, SINGLE = (torch.float64, 1e-12), (torch.float32, 1e-6)


@pytest.mark.parametrize(
    ("name", "dtype", "tolerance"),
    [*((name, *DOUBLE) for name in CASES), *((name, *SINGLE) for name in ("GCN, BatchNorm", "GAT", "GCNII"))],
)
def test_half_of_the_channels_are_cut(name, dtype, tolerance):
    make, layers = CASES[name]
    model, data = moved(make(), dtype), graph(dtype)
    units = channel_units(model, data)
    assert units.layers().bincount().tolist() == layers
    dead = kill(model, units, torch.arange(1, units.num_units, 2))
    small = shrink(dead, data)
    expected = dead(data.x, data.edge_index).detach()
    close = tolerance * float(expected.abs().max())
    assert torch.allclose(small(data.x, data.edge_index), expected, rtol=0, atol=close)
    # It is the model of half the width, with its keys, and its weights fit into one.
    narrow = make(8).to(dtype).eval()
    narrow.load_state_dict(small.state_dict())
    assert torch.equal(narrow(data.x, data.edge_index), small(data.x, data.edge_index))
    assert [str(module) for module in small.modules()][1:] == [str(module) for module in narrow.modules()][1:]


@pytest.mark.parametrize("name", MODELS)
def test_models_of_tickets(name):
    """Cutting is exact, changes nothing where nothing is dead, and leaves the model alone; the result trains."""
    model, data = moved(MODELS[name]()).train(), graph()
    before = copy.deepcopy(model.state_dict())
    units = channel_units(model, data)
    same = shrink(model, data)
    assert model.training
    assert same.training
    for state in (model.state_dict(), same.state_dict()):
        assert all(torch.equal(state[key], value) for key, value in before.items())
    dead = kill(model, units, torch.arange(0, units.num_units, 3)).eval()
    small = shrink(dead, data)
    assert list(small.state_dict()) == list(before)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in dead.parameters())
    assert torch.allclose(small(data.x, data.edge_index), dead(data.x, data.edge_index), rtol=0, atol=1e-12)
    fast = accelerate(small)(data.x, data.edge_index)
    assert torch.allclose(fast, dead(data.x, data.edge_index), atol=1e-10)
    weights = copy.deepcopy(small.state_dict())
    fit(small, data, epochs=2)
    assert any(not torch.equal(small.state_dict()[key], value) for key, value in weights.items())


def test_what_goes_with_a_channel():
    model, data = moved(GCN(8, 4, 2, 3, norm="batch_norm")), graph()
    with torch.no_grad():
        model.convs[1].lin.weight[:, 1:3] = 0
    small = shrink(model, data)
    for ours, theirs in (
        (small.convs[0].lin.weight, model.convs[0].lin.weight[[0, 3]]),
        (small.convs[0].bias, model.convs[0].bias[[0, 3]]),
        (small.norms[0].module.weight, model.norms[0].module.weight[[0, 3]]),
        (small.norms[0].module.running_var, model.norms[0].module.running_var[[0, 3]]),
        (small.convs[1].lin.weight, model.convs[1].lin.weight[:, [0, 3]]),
        (small.convs[1].bias, model.convs[1].bias),
    ):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(("activation", "cut"), [(nn.ReLU(), True), (nn.Sigmoid(), False)])
def test_a_channel_that_is_made_of_zeros(activation, cut):
    """It is zero behind a ReLU, but one half behind a sigmoid."""
    layers = [(GraphConv(8, 6), "x, edge_index -> x"), activation, (GraphConv(6, 3), "x, edge_index -> x")]
    model, data = moved(sequential("x, edge_index", layers)), graph()
    with torch.no_grad():
        for tensor in (model[0].lin_rel.weight, model[0].lin_rel.bias, model[0].lin_root.weight):
            tensor[4:] = 0
    small = shrink(model, data)
    assert small[0].lin_rel.weight.size(0) == (4 if cut else 6)
    assert torch.allclose(small(data.x, data.edge_index), model(data.x, data.edge_index), rtol=0, atol=1e-12)


def test_of_a_dead_layer_one_channel_stays():
    model, data = moved(GCN(8, 16, 3, 3)), graph()
    with torch.no_grad():
        model.convs[2].lin.weight.zero_()
    small = shrink(model, data)
    assert [conv.lin.weight.shape for conv in small.convs] == [(16, 8), (1, 16), (3, 1)]


@pytest.mark.parametrize("options", [{"heads": 1}, {"heads": 4, "concat": False}])
def test_channels_within_a_head_stay(options):
    layers = [(GATConv(8, 16, **options), "x, edge_index -> x"), nn.ReLU(), nn.Linear(16, 3)]
    with pytest.raises(ValueError, match=r"'module_0' \(GATConv\) mixes all channels"):
        channel_units(sequential("x, edge_index", layers), random_graph())


@pytest.mark.parametrize(
    ("options", "who"),
    [
        ({"norm": "layer_norm"}, r"'norms.0' \(LayerNorm\) mixes all channels of 'convs.0.lin.weight'"),
        ({"norm": "pair_norm"}, r"'norms.0' \(PairNorm\) mixes all channels"),
        ({"jk": "lstm"}, r"'jk.lstm' \(LSTM\) mixes all channels"),
    ],
)
def test_layers_that_mix_channels_are_named(options, who):
    with pytest.raises(ValueError, match=f"no channels that can be removed: .*{who}"):
        shrink(GCN(8, 16, 3, 3, **options), random_graph())


class HalfNormed(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = GCNConv(8, 16), GCNConv(16, 16), GCNConv(16, 3)
        self.norm = nn.LayerNorm(16)

    def forward(self, x, edge_index):
        x = self.norm(self.first(x, edge_index)).relu()
        return self.third(self.second(x, edge_index).relu(), edge_index)


def test_other_layers_are_cut_all_the_same():
    units = channel_units(HalfNormed(), random_graph())
    assert units.num_units == 16
    assert units.fixed == ("'norm' (LayerNorm) mixes all channels of 'first.lin.weight'",)


class OntoFeatures(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.last = GCNConv(8, 8), nn.Linear(8, 3)

    def forward(self, x, edge_index):
        return self.last(x + self.conv(x, edge_index).relu())


class LosesNaN(GCN):
    def forward(self, x, edge_index):
        x = self.convs[0](x, edge_index)
        return self.convs[1](torch.where(x > 0, x, torch.zeros_like(x)), edge_index)


@pytest.mark.parametrize("model", [OntoFeatures(), LosesNaN(8, 16, 2, 3), GCN(8, 16, 1, 3)], ids=["x", "NaN", "one"])
def test_what_comes_from_features_or_makes_the_output_stays(model):
    with pytest.raises(ValueError, match="all of them reach the output or come from the features"):
        channel_units(model, random_graph())


class Reads(nn.Module):
    """Two layers, of which the second one looks at the width of the first."""

    def __init__(self):
        super().__init__()
        self.first, self.second = GCNConv(8, 16), GCNConv(16, 3)

    def forward(self, x, edge_index):
        x = self.first(x, edge_index)
        return self.second(x.relu(), edge_index) * x.size(1)


class Reshapes(Reads):
    def forward(self, x, edge_index):
        return self.second(self.first(x, edge_index).view(-1, 16).relu(), edge_index)


@pytest.mark.parametrize(("kind", "why"), [(Reads, "differs by"), (Reshapes, "does not run")])
def test_a_model_that_would_compute_something_else_is_refused(kind, why):
    model, data = kind(), random_graph()
    with torch.no_grad():
        model.second.lin.weight[:, ::2] = 0
    with pytest.raises(ValueError, match=f"'model' cannot be cut: the smaller one {why}"):
        shrink(model, data)


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"'model' must be of plain layers \(got 'convs.0', which is accelerated\)"):
        channel_units(accelerate(GCN(8, 16, 2, 3)), random_graph())
    scripted = torch.jit.script(nn.Linear(8, 16))
    with pytest.raises(ValueError, match=r"\(got 'module_0', which is scripted\)"):
        channel_units(sequential("x, edge_index", [(scripted, "x -> x")]), random_graph())
    with pytest.raises(ValueError, match=r"needs one forward pass first, .* \(got 'convs.0.lin.weight' without\)"):
        channel_units(GCN(-1, 16, 2, 3), random_graph())
    with pytest.raises(TypeError, match=r"'data' must be a graph of PyG, Data or HeteroData \(got Tensor\)"):
        shrink(GCN(8, 16, 2, 3), torch.ones(2, 2))


class OfGraphs(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.hidden, self.last = GCNConv(8, 16, cached=False), nn.Linear(16, 12), nn.Linear(12, 1)

    def forward(self, x, edge_index, batch):
        x = global_mean_pool(self.conv(x, edge_index).relu(), batch)
        return self.last(self.hidden(x).relu()).squeeze(-1)


def test_tasks_on_graphs():
    model, batch = moved(OfGraphs()), Batch.from_data_list([graph(), graph()])
    units = channel_units(model, batch)
    assert units.layers().bincount().tolist() == [16, 12]
    dead = kill(model, units, torch.arange(0, 28, 2))
    small = shrink(dead, batch)
    assert small.hidden.weight.shape == (6, 8)
    given = (batch.x, batch.edge_index, batch.batch)
    assert torch.allclose(small(*given), dead(*given), rtol=0, atol=1e-12)


class Hetero(nn.Module):
    def __init__(self):
        super().__init__()
        kinds = [("paper", "cites", "paper"), ("author", "writes", "paper"), ("paper", "by", "author")]
        self.first = HeteroConv({kind: SAGEConv((8, 8), 16) for kind in kinds})
        self.second = HeteroConv({kind: SAGEConv((16, 16), 3) for kind in kinds})

    def forward(self, x_dict, edge_index_dict):
        x_dict = {name: x.relu() for name, x in self.first(x_dict, edge_index_dict).items()}
        return self.second(x_dict, edge_index_dict)


def test_graphs_of_several_types():
    data, one = HeteroData(), graph()
    data["paper"].x, data["author"].x = one.x, one.x[:20]
    data["paper", "cites", "paper"].edge_index = one.edge_index
    data["author", "writes", "paper"].edge_index = one.edge_index[:, one.edge_index[0] < 20]
    data["paper", "by", "author"].edge_index = data["author", "writes", "paper"].edge_index.flip(0)
    model = moved(Hetero())

    def call(model, data):
        return model(data.x_dict, data.edge_index_dict)

    units = channel_units(model, data, call)
    assert units.num_units == 32  # channels of papers, made by two layers each, and channels of authors
    dead = kill(model, units, torch.arange(0, 32, 2))
    small = shrink(dead, data, call)
    assert sum(p.numel() for p in small.parameters()) < 0.6 * sum(p.numel() for p in dead.parameters())
    assert [str(conv) for conv in small.first.convs.values()] == ["SAGEConv((8, 8), 8, aggr=mean)"] * 3
    assert [str(conv) for conv in small.second.convs.values()] == ["SAGEConv((8, 8), 3, aggr=mean)"] * 3
    for name, found in call(small, data).items():
        assert torch.allclose(found, call(dead, data)[name], rtol=0, atol=1e-12)


def test_layers_that_keep_the_graph_or_the_features():
    layers = [GCNConv(8, 16, cached=True), nn.ReLU(), SGConv(16, 3, cached=True)]
    named = [(layer, "x, edge_index -> x") if hasattr(layer, "propagate") else layer for layer in layers]
    model, data = moved(sequential("x, edge_index", named)), graph()
    with torch.no_grad():
        model[2].lin.weight[:, 5:] = 0
    expected = model(data.x, data.edge_index)
    small = shrink(model, data)
    assert small[0].lin.weight.shape == (5, 8)
    assert torch.allclose(small(data.x, data.edge_index), expected, rtol=0, atol=1e-12)
    assert torch.equal(model(data.x, data.edge_index), expected)


@pytest.mark.parametrize("make", [lambda: GCN(8, 6, 3, 3, norm="layer_norm"), lambda: GAT(8, 6, 3, 3)])
def test_channels_that_go_together(make):
    """What can only be removed as a whole is a unit for those who ask for it, of each layer one."""
    units = channel_units(make(), random_graph(), whole=True)
    assert units.num_units == 2
    for i in range(2):
        assert units.labels[f"convs.{i}.lin.weight", 0].tolist() == [i] * 6
        assert units.labels[f"convs.{i + 1}.lin.weight", 1].tolist() == [i] * 6
    with pytest.raises(ValueError, match="mixes all channels"):
        channel_units(make(), random_graph())
