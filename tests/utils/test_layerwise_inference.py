import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import GCNII, NormAndTie
from soup_models import TREACHEROUS
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import (
    GAT,
    GCN,
    GIN,
    PNA,
    GATConv,
    GCNConv,
    GINEConv,
    GraphConv,
    GraphSAGE,
    LayerNorm,
    LGConv,
    RGCNConv,
    SAGEConv,
    TransformerConv,
)
from torch_geometric.transforms import ToSparseTensor
from torch_geometric.utils import remove_self_loops, to_undirected

import graphsparse.utils.conv_blocks as conv_blocks
from graphsparse.datasets import load
from graphsparse.testing import random_graph
from graphsparse.utils import layerwise_inference


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


def plain_call(model, data):
    extra = [] if data.get("edge_weight") is None else [data.edge_weight]
    return model(data.x, data.edge_index, *extra)


def assert_equals_full_batch(model, data, call=None, **kwargs):
    modes = [module.training for module in model.modules()]
    model.eval()
    with torch.no_grad():
        expected = (call or plain_call)(model, data)
    for module, mode in zip(model.modules(), modes, strict=True):
        module.training = mode
    kwargs |= {"call": call} if call else {}
    found = layerwise_inference(model, data, **kwargs)
    assert found.shape == expected.shape
    assert not found.requires_grad
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


WEIGHTED = {
    "GCN": lambda: GCN(8, 16, 3, 3, dropout=0.5),
    "improved": lambda: GCN(8, 16, 2, 3, improved=True),
    "no self-loops": lambda: GCN(8, 16, 2, 3, add_self_loops=False),
    "not normalised": lambda: GCN(8, 16, 2, 3, normalize=False, bias=False),
    "GCN mean": lambda: GCN(8, 16, 2, 3, aggr="mean"),
    "GCN cached": lambda: GCN(8, 16, 2, 3, cached=True),
    "jk cat": lambda: GCN(8, 16, 3, 3, jk="cat"),
    "jk max": lambda: GCN(8, 16, 3, 3, jk="max", norm="batch"),
    "jk lstm": lambda: GCN(8, 16, 3, 3, jk="lstm"),
    "LayerNorm": lambda: GCN(8, 16, 3, 3, norm=LayerNorm(16, mode="node")),
    "tied, BatchNorm": NormAndTie,
}
UNWEIGHTED = {
    "SAGE mean": lambda: GraphSAGE(8, 16, 2, 3),
    "SAGE max": lambda: GraphSAGE(8, 16, 2, 3, aggr="max", normalize=True),
    "SAGE project": lambda: GraphSAGE(8, 16, 2, 3, project=True),
    "GIN": lambda: GIN(8, 16, 2, 3, norm="batch"),
    "GAT": lambda: GAT(8, 16, 2, 3, heads=4),
    "GATv2": lambda: GAT(8, 16, 2, 3, heads=2, v2=True, add_self_loops=False),
    "PNA": lambda: PNA(8, 16, 2, 3, aggregators=["mean", "std"], scalers=["attenuation"], deg=torch.arange(40)),
    "GCNII": GCNII,
}


@pytest.mark.parametrize("batch_size", [7, 1000])
@pytest.mark.parametrize("name", WEIGHTED)
def test_equals_the_full_batch_with_edge_weights(name, batch_size):
    model = WEIGHTED[name]()
    if name == "tied, BatchNorm":
        data = unweighted(directed_graph())
        model(data.x, data.edge_index)  # running statistics that are not those of a new layer
    else:
        data = directed_graph()
    assert_equals_full_batch(model, data, batch_size=batch_size)


@pytest.mark.parametrize(("batch_size", "max_edges"), [(7, 30), (1000, 100_000)])
@pytest.mark.parametrize("name", UNWEIGHTED)
def test_equals_the_full_batch_without_edge_weights(name, batch_size, max_edges):
    assert_equals_full_batch(
        UNWEIGHTED[name](), unweighted(directed_graph()), batch_size=batch_size, max_edges=max_edges
    )


