import gc
import importlib.util
import weakref
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from layers import close, twins, unsorted_graph
from torch import nn

from graphsparse.nn import features
from graphsparse.nn.features import SPARSE_BELOW, LinearInput, constant_features, to_dense
from graphsparse.ops import Adjacency, spmm
from graphsparse.typing import has_module, optional_module

SPARSE = ["CSR", "COO", "CSC", *(["SparseTensor"] if has_module("torch_sparse") else [])]
NETWORKS = {
    "linear": lambda: nn.Linear(20, 3),
    "without bias": lambda: nn.Linear(20, 3, bias=False),
    "sequence": lambda: nn.Sequential(nn.Linear(20, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3)),
    "norm first": lambda: nn.Sequential(nn.BatchNorm1d(20), nn.ReLU(inplace=True), nn.Linear(20, 3)),
    "in place first": lambda: nn.Sequential(nn.ReLU(inplace=True), nn.Linear(20, 3)),
    "own": lambda: Own(),
}


class Own(nn.Module):
    """A network that does with its input whatever a tensor allows."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(40, 3), nn.Linear(20, 3)

    def forward(self, x):
        assert x.dim() == x.ndim == 2
        assert x.shape[1] == x.size(-1) == 20
        assert len(x) == x.shape[0]
        assert x.numel() == x.shape[0] * 20
        assert x.is_floating_point()
        wide = torch.cat([x, 2 * x.relu()], dim=1)
        rows = [row.sum() for row in x[:2]]
        return F.linear(input=wide, weight=self.first.weight) + self.second(x) * x.T[0].view(-1, 1) + sum(rows)


def bag_of_words(num_nodes=12, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(num_nodes, 20, generator=generator, dtype=dtype)
    return x * (torch.rand(num_nodes, 20, generator=generator) < 0.08)


def as_sparse(x, form):
    if form == "SparseTensor":
        return optional_module("torch_sparse").SparseTensor.from_dense(x)
    return {"CSR": x.to_sparse_csr, "COO": x.to_sparse, "CSC": x.to_sparse_csc}[form]()


def gradients(layer, x, *args, **kwargs):
    """Output and gradients of the weights; that of the features is none of a layer's business here."""
    layer.zero_grad()
    out = layer(x, *args, **kwargs)
    (out * torch.linspace(0.5, 1.5, out.numel(), dtype=out.dtype).view(out.shape)).sum().backward()
    return [out.detach(), *(torch.zeros_like(p) if p.grad is None else p.grad for p in layer.parameters())]


def layers():
    yield "GCNConv", (20, 3), {}
    for aggr in ("mean", "sum", "max"):
        yield "SAGEConv", (20, 3), {"aggr": aggr}
        yield "SAGEConv", (20, 3), {"aggr": aggr, "project": True, "root_weight": False}
        yield "GINConv", (nn.Sequential(nn.Linear(20, 4), nn.ReLU(), nn.Linear(4, 3)),), {"aggr": aggr}
    yield "SAGEConv", ((20, 20), 3), {"aggr": ["mean", "max"]}
    yield "GINConv", (nn.Linear(20, 3),), {"train_eps": True, "eps": 0.5}
    yield "GATConv", (20, 3, 2), {"residual": True}
    yield "GATConv", ((20, 20), 3), {}


@pytest.fixture
def dense_products(monkeypatch):
    """Counts the dense products as wide as the features."""
    seen, real = [], F.linear

    def linear(x, weight, bias=None):
        if not isinstance(x, LinearInput) and x.size(-1) == 20:
            seen.append(x.shape)
        return real(x, weight, bias)

    monkeypatch.setattr(F, "linear", linear)
    return seen


