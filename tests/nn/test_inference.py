"""Inference layer by layer against PyG's own pass over the whole graph."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import sequential
from torch import nn
from torch_geometric import nn as pyg
from torch_geometric.data import Data
from torch_geometric.nn import GAT, GCN, GIN, PNA, GCN2Conv, GCNConv, GraphSAGE, SAGEConv
from torch_geometric.transforms import ToSparseTensor
from torch_geometric.utils import to_undirected

import graphsparse.nn.inference as inference
from graphsparse.datasets import load
from graphsparse.nn import accelerate, layerwise_inference
from graphsparse.testing import random_graph
from graphsparse.utils.call_model import call_model


def directed_graph(num_nodes=60, num_edges=400, seed=0):
    """Repeated edges, self-loops, a hub, and nodes without edges at both ends."""
    generator = torch.Generator().manual_seed(seed)
    edge_index = torch.randint(2, num_nodes - 3, (2, num_edges), generator=generator)
    edge_index[1, : num_edges // 4] = 7
    edge_index[:, -3:] = 11
    return Data(
        x=torch.randn(num_nodes, 8, generator=generator),
        edge_index=edge_index,
        edge_weight=torch.rand(num_edges, generator=generator),
    )


def unweighted(data):
    return Data(x=data.x, edge_index=data.edge_index)


def gcn2(weight=""):
    """GCNII as PyG's ``Sequential``, with work in place and a name that is given away again."""
    graph = f"edge_index{weight}"
    return sequential(
        f"x, {graph}",
        [
            (nn.Dropout(0.5), "x -> x"),
            (nn.Linear(8, 16), "x -> x0"),
            nn.ReLU(inplace=True),
            (GCN2Conv(16, 0.1, 0.5, 1), f"x0, x0, {graph} -> x"),
            nn.ELU(inplace=True),
            (GCN2Conv(16, 0.1, 0.5, 2, shared_weights=False), f"x, x0, {graph} -> x"),
            nn.ReLU(),
            nn.Sequential(nn.Linear(16, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 3)),
        ],
    )


def mixed():
    """Four kinds of layers one after the other, without names of values."""
    layers = [SAGEConv(8, 16), GCNConv(16, 8), pyg.GINConv(pyg.MLP([8, 16, 8])), pyg.GATConv(8, 3)]
    return sequential("x, edge_index", [(layer, "x, edge_index -> x") for layer in layers])


def assert_equals_full_pass(model, data, **kwargs):
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm1d):  # statistics that are not those of a new layer
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
    model.eval()
    with torch.no_grad():
        expected = call_model(model, data)
    found = layerwise_inference(model.train(), data, **kwargs)
    assert found.shape == expected.shape
    assert not found.requires_grad
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


WEIGHTED = {
    "GCN": lambda: GCN(8, 16, 3, 3, dropout=0.5),
    "GCN, narrow": lambda: GCN(8, 4, 2, 16, act="leaky_relu"),
    "improved": lambda: GCN(8, 16, 2, 3, improved=True),
    "no self-loops": lambda: GCN(8, 16, 2, 3, add_self_loops=False),
    "not normalised": lambda: GCN(8, 16, 2, 3, normalize=False, bias=False),
    "cached": lambda: GCN(8, 16, 2, 3, cached=True),
    "jk last": lambda: GCN(8, 16, 3, 3, jk="last"),
    "jk cat": lambda: GCN(8, 16, 3, 3, jk="cat"),
    "jk max": lambda: GCN(8, 16, 3, 3, jk="max", norm="batch", act_first=True),
    "jk lstm": lambda: GCN(8, 16, 3, 3, jk="lstm"),
    "LayerNorm of nodes": lambda: GCN(8, 16, 3, 3, norm=pyg.LayerNorm(16, mode="node"), act=torch.tanh),
    "GCNII": lambda: gcn2(", edge_weight"),
    "GCN, accelerated": lambda: accelerate(GCN(8, 16, 2, 3)),
    "SAGE, accelerated": lambda: accelerate(GraphSAGE(8, 16, 2, 3)),
    "SAGE max, accelerated": lambda: accelerate(GraphSAGE(8, 16, 2, 3, aggr="max")),
    "GIN, accelerated": lambda: accelerate(GIN(8, 16, 2, 3)),
    "GAT, accelerated": lambda: accelerate(GAT(8, 16, 2, 3, heads=2)),
}
UNWEIGHTED = {
    "SAGE": lambda: GraphSAGE(8, 16, 2, 3),
    "SAGE max": lambda: GraphSAGE(8, 16, 2, 3, aggr="max", normalize=True),
    "SAGE sum": lambda: GraphSAGE(8, 16, 2, 3, aggr="add", root_weight=False),
    "SAGE project": lambda: GraphSAGE(8, 16, 2, 3, project=True, jk="cat"),
    "GIN": lambda: GIN(8, 16, 2, 3, norm="batch", train_eps=True),
    "GIN, one layer": lambda: GIN(8, 16, 1, 3),
    "GAT": lambda: GAT(8, 16, 2, 3, heads=4, norm="batch_norm"),
    "GAT, residual": lambda: GAT(8, 16, 3, 3, heads=2, residual=True, add_self_loops=False),
    "GAT, mean of heads": lambda: GAT(8, 16, 2, 3, heads=3, concat=False, jk="max"),
    "GCNII": gcn2,
    "mixed": mixed,
}