@settings(max_examples=25, deadline=None)
@given(
    num_nodes=st.integers(1, 25),
    num_edges=st.integers(0, 60),
    batch_size=st.integers(1, 30),
    max_edges=st.integers(1, 70),
    seed=st.integers(0, 1000),
    undirected=st.booleans(),
    name=st.sampled_from(["GCN", "jk cat", "SAGE mean", "GIN", "GAT"]),
)
def test_any_graph_and_any_block(num_nodes, num_edges, batch_size, max_edges, seed, undirected, name):
    generator = torch.Generator().manual_seed(seed)
    edge_index = torch.randint(num_nodes, (2, num_edges), generator=generator)
    if undirected:
        edge_index = to_undirected(edge_index, num_nodes=num_nodes)
    data = Data(x=torch.randn(num_nodes, 8, generator=generator), edge_index=edge_index)
    if name in WEIGHTED:
        data.edge_weight = torch.rand(edge_index.size(1), generator=generator)
    model = (WEIGHTED | UNWEIGHTED)[name]()
    assert_equals_full_batch(model, data, batch_size=batch_size, max_edges=max_edges)


def test_adj_t_is_read_as_an_edge_list():
    data = directed_graph()
    data = Data(x=data.x, edge_index=remove_self_loops(to_undirected(data.edge_index))[0])
    model = GCN(8, 16, 2, 3)
    for weight in (None, torch.rand(data.num_edges)):
        given = data.clone()
        given.edge_weight = weight
        expected = model(data.x, data.edge_index, weight)
        torch.testing.assert_close(layerwise_inference(model, given), expected, atol=1e-5, rtol=1e-5)
        sparse = ToSparseTensor(layout=torch.sparse_csr)(given)
        torch.testing.assert_close(layerwise_inference(model, sparse), expected, atol=1e-5, rtol=1e-5)


class EdgeFeatures(nn.Module):
    """Encodes edge features once for all layers, uses one layer twice, and adds what went in."""

    def __init__(self):
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(4, 16), nn.ReLU())
        self.first = nn.Linear(8, 16)
        self.conv = GINEConv(nn.Linear(16, 16))
        self.attend = GATConv(16, 16, edge_dim=16)
        self.transform = TransformerConv(16, 3, edge_dim=16)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x, edge_index, edge_attr):
        edge_attr, x = self.encode(edge_attr), self.first(x)
        start = x
        for _ in range(2):
            x = x + self.act(self.conv(x, edge_index, edge_attr))
        x = self.attend((x, x), edge_index, edge_attr=edge_attr) + start
        return self.transform(x.relu_(), edge_index, edge_attr)


def test_own_model_with_edge_features_residuals_and_a_layer_used_twice():
    data = unweighted(directed_graph())
    data.edge_attr = torch.randn(data.num_edges, 4)
    call = lambda model, data: model(data.x, data.edge_index, data.edge_attr)  # noqa: E731
    x = data.x.clone()
    assert_equals_full_batch(EdgeFeatures(), data, call=call, batch_size=9, max_edges=50)
    assert torch.equal(data.x, x)


class LearnedWeights(nn.Module):
    def __init__(self):
        super().__init__()
        self.score = nn.Linear(4, 1)
        self.first, self.second, self.third = GCNConv(8, 16), GraphConv(16, 16), LGConv()
        self.typed = RGCNConv(16, 3, num_relations=3)

    def forward(self, x, edge_index, edge_attr, edge_type):
        weight = self.score(edge_attr).sigmoid().view(-1)
        x = self.first(x, edge_index, weight).relu()
        x = self.third(self.second(x, edge_index, weight).relu(), edge_index, weight)
        return self.typed(x, edge_index, edge_type).log_softmax(dim=-1)


def test_edge_weights_that_the_model_computes_and_edge_types():
    data = unweighted(directed_graph())
    data.edge_attr, data.edge_type = torch.randn(data.num_edges, 4), torch.randint(3, (data.num_edges,))
    call = lambda model, data: model(data.x, data.edge_index, data.edge_attr, data.edge_type)  # noqa: E731
    assert_equals_full_batch(LearnedWeights(), data, call=call, batch_size=9, max_edges=50)


class Between(nn.Module):
    """Two layers with something between them."""

    def __init__(self, between, conv=lambda: SAGEConv(8, 8)):
        super().__init__()
        self.one, self.two = conv(), conv()
        self.between = between

    def forward(self, x, edge_index, edge_weight=None):
        return self.two(self.between(self.one(x, edge_index), edge_index), edge_index)


