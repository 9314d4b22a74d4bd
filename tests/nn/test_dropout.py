import pytest
import torch
from torch import nn
from torch_geometric.nn import GAT, GCN, MLP

from graphsparse.nn.dropout import set_dropout
from graphsparse.testing import random_graph


@pytest.mark.parametrize(
    "make",
    [
        lambda: GCN(8, 16, 3, 3, dropout=0.6),
        lambda: GAT(8, 16, 2, 3, heads=2, dropout=0.6),
        lambda: nn.ModuleList([MLP([8, 16, 3], dropout=0.5), nn.Dropout2d(0.1)]),
    ],
)
def test_nothing_is_dropped_at_zero(make):
    model = make().train()
    assert set_dropout(model, 0.0) > 0
    data = random_graph()
    if isinstance(model, nn.ModuleList):
        assert torch.equal(model[0](data.x), model[0](data.x))
        return
    assert torch.equal(model(data.x, data.edge_index), model(data.x, data.edge_index))
    set_dropout(model, 0.5)
    assert not torch.equal(model(data.x, data.edge_index), model(data.x, data.edge_index))


def test_share_that_is_dropped():
    layer = nn.Dropout(0.0)
    assert set_dropout(layer, 0.25) == 1
    torch.manual_seed(0)
    assert abs(float((layer(torch.ones(100_000)) == 0).float().mean()) - 0.25) < 0.01


def test_a_model_without_dropout_is_left():
    assert set_dropout(nn.Linear(3, 2), 0.5) == 0


@pytest.mark.parametrize(
    ("value", "error"), [("0.5", TypeError), (True, TypeError), (1.0, ValueError), (-0.1, ValueError)]
)
def test_bad_probabilities(value, error):
    with pytest.raises(error, match="'dropout' must be"):
        set_dropout(nn.Dropout(), value)
