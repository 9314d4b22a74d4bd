import pytest
import torch
import torch_geometric.typing
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import (
    GAT,
    GCN,
    GIN,
    GATConv,
    GCN2Conv,
    GCNConv,
    GINConv,
    GPSConv,
    GraphConv,
    GraphSAGE,
    SAGEConv,
)
from torch_geometric.transforms import ToSparseTensor

from graphsparse.metrics import count_macs
from graphsparse.nn import accelerate
from graphsparse.testing import toy_edge_index

N, E = 5, 10  # nodes and directed edges of the toy graph


@pytest.fixture
def x():
    return torch.randn(N, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def edge_index():
    return toy_edge_index()


HAND = {
    # transform the nodes, then send over the edges and the self-loops that GCN and GAT add
    "GCN": (lambda: GCN(8, 16, 2, 3), N * 8 * 16 + (E + N) * 16 + N * 16 * 3 + (E + N) * 3),
    # send, then transform the mean and the node itself
    "GraphSAGE": (lambda: GraphSAGE(8, 16, 2, 3), E * 8 + 2 * N * 8 * 16 + E * 16 + 2 * N * 16 * 3),
    # send, then a network of two layers
    "GIN": (lambda: GIN(8, 16, 2, 3), E * 8 + N * (8 * 16 + 16 * 16) + E * 16 + N * (16 * 3 + 3 * 3)),
    # four heads of four channels, then one head of three
    "GAT": (lambda: GAT(8, 16, 2, 3, heads=4), N * 8 * 16 + (E + N) * 16 + N * 16 * 12 + (E + N) * 12),
}


@pytest.mark.parametrize("name", HAND)
def test_models_counted_by_hand(name, x, edge_index):
    make_model, expected = HAND[name]
    assert count_macs(make_model(), x, edge_index) == expected


def test_gcn2_multiplies_by_a_bare_parameter(x, edge_index):
    conv = GCN2Conv(8, alpha=0.1, theta=0.5, layer=1)
    assert count_macs(conv, x, x, edge_index) == (E + N) * 8 + N * 8 * 8
    with torch.no_grad():
        conv.weight1[0] = 0
    assert count_macs(conv, x, x, edge_index) == (E + N) * 8 + N * 7 * 8


def test_zero_weights_are_free(x, edge_index):
    conv, dense = GCNConv(8, 4), N * 8 * 4 + (E + N) * 4
    assert count_macs(conv, x, edge_index) == dense
    with torch.no_grad():
        conv.lin.weight.view(-1)[:10] = 0
    assert count_macs(conv, x, edge_index) == dense - 10 * N


def test_removed_edges_are_free(x, edge_index):
    assert count_macs(GCNConv(8, 4), x, edge_index[:, :7]) == N * 8 * 4 + (7 + N) * 4
    assert count_macs(GraphConv(8, 4), x, edge_index[:, :0]) == 2 * N * 8 * 4


def test_zero_activations_are_not_free_but_sparse_features_are(x, edge_index):
    conv = GCNConv(8, 4)
    x = x * (x > 0.3)
    assert count_macs(conv, x, edge_index) == N * 8 * 4 + (E + N) * 4
    assert count_macs(conv, x.to_sparse_csr(), edge_index) == int(x.count_nonzero()) * 4 + (E + N) * 4
    with torch.no_grad():
        conv.lin.weight[:, 0] = 0  # what meets a zero weight is free too
    expected = int(x[:, 1:].count_nonzero()) * 4 + (E + N) * 4
    assert count_macs(conv, x.to_sparse_csr(), edge_index) == expected


CONVS = {
    "GCNConv": lambda: GCNConv(8, 4),
    "SAGEConv": lambda: SAGEConv(8, 4),
    "GraphConv": lambda: GraphConv(8, 4),
    "GATConv": lambda: GATConv(8, 4),
    "GINConv": lambda: GINConv(nn.Linear(8, 4)),
}
LAYOUTS = {
    "csr": {"layout": torch.sparse_csr},
    "coo": {"layout": torch.sparse_coo},
    "SparseTensor": {},
}


@pytest.mark.parametrize("name", CONVS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_fused_layers_cost_what_messages_cost(name, layout, x, edge_index):
    if layout == "SparseTensor" and not torch_geometric.typing.WITH_TORCH_SPARSE:
        pytest.skip("needs torch-sparse")
    conv = CONVS[name]()
    adj_t = ToSparseTensor(**LAYOUTS[layout])(Data(x=x, edge_index=edge_index)).adj_t
    assert count_macs(conv, x, adj_t) == count_macs(conv, x, edge_index) > E * 4


class Product(nn.Module):
    def __init__(self, product):
        super().__init__()
        self.product = product
        self.weight = nn.Parameter(torch.ones(8, 2))

    def forward(self, x):
        return self.product(self, x)


ADJACENCY = torch.sparse_coo_tensor(toy_edge_index(), torch.ones(E), (N, N))
PRODUCTS = {
    "matrix": (lambda m, x: x @ m.weight, N * 8 * 2),
    "vector": (lambda m, x: x @ m.weight[:, 0], N * 8),
    "dot": (lambda m, x: m.weight[:, 0] @ x[0], 8),
    "einsum": (lambda m, x: torch.einsum("nf,fc->nc", x, m.weight), N * 8 * 2),
    "batch": (lambda m, x: torch.bmm(x.expand(3, N, 8), m.weight.expand(3, 8, 2)), 3 * N * 8 * 2),
    "added": (lambda m, x: torch.addmm(torch.zeros(2), x, m.weight), N * 8 * 2),
    "sparse": (lambda m, x: ADJACENCY @ x, E * 8),
    "sparse.mm": (lambda m, x: torch.sparse.mm(ADJACENCY, x), E * 8),
    "sparse mean": (lambda m, x: torch.sparse.mm(ADJACENCY.to_sparse_csr(), x, "mean"), E * 8),
    "no rows": (lambda m, x: x[:0] @ m.weight, 0),
    "no product": (lambda m, x: x * 2 + 1, 0),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_outside_a_layer(name, x):
    product, expected = PRODUCTS[name]
    assert count_macs(Product(product), x) == expected


def test_attention_and_convolution(x, edge_index):
    # queries, keys, values; scores and their sums over 5 x 5 pairs; the last layer
    attention = N * 8 * 24 + 2 * N * N * 8 + N * 8 * 8
    layer = nn.MultiheadAttention(8, 2, batch_first=True)
    assert count_macs(layer, x[None], x[None], x[None]) == attention
    block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    assert count_macs(block, x[None]) == attention + 2 * N * 8 * 16
    gps = GPSConv(8, GCNConv(8, 8), heads=2)
    assert count_macs(gps, x, edge_index) == attention + N * 8 * 8 + (E + N) * 8 + 2 * N * 8 * 16
    assert count_macs(nn.Conv1d(8, 3, 2), x.t()[None]) == (N - 1) * 8 * 3 * 2
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.cuda
def test_same_count_on_a_gpu(x, edge_index, device):
    for make_model, expected in HAND.values():
        assert count_macs(make_model().to(device), x.to(device), edge_index.to(device)) == expected
    adj_t = ToSparseTensor(layout=torch.sparse_csr)(Data(x=x, edge_index=edge_index)).adj_t
    assert count_macs(GCNConv(8, 4).to(device), x.to(device), adj_t.to(device)) == N * 8 * 4 + (E + N) * 4
    sparse = (x * (x > 0.3)).to_sparse_csr()
    expected = count_macs(GCNConv(8, 4), sparse, edge_index)
    assert count_macs(GCNConv(8, 4).to(device), sparse.to(device), edge_index.to(device)) == expected


def test_what_cannot_be_counted_is_refused(x):
    with pytest.raises(NotImplementedError, match="'model' computes a whole layer by"):
        count_macs(nn.LSTM(8, 3), x[None])


def test_a_tied_weight_counts_each_time_it_is_used(x):
    layer = nn.Linear(8, 8, bias=False)
    assert count_macs(nn.Sequential(layer, nn.ReLU(), layer), x) == 2 * N * 8 * 8


def test_model_and_generators_stay_as_they_are(x, edge_index):
    model = GCN(8, 16, 2, 3, dropout=0.5, norm="batch_norm")
    model.convs[0].eval()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    generator = torch.get_rng_state()

    class Drawing(nn.Module):
        def forward(self, x, edge_index):
            return model(x + torch.rand_like(x), edge_index)

    wrapped = Drawing()
    wrapped.model = model
    count_macs(wrapped, x, edge_index)
    assert torch.equal(torch.get_rng_state(), generator)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in state.items())
    hooks = [
        value
        for module in model.modules()
        for key, value in vars(module).items()
        if key.endswith("_hooks") and isinstance(value, dict)
    ]
    assert hooks
    assert not any(hooks)


def test_hooks_are_gone_after_an_error(edge_index):
    conv = GCNConv(8, 4)
    with pytest.raises(RuntimeError):
        count_macs(conv, torch.ones(N, 9), edge_index)
    assert not conv._message_forward_hooks
    assert conv.training


def test_products_of_onednn_count():
    model = nn.Linear(128, 64, bias=False)
    with torch.no_grad():
        model.weight[torch.rand(64, 128) < 0.5] = 0
    expected = 600 * int(model.weight.count_nonzero())
    assert count_macs(model, torch.randn(600, 128)) == expected
    assert count_macs(accelerate(model), torch.randn(600, 128)) == expected


@pytest.mark.parametrize("name", HAND)
@pytest.mark.parametrize("weighted", [False, True])
def test_our_layers_count_as_those_that_they_replace(name, weighted, x, edge_index):
    make_model, expected = HAND[name]
    fast = accelerate(make_model())
    weight = {"edge_weight": torch.rand(E)} if weighted and name != "GAT" else {}
    for _ in range(3):  # what is constant is not left out
        assert count_macs(fast, x, edge_index, **weight) == expected
        fast(x, edge_index)