MIXING = {
    "mean of all nodes": lambda x, edges: x - x.mean(dim=0),
    "number of nodes": lambda x, edges: x / x.size(0),
    "position": lambda x, edges: x + torch.arange(x.size(0)).view(-1, 1),
    "soft-max over nodes": lambda x, edges: x.softmax(dim=0),
    "random": lambda x, edges: nn.functional.dropout(x, 0.5, training=True),
}


@pytest.mark.parametrize("name", MIXING)
def test_what_mixes_rows_is_refused(name):
    with pytest.raises(ValueError, match="argument 'x' of layer SAGEConv 'two' depends on which other rows"):
        layerwise_inference(Between(MIXING[name]), unweighted(directed_graph()))


def test_a_subclass_of_a_known_layer_is_not_taken_for_it():
    data = random_graph(100)
    with pytest.raises(ValueError, match="layer OwnForward 'first' needs more than the edges into a node"):
        layerwise_inference(TREACHEROUS["subclass, own forward"](), data)
    model = TREACHEROUS["subclass, own message"]().eval()
    with torch.no_grad():
        expected = model(data.x, data.edge_index)
    assert torch.allclose(layerwise_inference(model, data, 30), expected, atol=1e-5)


@pytest.mark.parametrize("norm", ["graph_norm", "pair_norm", "layer", "instance"])
def test_norms_over_the_graph_are_refused(norm):
    with pytest.raises(ValueError, match="'convs.1' depends on which other rows"):
        layerwise_inference(GCN(8, 16, 2, 3, norm=norm), directed_graph())


def test_pooled_output_is_refused():
    model = Between(lambda x, edges: x)
    call = lambda model, data: model(data.x, data.edge_index).mean(dim=0)  # noqa: E731
    with pytest.raises(ValueError, match="the output of the model depends on which other rows"):
        layerwise_inference(model, unweighted(directed_graph()), call=call)
    call = lambda model, data: (model(data.x, data.edge_index), 1)  # noqa: E731
    with pytest.raises(ValueError, match="must return one tensor with one row per node \\(got tuple"):
        layerwise_inference(model, unweighted(directed_graph()), call=call)


def test_a_model_that_computes_with_the_edges_is_refused():
    model = Between(lambda x, edges: x.index_add(0, edges[1], x[edges[0]]))
    with pytest.raises(ValueError, match="computes with the edges outside its message passing layers"):
        layerwise_inference(model, unweighted(directed_graph()))


def test_bad_arguments_are_refused():
    data = unweighted(directed_graph())
    with pytest.raises(ValueError, match="'batch_size' and 'max_edges' must be at least 1 \\(got 0"):
        layerwise_inference(GCN(8, 16, 2, 3), data, batch_size=0)
    with pytest.raises(ValueError, match="'model' has no PyG message passing layer"):
        layerwise_inference(nn.Linear(8, 3), data)
    with pytest.raises(TypeError, match="'data.x' must be a dense tensor"):
        layerwise_inference(GCN(8, 16, 2, 3), Data(x=data.x.to_sparse(), edge_index=data.edge_index))
    with pytest.raises(ValueError, match="GIN does not take edge weights"):
        layerwise_inference(GIN(8, 16, 2, 3), directed_graph())
    with pytest.raises(ValueError, match="sends messages from target to source"):
        layerwise_inference(GCN(8, 16, 2, 3, flow="target_to_source"), directed_graph())


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_stays_as_it_is(fails):
    data = unweighted(directed_graph())
    model = GCN(8, 16, 2, 3, norm="batch", dropout=0.5, cached=True)
    model.norms[0].eval()
    if fails:
        model.lin = nn.Softmax(dim=0)
    model.convs[0](data.x, data.edge_index)  # fills its cache
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    attributes = [{name: id(value) for name, value in module.__dict__.items()} for module in model.modules()]
    try:
        layerwise_inference(model, data, batch_size=10)
    except ValueError:
        assert fails
    else:
        assert not fails
    assert [module.training for module in model.modules()] == modes
    assert [{name: id(value) for name, value in m.__dict__.items()} for m in model.modules()] == attributes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_messages_stay_bounded(monkeypatch):
    """No layer may see more edges than allowed, but for a hub that has a block to itself."""
    data = unweighted(directed_graph(300, 3000))
    degree = torch.bincount(data.edge_index[1], minlength=300)
    seen = []
    apply_form = conv_blocks.apply_form

    def spy(call, form, layer, given):
        seen.append((given.edge_index.size(1), given.num_dst, given.edge_index[0].max() + 1))
        return apply_form(call, form, layer, given)

    monkeypatch.setattr(conv_blocks, "apply_form", spy)
    layerwise_inference(GAT(8, 16, 2, 3), data, batch_size=40, max_edges=100)
    assert sum(edges for edges, _, _ in seen) == 2 * 3000
    assert all(edges <= 100 or nodes == 1 for edges, nodes, _ in seen)
    assert max(edges for edges, _, _ in seen) == degree.max() > 500
    assert max(nodes for _, nodes, _ in seen) <= 40