@pytest.mark.parametrize("batch_size", [7, 1000])
@pytest.mark.parametrize("name", WEIGHTED)
def test_equals_the_full_pass_with_edge_weights(name, batch_size):
    data = directed_graph()
    data.edge_weight[::7][data.edge_index[0, ::7] != data.edge_index[1, ::7]] = 0  # PyG keeps self-loops of weight 0
    assert_equals_full_pass(WEIGHTED[name](), data, batch_size=batch_size)


@pytest.mark.parametrize("batch_size", [7, 1000])
@pytest.mark.parametrize("name", UNWEIGHTED)
def test_equals_the_full_pass_without_edge_weights(name, batch_size):
    assert_equals_full_pass(UNWEIGHTED[name](), unweighted(directed_graph()), batch_size=batch_size)


@pytest.mark.parametrize("options", [{}, {"add_self_loops": False}, {"fill_value": "max", "heads": 2}])
def test_edge_features(options):
    data = unweighted(directed_graph())
    data.edge_attr = torch.randn(data.num_edges, 4)
    assert_equals_full_pass(GAT(8, 16, 2, 3, edge_dim=4, **options), data, batch_size=9)
    assert_equals_full_pass(GAT(8, 16, 2, 3, **options), data, batch_size=9)
    assert_equals_full_pass(GCN(8, 16, 2, 3), data, batch_size=9)


@settings(max_examples=25, deadline=None)
@given(
    num_nodes=st.integers(1, 25),
    num_edges=st.integers(0, 60),
    batch_size=st.integers(1, 30),
    seed=st.integers(0, 1000),
    undirected=st.booleans(),
    name=st.sampled_from(["GCN", "jk cat", "SAGE", "SAGE max", "GIN", "GAT"]),
)
def test_any_graph_and_any_block(num_nodes, num_edges, batch_size, seed, undirected, name):
    generator = torch.Generator().manual_seed(seed)
    edge_index = torch.randint(num_nodes, (2, num_edges), generator=generator)
    if undirected:
        edge_index = to_undirected(edge_index, num_nodes=num_nodes)
    data = Data(x=torch.randn(num_nodes, 8, generator=generator), edge_index=edge_index)
    if name in WEIGHTED:
        data.edge_weight = torch.rand(edge_index.size(1), generator=generator)
    assert_equals_full_pass((WEIGHTED | UNWEIGHTED)[name](), data, batch_size=batch_size)


def test_memory_mapped_features(tmp_path):
    data = directed_graph()
    np.save(tmp_path / "x.npy", data.x.numpy())
    mapped = data.clone()
    mapped.x = torch.from_numpy(np.load(tmp_path / "x.npy", mmap_mode="c"))
    for make_model in (lambda: GCN(8, 16, 2, 3), lambda: GCN(8, 4, 2, 3)):
        model = make_model()
        assert torch.equal(layerwise_inference(model, mapped), layerwise_inference(model, data))


def test_features_that_come_first_through_no_weights_are_not_copied(monkeypatch):
    data, seen = directed_graph(), []
    spmm = inference.FusedConv.rows.__globals__["spmm"]
    monkeypatch.setitem(
        inference.FusedConv.rows.__globals__, "spmm", lambda adj, x, *args: seen.append(x) or spmm(adj, x, *args)
    )
    layerwise_inference(GCN(8, 16, 2, 3), data, batch_size=20)
    assert [x.data_ptr() == data.x.data_ptr() for x in seen] == [True] * 3 + [False] * 3


@pytest.mark.parametrize("name", ["GCN", "jk cat", "SAGE max", "GAT", "GCNII"])
def test_blocks_for_a_device_of_their_own_hold_what_they_need(name):
    """As a GPU is given them: of the columns of the graph only those with an edge into the block."""
    data = unweighted(directed_graph())
    model = (WEIGHTED | UNWEIGHTED)[name]().eval()
    layers = inference.Layers(model, data)
    layers.device = torch.device("cpu:0")  # another name, so another device
    seen = []
    for conv in layers.model.modules():
        if isinstance(conv, inference.FusedConv):
            rows = conv.rows
            conv.rows = lambda block, *args, rows=rows, **extra: seen.append(block) or rows(block, *args, **extra)
    with torch.no_grad():
        expected = model(data.x, data.edge_index)
        assert torch.allclose(layers.outputs(7), expected, atol=1e-5)
    assert seen
    assert all(block.num_src == block.col.unique().numel() for block in seen)


