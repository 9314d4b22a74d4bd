import pytest
import torch
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import GAT, GCN, GIN, GCN2Conv, GraphSAGE, Sequential

from graphsparse.nn import inference_form
from graphsparse.nn.form_cost import bytes_held, executed_macs
from graphsparse.testing import random_graph
from graphsparse.utils.call_model import call_model

DATA = random_graph(seed=1)
WORDS = random_graph(seed=1)
WORDS.x = (WORDS.x > 1.9).float()
N, E = DATA.num_nodes, DATA.num_edges


def macs(model, form, data):
    fast = inference_form(model, form)
    with torch.no_grad():
        for _ in range(2):
            call_model(fast, data)
    return executed_macs(fast, data, call_model)


def test_bytes():
    first, second = nn.Linear(3, 2, bias=False), nn.Linear(3, 2)
    second.weight = first.weight
    assert bytes_held(nn.Sequential(first, second, first, nn.BatchNorm1d(2))) == 4 * (6 + 2 + 4 * 2) + 8
    assert bytes_held(nn.ReLU()) == 0


def test_zeros_of_a_dense_weight_are_multiplied():
    model = GCN(8, 16, 2, 3)
    with torch.no_grad():
        model.convs[0].lin.weight.zero_()
    messages = (E + N) * (16 + 3)
    dense = N * (8 * 16 + 16 * 3) + messages
    assert macs(model, "dense", WORDS) == dense
    words = int(WORDS.x.count_nonzero())
    assert macs(model, "sparse_features", WORDS) == words * 16 + N * 16 * 3 + messages
    assert macs(model, "compact", WORDS) == N * 16 * 3 + messages
    with torch.no_grad():
        model.convs[0].lin.weight[3, 2] = 1
    assert macs(model, "compact", WORDS) == words * 1 + N * 16 * 3 + messages
    with torch.no_grad():
        model.convs[0].lin.weight.zero_()
        model.convs[1].lin.weight.zero_()[0, 5] = 1
    assert macs(model, "csr", DATA) == N + messages


def gcnii(width, *_):
    return Sequential("x, edge_index", [(GCN2Conv(width, 0.1), "x, x, edge_index -> x")])


@pytest.mark.parametrize("make", [GCN, GraphSAGE, GIN, GAT, gcnii])
def test_our_layers_count_their_products_as_messages(make):
    """With features that change at every call, nothing is kept, and both ways carry out the same."""
    model = make(8, 8, 2, 8)

    def call(model, data):
        return model(data.x.clone(), data.edge_index)

    plain, fast = (executed_macs(inference_form(model, form), DATA, call) for form in ("dense", "sparse_features"))
    assert fast == plain


@pytest.mark.parametrize("aggr", ["lstm", "std", ["mean", "max"]])
def test_our_layers_without_a_product(aggr):
    model = GraphSAGE(8, 8, 1, aggr=aggr)
    order = DATA.edge_index[1].argsort(stable=True)
    data = Data(x=DATA.x, edge_index=DATA.edge_index[:, order])
    assert macs(model, "sparse_features", data) == macs(model, "dense", data)


def test_large_products_are_seen():
    """Whichever library multiplies."""
    data = Data(x=torch.randn(600, 128))
    model = inference_form(nn.Linear(128, 64), "sparse_features")
    assert executed_macs(model, data, lambda model, data: model(data.x)) == 600 * 128 * 64
    assert torch.backends.mkldnn.enabled


def test_what_cannot_be_counted(monkeypatch):
    data = Data(x=torch.randn(5, 4))

    def refuse(*_):
        raise NotImplementedError

    monkeypatch.setattr("graphsparse.nn.form_cost.count_macs", refuse)
    assert executed_macs(nn.Linear(4, 2), data, lambda model, data: model(data.x)) is None