def test_outputs_that_nothing_needs_are_let_go(monkeypatch):
    from graphsparse.utils.layerwise_inference import _Inference

    held = []
    compute = _Inference.compute

    def spy(self, k, call):
        result = compute(self, k, call)
        held.append(sum(value is not None for value in self.hidden))
        return result

    monkeypatch.setattr(_Inference, "compute", spy)
    layerwise_inference(GCN(8, 16, 4, 3), directed_graph())
    assert held == [0, 0, 0, 0]
    held.clear()
    layerwise_inference(GCN(8, 16, 4, 3, jk="cat"), directed_graph())
    assert held == [0, 1, 2, 3]


def test_memory_mapped_features(tmp_path):
    data = directed_graph()
    file = tmp_path / "x.bin"
    file.write_bytes(data.x.numpy().tobytes())
    mapped = data.clone()
    mapped.x = torch.from_file(str(file), shared=False, size=data.x.numel()).view(60, 8)
    model = GCN(8, 16, 2, 3)
    assert torch.equal(layerwise_inference(model, mapped), layerwise_inference(model, data))


def test_double_and_half_precision():
    data = directed_graph()
    expected = layerwise_inference(GCN(8, 16, 2, 3).requires_grad_(False), data)
    assert expected.dtype == torch.float32
    data.x, data.edge_weight = data.x.double(), data.edge_weight.double()
    assert_equals_full_batch(GCN(8, 16, 2, 3).double(), data)
    data.x, data.edge_weight = data.x.bfloat16(), data.edge_weight.bfloat16()
    assert layerwise_inference(GCN(8, 16, 2, 3).bfloat16(), data).dtype == torch.bfloat16


def test_progress_bar(capsys):
    layerwise_inference(GCN(8, 16, 2, 3), random_graph())
    assert capsys.readouterr().err == ""
    layerwise_inference(GCN(8, 16, 2, 3), random_graph(), progress=True)
    assert "3/3" in capsys.readouterr().err


@pytest.mark.parametrize("make_model", [GCN, GraphSAGE, GIN, GAT])
def test_cora(data_root, make_model):
    data = load("cora", root=data_root)
    torch.manual_seed(0)
    model = make_model(data.num_features, 32, 2, data.num_classes)
    assert_equals_full_batch(model, unweighted(data), batch_size=500, max_edges=2000)


def test_self_loops_of_a_matrix_are_refused_where_they_would_mean_something_else():
    data = random_graph()
    loops = torch.arange(data.num_nodes).expand(2, -1)
    edge_index = torch.cat([data.edge_index, loops], 1)
    adj_t = torch.sparse_coo_tensor(edge_index, torch.ones(edge_index.size(1))).coalesce().to_sparse_csr()
    matrix = Data(x=data.x, adj_t=adj_t)
    with pytest.raises(ValueError, match=r"'data.adj_t' must hold no self-loops for layer GCNConv 'convs.0'"):
        layerwise_inference(GCN(8, 16, 2, 3), matrix)
    model = GraphSAGE(8, 16, 2, 3)
    torch.testing.assert_close(layerwise_inference(model, matrix), model(data.x, edge_index), atol=1e-5, rtol=1e-5)
