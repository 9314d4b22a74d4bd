import pytest
import torch
from models import NormAndTie
from soup_models import CACHED, two_states
from torch import nn
from torch_geometric.nn import GCN, BatchNorm, HeteroBatchNorm, InstanceNorm

from graphsparse.soups.evaluation.plain_forward import PlainForward, call_with_state, estimate_statistics
from graphsparse.testing import random_graph
from graphsparse.utils.call_model import call_model
from graphsparse.utils.running_norms import running_norms


@pytest.mark.parametrize("name", ["GCN 2", "GAT", "GCNII"])
def test_equals_a_model_that_has_loaded_the_state(name):
    data = random_graph()
    model, state, _ = two_states(CACHED[name])
    model.eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    nodes = data.val_mask.nonzero().view(-1)
    forward = PlainForward(model, data, nodes, call_model)
    found = [forward.logits(state) for _ in range(2)]
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    model.load_state_dict(state)
    with torch.no_grad():
        expected = model(data.x, data.edge_index)[data.val_mask]
    assert all(torch.equal(logits, expected) for logits in found)


def test_files_keep_two_copies_of_a_tied_tensor():
    data = random_graph()
    model = NormAndTie().eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        assert torch.equal(call_with_state(model, state, data), model(data.x, data.edge_index))


def test_edge_weights_are_refused_for_models_that_take_none():
    data = random_graph()
    data.edge_weight = torch.ones(data.num_edges)
    model, state, _ = two_states(CACHED["SAGE 2"])
    with pytest.raises(ValueError, match="edge weights"):
        call_with_state(model, state, data)


def model():
    torch.manual_seed(0)
    return GCN(8, 16, 2, 3, norm="batch_norm", dropout=0.9).eval()


def test_which_modules_keep_statistics():
    layers = nn.ModuleList([BatchNorm(3), BatchNorm(3, track_running_stats=False), nn.LayerNorm(3)])
    assert list(running_norms(layers)) == ["0.module"]
    layers = nn.ModuleList([InstanceNorm(3), InstanceNorm(3, track_running_stats=True), HeteroBatchNorm(3, 2)])
    assert list(running_norms(layers)) == ["1", "2"]


def test_statistics_are_those_of_the_hidden_rows():
    net, data = model(), random_graph()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = estimate_statistics(net, before, data)
    hidden = net.convs[0](data.x, data.edge_index)  # no dropout
    assert torch.allclose(state["norms.0.module.running_mean"], hidden.mean(0), atol=1e-6)
    assert torch.allclose(state["norms.0.module.running_var"], hidden.var(0), atol=1e-5)
    assert int(state["norms.0.module.num_batches_tracked"]) == 1
    for name, value in net.state_dict().items():  # nobody else's tensors are written to
        assert torch.equal(value, before[name]), name
    assert not net.training
    assert net.norms[0].module.momentum == 0.1
    assert not net.norms[0].module.training


def test_estimates_do_not_depend_on_what_was_there():
    net, data = model(), random_graph()
    first = estimate_statistics(net, net.state_dict(), data)
    other = dict(net.state_dict())
    other["norms.0.module.running_mean"] = torch.full((16,), 7.0)
    second = estimate_statistics(net, other, data)
    assert all(torch.equal(first[name], second[name]) for name in first)


class Normed(nn.Module):
    """A matrix and a normalisation, which may be called twice."""

    def __init__(self, norm, *args, twice=False):
        super().__init__()
        self.lin, self.norm, self.args, self.twice = nn.Linear(8, 3), norm, args, twice

    def forward(self, x, edge_index):
        hidden = self.lin(x)
        if self.twice:
            self.norm(2 * hidden, *self.args)
        return self.norm(hidden, *self.args)


TWO_HALVES = torch.arange(60) % 2


@pytest.mark.parametrize(
    ("norm", "args"),
    [
        (BatchNorm(3), ()),
        (InstanceNorm(3, track_running_stats=True), ()),
        (InstanceNorm(3, track_running_stats=True), (TWO_HALVES,)),
        (HeteroBatchNorm(3, 2), (TWO_HALVES,)),
    ],
    ids=["batch", "instance", "two instances", "two types"],
)
@pytest.mark.parametrize("twice", [False, True])
def test_all_kinds_take_the_mean_over_their_calls(norm, args, twice):
    net, data = Normed(norm, *args, twice=twice).eval(), random_graph(60, seed=1)
    (prefix,) = running_norms(net)
    before = {name: torch.rand_like(value, dtype=torch.float) for name, value in net.state_dict().items()}
    state = estimate_statistics(net, before, data)
    hidden = data.x @ before["lin.weight"].t() + before["lin.bias"]
    groups = [2 * hidden, hidden] if twice else [hidden]
    if args:
        split = [[group[TWO_HALVES.eq(i)] for group in groups] for i in range(2)]
        if isinstance(norm, InstanceNorm):
            groups = [part for half in split for part in half]
    if isinstance(norm, HeteroBatchNorm):
        mean = torch.stack([torch.stack([part.mean(0) for part in half]).mean(0) for half in split])
        var = torch.stack([torch.stack([part.var(0, correction=0) for part in half]).mean(0) for half in split])
    else:
        mean = torch.stack([group.mean(0) for group in groups]).mean(0)
        var = torch.stack([group.var(0) for group in groups]).mean(0)
    torch.testing.assert_close(state[f"{prefix}.running_mean"], mean)
    torch.testing.assert_close(state[f"{prefix}.running_var"], var, rtol=1e-5, atol=1e-5)
    assert not any(module.training for module in net.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
