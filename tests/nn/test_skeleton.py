import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch_geometric.nn import GCN

from graphsparse.nn.skeleton import copy_without, forget_weights, put_parameters, recurrent_layers


def test_put():
    model = GCN(8, 16, 2, 3)
    weight = nn.Parameter(torch.ones(3, 16))
    put_parameters(model, {"convs.1.lin.weight": weight, "convs.0.bias": None})
    assert model.convs[1].lin.weight is weight
    assert model.convs[0].bias is None
    assert [name for name, _ in model.named_parameters()] == [
        "convs.0.lin.weight",
        "convs.1.bias",
        "convs.1.lin.weight",
    ]
    put_parameters(model, {"convs.0.bias": nn.Parameter(torch.zeros(16))})
    assert next(iter(model.state_dict())) == "convs.0.bias"  # the order is as it was


def test_copy_without_leaves_out_every_name():
    model = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
    model[1].weight = model[0].weight
    new = copy_without(model, ["0.weight", "1.weight"])
    assert new[0].weight is None
    assert new[1].weight is None
    assert new[0].bias is not model[0].bias
    assert torch.equal(new[0].bias, model[0].bias)
    assert model[0].weight.shape == (4, 4)


@pytest.mark.parametrize("layer", [nn.GRU(3, 4, 2, bidirectional=True), nn.LSTM(3, 4), nn.RNN(3, 4)])
def test_recurrent_layers_without_weights(layer):
    x = torch.randn(5, 3)
    expected = layer(x)[0]
    new = copy_without(layer, [name for name, _ in layer.named_parameters()])
    assert recurrent_layers(nn.ModuleList([new])) == [new]
    weights = {name: p * 1 for name, p in layer.named_parameters()}
    for _ in range(2):
        new.double()
        new.float()
        forget_weights([new])
        assert torch.equal(functional_call(new, weights, (x,))[0], expected)
        with pytest.raises(RuntimeError, match="support the deepcopy protocol"):
            copy.deepcopy(new)  # it holds what was handed in
        forget_weights([new])
        assert not any(value is weight for value in new._flat_weights for weight in weights.values())
        copy.deepcopy(new)
    forget_weights([layer])
    assert torch.equal(layer(x)[0], expected)