@pytest.mark.parametrize("layer", list(layers()), ids=lambda layer: f"{layer[0]}, {layer[2]}")
@pytest.mark.parametrize("form", SPARSE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sparse_equals_dense(layer, form, dtype):
    name, args, options = layer
    edge_index = unsorted_graph()[0]
    theirs, ours = twins(name, *args, dtype=dtype, **options)
    x = bag_of_words(dtype=dtype)
    expected = gradients(theirs, x, edge_index)
    sparse = as_sparse(x, form)
    for _ in range(3):
        close(gradients(ours, sparse, edge_index), expected)
    if name != "GCNConv":
        expected = gradients(theirs, (x, x[:10]), edge_index)
        close(gradients(ours, (sparse, x[:10]), edge_index), expected)
        close(gradients(ours, (x, as_sparse(x[:10], form)), edge_index), expected)
        ours.register_propagate_forward_pre_hook(lambda *_: None)
        close(gradients(ours, (sparse, x[:10]), edge_index), expected)
    else:
        ours.explain = False
        ours.register_message_forward_hook(lambda *_: None)
        close(gradients(ours, sparse, edge_index), expected)


@pytest.mark.parametrize("name", ["GCNConv", "SAGEConv", "GATConv", "GINConv"])
@pytest.mark.parametrize("form", ["dense", *SPARSE])
def test_dense_product_is_not_computed(name, form, dense_products):
    edge_index = unsorted_graph()[0]
    args = (nn.Sequential(nn.Linear(20, 3), nn.ReLU()),) if name == "GINConv" else (20, 3)
    theirs, ours = twins(name, *args)
    x = bag_of_words()
    assert 0 < x.count_nonzero() <= SPARSE_BELOW * x.numel()
    expected = gradients(theirs, x, edge_index)
    given = x if form == "dense" else as_sparse(x, form)
    if form == "dense":
        for _ in range(2):
            gradients(ours, given, edge_index)
    dense_products.clear()
    close(gradients(ours, given, edge_index), expected)
    assert dense_products == []
    ours.reuse_constant = False
    close(gradients(ours, x, edge_index), expected)
    assert dense_products


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("train_eps", [False, True])
@pytest.mark.parametrize("pair", [False, True, None])
def test_any_network_after_a_sparse_sum(network, train_eps, pair):
    edge_index = unsorted_graph()[0]
    theirs, ours = twins("GINConv", NETWORKS[network](), eps=0.3, train_eps=train_eps)
    x = bag_of_words()
    given = x if pair is False else (x, x.clone() if pair else None)
    expected = gradients(theirs, given, edge_index)
    for _ in range(4):
        close(gradients(ours, given, edge_index), expected, scale=1)
    sparse = x.to_sparse_csr()
    close(gradients(ours, sparse if pair is False else (sparse, given[1]), edge_index), expected, scale=1)
    assert torch.equal(x, bag_of_words())


def test_hooks_of_a_layer_see_numbers():
    ours = twins("GCNConv", 20, 3)[1]
    seen = []
    ours.lin.register_forward_pre_hook(lambda module, args: seen.append(args[0] + 0))
    ours.lin.register_full_backward_hook(lambda *_: seen.append("backward"))
    x = bag_of_words()
    for _ in range(3):
        ours(x, unsorted_graph()[0]).sum().backward()
    assert len(seen) == 6
    close([seen[4]], [seen[0]])


def test_what_is_brought_into_sparse_form():
    x = bag_of_words()
    assert [type(constant_features(x, True)) for _ in range(3)] == [torch.Tensor, LinearInput, LinearInput]
    assert constant_features(x, False) is x
    full = torch.rand(12, 20)
    learned = bag_of_words().requires_grad_()
    half = bag_of_words().bfloat16()
    flat = bag_of_words()[0]
    empty = torch.zeros(0, 20)
    for other in (full, learned, half, flat, empty):
        assert all(constant_features(other, True) is other for _ in range(3))
    with torch.no_grad():
        x[:] = full
    assert all(constant_features(x, True) is x for _ in range(3))


def test_share_of_numbers():
    x = torch.zeros(10, 10)
    x.view(-1)[: int(SPARSE_BELOW * 100)] = 1
    constant_features(x, True)
    assert isinstance(constant_features(x, True), LinearInput)
    x.view(-1)[: int(SPARSE_BELOW * 100) + 1] = 1
    constant_features(x, True)
    assert constant_features(x, True) is x


def test_sparse_features_that_are_learned():
    ours = twins("GCNConv", 20, 3)[1]
    x = bag_of_words().to_sparse_csr().requires_grad_()
    edge_index = unsorted_graph()[0]
    dense = bag_of_words().requires_grad_()
    for _ in range(2):
        ours(x, edge_index).square().sum().backward()
        ours(dense, edge_index).square().sum().backward()
    close([x.grad.to_dense()], [dense.grad * (dense != 0)])


def test_changed_values_are_noticed():
    theirs, ours = twins("SAGEConv", 20, 3)
    edge_index = unsorted_graph()[0]
    for form in ["dense", *SPARSE]:
        x = bag_of_words()
        given = x if form == "dense" else as_sparse(x, form)
        for factor in (2, 3):
            for _ in range(3):
                ours(given, edge_index)
            with torch.no_grad():
                x.mul_(factor)
                if form == "SparseTensor":
                    given.storage.value().mul_(factor)
                elif form != "dense":
                    given.values().mul_(factor)
            close([ours(given, edge_index)], [theirs(x, edge_index)])


def test_memory_goes_with_the_features():
    gc.collect()
    gc.disable()
    try:
        found = []
        real = Adjacency.from_torch_csr
        with pytest.MonkeyPatch.context() as patch:

            def spy(matrix):
                found.append(weakref.ref(adj := real(matrix)))
                return adj

            patch.setattr(Adjacency, "from_torch_csr", spy)
            x, layer = bag_of_words(), twins("GCNConv", 20, 3)[1]
            for _ in range(3):
                layer(x, unsorted_graph()[0]).sum().backward()
            sparse = bag_of_words().to_sparse()
            layer(sparse, unsorted_graph()[0]).sum().backward()
        assert len(found) == 2
        assert all(ref() is not None for ref in found)
        del x, sparse
        assert all(ref() is None for ref in found)
    finally:
        gc.enable()


def matrix():
    dense = bag_of_words()
    adj = Adjacency.from_torch_csr(dense.to_sparse_csr())
    return LinearInput(dense, (12, 20), lambda weight: spmm(adj, weight), lambda: dense), dense


def test_looks_like_the_tensor_it_stands_for():
    x, dense = matrix()
    assert (x.shape, x.dtype, x.device, x.layout) == (dense.shape, dense.dtype, dense.device, dense.layout)
    assert x.to_dense() is dense
    assert to_dense((x, None, dense)) == (dense, None, dense)
    assert "tensor" in repr(x)
    for function in (
        lambda x: x + 1,
        lambda x: x @ torch.ones(20, 2),
        lambda x: torch.mm(x, torch.ones(20, 2)),
        lambda x: x[2:4],
        lambda x: x.T,
        lambda x: x.mT,
        lambda x: x.data,
        lambda x: torch.stack([x, x]),
        lambda x: F.linear(torch.ones(3, 20), x),
        lambda x: F.linear(input=x, weight=torch.ones(3, 20), bias=torch.ones(3)),
        lambda x: torch.where(x > 0, x, -1),
        lambda x: F.dropout(x, p=0.5, training=False),
        lambda x: x.float().double(),
    ):
        found, expected = function(x), function(dense)
        assert type(found) is torch.Tensor
        close([found], [expected])
    assert features._is_without_numbers(torch.Tensor.T.__get__) is False


def test_autocast_gives_half_precision():
    x, dense = matrix()
    linear = nn.Linear(20, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, expected = linear(x), linear(dense)
    assert found.dtype == expected.dtype == torch.bfloat16
    close([found.float()], [expected.float()], 2e-2)


def test_benchmark_compares_equal_results(capsys):
    path = Path(__file__).parents[2] / "benchmarks" / "sparse_features.py"
    spec = importlib.util.spec_from_file_location("sparse_features", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    figures = script.main(["--rows", "50", "--columns", "20", "--width", "3", "--density", "0.1", "0.5", "--runs", "1"])
    assert set(figures) == {f"{density}, 3, {step}" for density in (0.1, 0.5) for step in script.STEPS}
    assert all(ratio > 0 for ratio in figures.values())
    assert "1 thread(s)" in capsys.readouterr().out
