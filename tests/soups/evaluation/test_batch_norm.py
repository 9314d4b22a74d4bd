import torch
from torch import nn
from torch_geometric.nn import GCN, BatchNorm

from graphsparse.soups.evaluation.batch_norm import estimate_statistics, running_norms
from graphsparse.soups.evaluation.plain_forward import call_with_state
from graphsparse.testing import random_graph


def model():
    torch.manual_seed(0)
    return GCN(8, 16, 2, 3, norm="batch_norm", dropout=0.9).eval()


def test_which_modules_keep_statistics():
    layers = nn.ModuleList([BatchNorm(3), BatchNorm(3, track_running_stats=False), nn.LayerNorm(3)])
    assert list(running_norms(layers)) == ["0.module"]


def test_statistics_are_those_of_the_hidden_rows():
    net, data = model(), random_graph()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = estimate_statistics(net, before, [data], call_with_state)
    hidden = net.convs[0](data.x, data.edge_index)  # no dropout
    assert torch.allclose(state["norms.0.module.running_mean"], hidden.mean(0), atol=1e-6)
    assert torch.allclose(state["norms.0.module.running_var"], hidden.var(0), atol=1e-5)
    assert int(state["norms.0.module.num_batches_tracked"]) == 1
    for name, value in net.state_dict().items():  # nobody else's tensors are written to
        assert torch.equal(value, before[name]), name
    assert not net.training
    assert net.norms[0].module.momentum == 0.1
    assert not net.norms[0].module.training


def test_several_batches_count_the_same():
    net, parts = model(), [random_graph(seed=1), random_graph(90, seed=2)]
    state = estimate_statistics(net, net.state_dict(), parts, call_with_state)
    means = [net.convs[0](part.x, part.edge_index).mean(0) for part in parts]
    assert torch.allclose(state["norms.0.module.running_mean"], (means[0] + means[1]) / 2, atol=1e-6)


def test_estimates_do_not_depend_on_what_was_there():
    net, data = model(), random_graph()
    first = estimate_statistics(net, net.state_dict(), [data], call_with_state)
    other = dict(net.state_dict())
    other["norms.0.module.running_mean"] = torch.full((16,), 7.0)
    second = estimate_statistics(net, other, [data], call_with_state)
    assert all(torch.equal(first[name], second[name]) for name in first)