@pytest.mark.cuda
@pytest.mark.parametrize("name", ["GCN", "jk cat", "SAGE", "SAGE max", "GIN", "GAT", "GCNII"])
def test_the_graph_on_the_cpu_or_on_the_device_of_the_model(name, device):
    data = unweighted(directed_graph(300, 2000))
    model = (WEIGHTED | UNWEIGHTED)[name]().eval()
    with torch.no_grad():
        expected = model(data.x, data.edge_index)
    found = layerwise_inference(model.to(device), data, batch_size=50)
    assert found.device.type == "cpu"
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4)
    whole = layerwise_inference(model, data.to(device))
    assert whole.device == device
    assert torch.allclose(whole.cpu(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.cuda
@pytest.mark.real_gpu("looks at its memory")
@pytest.mark.parametrize("name", ["GCN", "jk cat", "SAGE", "SAGE max", "GIN", "GAT", "GCNII"])
def test_a_device_smaller_than_the_graph(name, device):
    data = unweighted(directed_graph(3000, 40_000))
    model = (WEIGHTED | UNWEIGHTED)[name]().eval().to(device)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    layerwise_inference(model, data, batch_size=50)
    assert torch.cuda.max_memory_allocated() - before < 8_000_000


def test_blocks_stay_bounded(monkeypatch):
    """No block may have more edges than allowed, but for a hub that has one to itself."""
    monkeypatch.setattr(inference, "_EDGES_PER_ROW", 3)
    degree = torch.tensor([1, 0, 40, 5, 5, 120, 0, 1, 1, 1, 119])
    rowptr = torch.cat([torch.zeros(1, dtype=torch.long), degree.cumsum(0)])
    ranges = list(inference._ranges(rowptr, 4))
    assert [start for start, _ in ranges] == [0, *(stop for _, stop in ranges[:-1])]
    assert ranges[-1][1] == 11
    assert all(stop - start <= 4 for start, stop in ranges)
    assert all(degree[start:stop].sum() <= 12 or stop - start == 1 for start, stop in ranges)


def test_double_and_half_precision():
    data = directed_graph()
    assert layerwise_inference(GCN(8, 16, 2, 3).requires_grad_(False), data).dtype == torch.float32
    data.x, data.edge_weight = data.x.double(), data.edge_weight.double()
    assert_equals_full_pass(GCN(8, 16, 2, 3).double(), data)
    data.x, data.edge_weight = data.x.bfloat16(), data.edge_weight.bfloat16()
    assert layerwise_inference(GCN(8, 16, 2, 3).bfloat16(), data).dtype == torch.bfloat16


def test_the_model_and_the_graph_stay_as_they_are():
    data = unweighted(directed_graph())
    model = GCN(8, 16, 2, 3, norm="batch", dropout=0.5, cached=True)
    model.norms[0].eval()
    model.convs[0](data.x, data.edge_index)  # fills its cache
    state = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    attributes = [{name: id(value) for name, value in module.__dict__.items()} for module in model.modules()]
    x = data.x.clone()
    layerwise_inference(model, data, batch_size=10)
    layerwise_inference(gcn2(), data, batch_size=10)
    assert [module.training for module in model.modules()] == modes
    assert [{name: id(value) for name, value in m.__dict__.items()} for m in model.modules()] == attributes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert torch.equal(data.x, x)


@pytest.mark.parametrize("make_model", [GCN, GraphSAGE, GIN, GAT])
def test_cora(data_root, make_model):
    data = load("cora", root=data_root)
    model = make_model(data.num_features, 32, 2, data.num_classes)
    assert_equals_full_pass(model, unweighted(data), batch_size=500)


class OwnForward(GCN):
    def forward(self, x, edge_index):
        return super().forward(x - x.mean(0), edge_index)


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = GCNConv(8, 3)

    def forward(self, x, edge_index):
        return self.conv(x, edge_index)


class OwnLayer(GCNConv):
    pass


def with_part(model, path, part):
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, part)
    return model


def with_hook(model, name):
    model.get_submodule(name).register_forward_hook(lambda *args: None)
    return model


REFUSED = {
    "a module of one's own": (Own, "Own is another model"),
    "a forward of one's own": (lambda: OwnForward(8, 16, 2, 3), "OwnForward is another model"),
    "no graph": (lambda: nn.Linear(8, 3), "Linear is another model"),
    "other layers": (lambda: GAT(8, 16, 2, 3, v2=True), "GATv2Conv 'convs.0' is a layer that accelerate.. does not"),
    "PNA": (
        lambda: PNA(8, 16, 2, 3, aggregators=["mean"], scalers=["identity"], deg=torch.arange(40)),
        "PNAConv 'convs.0'",
    ),
    "a layer derived from a known one": (
        lambda: with_part(GCN(8, 16, 2, 3), "convs.0", OwnLayer(8, 16)),
        "OwnLayer 'convs.0' is a layer that accelerate",
    ),
    "a network for a matrix": (
        lambda: with_part(GCN(8, 16, 2, 3), "convs.0.lin", nn.Sequential(nn.Linear(8, 16), nn.ReLU())),
        "GCNConv 'convs.0' is not as accelerate.. gives it",
    ),
    "another aggregation": (lambda: GraphSAGE(8, 16, 2, 3, aggr="median"), "no sparse product with aggr='median'"),
    "the other way": (lambda: GCN(8, 16, 2, 3, flow="target_to_source"), "sends messages from target to source"),
    "GraphNorm": (lambda: GCN(8, 16, 2, 3, norm="graph_norm"), "GraphNorm 'norms.0' is not known"),
    "PairNorm": (lambda: GCN(8, 16, 2, 3, norm="pair_norm"), "PairNorm 'norms.0' is not known"),
    "InstanceNorm": (lambda: GCN(8, 16, 2, 3, norm="instance"), "InstanceNorm 'norms.0' is not known"),
    "LayerNorm of graphs": (lambda: GCN(8, 16, 2, 3, norm="layer"), "LayerNorm 'norms.0' normalises over all nodes"),
    "BatchNorm of batches": (
        lambda: GCN(8, 16, 2, 3, norm="batch", norm_kwargs={"track_running_stats": False}),
        "takes its statistics from all nodes",
    ),
    "GraphNorm inside of GIN": (
        lambda: with_part(GIN(8, 16, 2, 3), "convs.1.nn", nn.Sequential(nn.Linear(16, 3), pyg.GraphNorm(3))),
        "GraphNorm 'convs.1.nn.1' is not known",
    ),
    "soft-max over nodes": (lambda: GCN(8, 16, 2, 3, act=lambda x: x.softmax(0)), "GCN has an activation"),
    "soft-max over nodes inside of GIN": (
        lambda: with_part(GIN(8, 16, 2, 3), "convs.0.nn", pyg.MLP([8, 16, 16], act=lambda x: x.softmax(0))),
        "MLP 'convs.0.nn' has an activation",
    ),
    "a hook": (lambda: with_hook(GCN(8, 16, 2, 3), "convs.0"), "GCNConv 'convs.0' has a hook"),
    "pooling": (
        lambda: sequential(
            "x, edge_index", [(GCNConv(8, 3), "x, edge_index -> x"), (lambda x: x.mean(0, keepdim=True), "x -> x")]
        ),
        "'module_1' is not known to make one value",
    ),
    "a function of the edges": (
        lambda: sequential("x, edge_index", [(lambda e: e, "edge_index -> other"), (GCNConv(8, 3), "x, other -> x")]),
        "'module_0' is not known to make one value",
    ),
    "no layer": (lambda: sequential("x, edge_index", [(nn.Linear(8, 3), "x -> x")]), "no message passing layer"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_models_are_refused_with_a_word_on_what_is_supported(name):
    make_model, message = REFUSED[name]
    with pytest.raises(ValueError, match=f"{message}.*: what is run .* GCN, GraphSAGE, GIN, GAT .* accelerate"):
        layerwise_inference(make_model(), unweighted(directed_graph()))


def test_graphs_that_do_not_fit_are_refused():
    data = unweighted(directed_graph())
    with pytest.raises(ValueError, match="'batch_size' must be at least 1"):
        layerwise_inference(GCN(8, 16, 2, 3), data, batch_size=0)
    with pytest.raises(TypeError, match="'data.x' must be a dense tensor"):
        layerwise_inference(GCN(8, 16, 2, 3), Data(x=data.x.to_sparse(), edge_index=data.edge_index))
    with pytest.raises(ValueError, match="'data' has no nodes"):
        layerwise_inference(GCN(8, 16, 2, 3), Data(x=data.x[:0], edge_index=data.edge_index[:, :0]))
    with pytest.raises(ValueError, match="'data' needs 'edge_index'"):
        layerwise_inference(GCN(8, 16, 2, 3), ToSparseTensor(layout=torch.sparse_csr)(random_graph()))
    with pytest.raises(ValueError, match="'data.edge_weight' is given, but GIN does not take edge weights"):
        layerwise_inference(GIN(8, 16, 2, 3), directed_graph())
    with pytest.raises(ValueError, match="'data.edge_weight' is given, but Sequential does not take"):
        layerwise_inference(mixed(), directed_graph())
    with pytest.raises(ValueError, match="'data' needs 'edge_weight'"):
        layerwise_inference(gcn2(", edge_weight"), data)
