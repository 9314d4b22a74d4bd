import copy
import pickle

import pytest
import torch
from torch import nn
from torch_geometric.nn import dense as pyg

from graphsparse.nn.linear import FASTER, apply_linear, is_plain


@pytest.mark.parametrize("cls", list(FASTER))
@pytest.mark.parametrize("bias", [False, True])
def test_same_layer(cls, bias):
    layer, x = cls(30, 20, bias=bias), torch.randn(3000, 30)
    fast = FASTER[cls](30, 20, bias=bias)
    fast.load_state_dict(layer.state_dict())
    torch.testing.assert_close(fast(x), layer(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(apply_linear(layer, x), layer(x), rtol=1e-5, atol=1e-5)
    assert str(fast) == str(layer)
    assert isinstance(fast, cls)
    for other in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
        assert type(other) is type(fast)
        assert torch.equal(other(x), fast(x))


def test_what_a_user_has_put_there_is_called():
    layer = pyg.Linear(3, 2)
    assert is_plain(layer)
    layer.register_forward_hook(lambda module, args, out: out + 1)
    assert not is_plain(layer)
    assert torch.equal(apply_linear(layer, torch.zeros(1, 3)), layer.bias[None] + 1)
    own = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
    assert apply_linear(own, torch.randn(5, 3)).min() >= 0
    changed = nn.Linear(3, 2)
    changed.forward = lambda x: x * 0
    assert apply_linear(changed, torch.ones(1, 3)).abs().sum() == 0
