import pytest
import torch
from torch import nn
from torch_geometric.nn import GAT, GCN, MLP

from graphsparse.nn import accelerate
from graphsparse.nn.linear import FastDropout, set_dropout
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


def test_fast_dropout_is_put_in_place_of_torchs_only_when_wanted():
    model = nn.Sequential(nn.Dropout(0.25), nn.Dropout(0.25, inplace=True), nn.Dropout1d(0.25), nn.Linear(2, 2))
    fast = accelerate(model, fast_dropout=True)
    assert [type(module) for module in fast[:3]] == [FastDropout, FastDropout, nn.Dropout1d]
    assert type(accelerate(model)[0]) is type(model[0]) is nn.Dropout
    assert str(fast) == str(model)
    x = torch.ones(200, 100)
    for layer in fast[:2]:
        found = layer(x.clone())
        assert abs(float((found == 0).float().mean()) - 0.25) < 0.02
        assert float(found.max()) == pytest.approx(4 / 3)
    kept = x.clone()
    assert (fast[0](kept) == 0).any()
    assert torch.equal(kept, x)
    assert torch.equal(fast.eval()[0](x), x)
    assert set_dropout(fast, 0.0) == 3


def test_fast_dropout_of_attention():
    data = random_graph(1000)
    model = GAT(8, 16, 2, 3, heads=8, dropout=0.6)
    fast = accelerate(model, fast_dropout=True).train()
    assert [conv.fast_dropout for conv in fast.convs] == [True, True]
    assert [conv.fast_dropout for conv in accelerate(model).convs] == [False, False]
    with torch.no_grad():
        many = torch.stack([fast(data.x, data.edge_index) for _ in range(200)])
        theirs = torch.stack([model.train()(data.x, data.edge_index) for _ in range(200)])
    assert not torch.equal(many[0], many[1])
    # Means of 200 draws differ by one standard error, squared, on average; the wrong scale makes it more than 10.
    error = (many.var(0) + theirs.var(0)) / 200
    assert 0.5 < float(((many.mean(0) - theirs.mean(0)).square() / error).mean()) < 1.5
    torch.testing.assert_close(many.std(0).mean(), theirs.std(0).mean(), atol=0, rtol=0.05)
