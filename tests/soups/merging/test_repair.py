"""A mean of networks in which each channel varies as it does in them."""

import copy

import pytest
import torch
from torch import nn
from torch_geometric.nn import GCN, GIN, GCNConv, GraphSAGE, Sequential

from graphsparse.soups import align, combine, merge
from graphsparse.testing import random_graph

#: A model, and the layers that give what is before an activation.
CASES = {
    "GCN": (lambda: GCN(8, 6, 3, 3), ["convs.0", "convs.1", "convs.2"]),
    "SAGE": (lambda: GraphSAGE(8, 6, 2, 3), ["convs.0", "convs.1"]),
    "SAGE that projects": (
        lambda: GraphSAGE(8, 6, 2, 3, project=True),
        ["convs.0.lin", "convs.0", "convs.1.lin", "convs.1"],
    ),
    "GIN": (lambda: GIN(8, 6, 2, 3), [f"convs.{i}.nn.lins.{j}" for i in "01" for j in "01"]),
    "BatchNorm": (lambda: GCN(8, 6, 3, 3, norm="batch_norm"), ["norms.0", "norms.1", "convs.2"]),
    "GIN, BatchNorm": (
        lambda: GIN(8, 6, 2, 3, norm="batch_norm"),
        ["convs.0.nn.norms.0", "norms.0", "convs.1.nn.norms.0", "convs.1"],
    ),
}


def networks(make, num):
    models = []
    for seed in range(num):
        torch.manual_seed(seed)
        models.append(make().eval())
        with torch.no_grad():
            for name, value in models[-1].state_dict().items():
                if value.is_floating_point() and value.dim() == 1:
                    value.copy_(torch.rand(value.shape) + ("var" in name))
    return models, [model.state_dict() for model in models]


def logits(model, state, data):
    model = copy.deepcopy(model)
    model.load_state_dict(state)
    with torch.no_grad():
        return model(data.x, data.edge_index)


def seen(model, state, data, names):
    """Return what layers give, float64, by their names."""
    model, found = copy.deepcopy(model), {}
    model.load_state_dict(state)
    for name in names:
        model.get_submodule(name).register_forward_hook(lambda _, args, out, name=name: found.update({name: out}))
    with torch.no_grad():
        model(data.x, data.edge_index)
    return {name: out.double() for name, out in found.items()}


def deviation(variances):
    return torch.stack(list(variances)).mean(0).sqrt()


@pytest.mark.parametrize("name", CASES)
def test_moments(name):
    """In every layer each channel has the mean and the deviation of the networks, which it has not in their mean."""
    make, layers = CASES[name]
    models, states = networks(make, 3)
    data = random_graph()
    aligned = align(states, models[0], data)
    merged = merge(aligned, models[0], data, "repair")
    assert merged.weights is None
    assert [entry["constant"] for entry in merged.trace] == [0] * len(layers)
    of_each = [seen(models[0], state, data, layers) for state in aligned]
    of_mean, of_merged = (
        seen(models[0], state, data, layers) for state in (combine(aligned, torch.full((3,), 1 / 3)), merged.state_dict)
    )
    for layer in layers:
        mean = torch.stack([own[layer].mean(0) for own in of_each]).mean(0)
        target = deviation(own[layer].var(0, correction=0) for own in of_each)
        found = of_merged[layer]
        assert torch.allclose(found.mean(0), mean, atol=1e-4 * float(mean.abs().max()), rtol=1e-4), layer
        assert torch.allclose(found.std(0, correction=0), target, rtol=1e-4), layer
        assert not torch.allclose(of_mean[layer].std(0, correction=0), target, rtol=1e-2)


@pytest.mark.parametrize("name", CASES)
def test_copies_give_the_copy(name):
    (model,), (state,) = networks(CASES[name][0], 1)
    data = random_graph()
    merged = merge([state] * 3, model, data, "repair")
    expected = logits(model, state, data)
    assert torch.allclose(logits(model, merged.state_dict, data), expected, rtol=0, atol=1e-5 * expected.abs().max())
    if "Norm" not in name:
        assert all(torch.allclose(merged.state_dict[key], value, atol=1e-5) for key, value in state.items())


def test_only_scale_and_bias():
    """Every map is the mean's but for a factor of each channel, and with last=1 all but the last are the mean's."""
    (model, _), states = networks(lambda: GCN(8, 6, 2, 3), 2)
    data, mean = random_graph(), combine(states, torch.full((2,), 0.5))
    found = merge(states, model, data, "repair").state_dict
    assert found.keys() == mean.keys()
    for i in range(2):
        ratio = found[f"convs.{i}.lin.weight"] / mean[f"convs.{i}.lin.weight"]
        assert torch.allclose(ratio, ratio[:, :1].expand_as(ratio), rtol=1e-4)
        assert (ratio[:, 0] > 1).all()
    last = merge(states, model, data, "repair", last=1)
    assert [entry["map"] for entry in last.trace] == ["convs.1"]
    for name, value in mean.items():
        assert torch.equal(last.state_dict[name], value) == name.startswith("convs.0")
    both = merge(states, model, data, "repair", last=2).state_dict
    assert all(torch.equal(value, both[name]) for name, value in found.items())


def test_dead_channels():
    """A channel that is constant keeps its scale and gets its mean, without a division by 0."""
    (model, _), states = networks(lambda: GCN(8, 6, 2, 3), 2)
    for state, bias in zip(states, (-1.0, -3.0), strict=True):
        state["convs.0.lin.weight"][2] = 0
        state["convs.0.bias"][2] = bias
    merged = merge(states, model, random_graph(), "repair")
    assert [entry["constant"] for entry in merged.trace] == [1, 0]
    assert all(value.isfinite().all() for value in merged.state_dict.values())
    assert merged.state_dict["convs.0.lin.weight"][2].abs().max() == 0
    assert merged.state_dict["convs.0.bias"][2] == pytest.approx(-2)
    # One that is constant in the mean of networks, and in none of them.
    states[0]["convs.0.lin.weight"][3] = -states[1]["convs.0.lin.weight"][3]
    found = merge(states, model, random_graph(), "repair").state_dict
    assert all(value.isfinite().all() for value in found.values())
    assert found["convs.0.lin.weight"][3].abs().max() == 0


def test_each_network_on_its_nodes():
    """Moments are over the nodes that each network answers for, and each network counts the same."""
    (model, _), states = networks(lambda: GCN(8, 6, 2, 3), 2)
    data, owner = random_graph(), (torch.arange(60) >= 45).long()
    merged = merge(states, model, data, "repair", responsibility=owner).state_dict
    for layer in ("convs.0", "convs.1"):
        outs = [seen(model, state, data, [layer])[layer][owner == i] for i, state in enumerate(states)]
        found = [seen(model, merged, data, [layer])[layer][owner == i] for i in range(2)]
        means = [torch.stack([out.mean(0) for out in each]).mean(0) for each in (outs, found)]
        assert torch.allclose(means[0], means[1], atol=1e-4)
        targets = [deviation(o.var(0, correction=0) for o in each) for each in (outs, found)]
        assert torch.allclose(targets[0], targets[1], rtol=1e-4)


def test_each_network_on_its_graph():
    """Networks may have graphs of their own."""
    (model, _), states = networks(lambda: GCN(8, 6, 2, 3), 2)
    graphs = [random_graph(), random_graph(40, seed=1)]
    merged = merge(states, model, graphs, "repair").state_dict
    pairs = [(*pair, model) for pair in zip(states, graphs, strict=True)]
    targets = deviation(seen(m, s, g, ["convs.1"])["convs.1"].var(0, correction=0) for s, g, m in pairs)
    found = deviation(seen(model, merged, g, ["convs.1"])["convs.1"].var(0, correction=0) for g in graphs)
    assert torch.allclose(found, targets, rtol=1e-4)


def test_without_bias():
    """There is no place for a shift: deviations are met alone, and nothing is added."""
    layers = [(GCNConv(8, 6, bias=False), "x, e -> x"), nn.ReLU(), (GCNConv(6, 3, bias=False), "x, e -> x")]
    (model, _), states = networks(lambda: copy.deepcopy(Sequential("x, e", layers)), 2)
    with torch.no_grad():
        states[1]["module_0.lin.weight"].mul_(-0.5).add_(0.1)
    data, names = random_graph(), ["module_0", "module_2"]
    merged = merge(states, model, data, "repair").state_dict
    assert merged.keys() == states[0].keys()
    of_each, found = [seen(model, state, data, names) for state in states], seen(model, merged, data, names)
    for name in names:
        target = deviation(own[name].var(0, correction=0) for own in of_each)
        assert torch.allclose(found[name].std(0, correction=0), target, rtol=1e-4)


def test_bad_input():
    (model, _), states = networks(lambda: GCN(8, 6, 2, 3), 2)
    for last in (0, 3, 1.5):
        with pytest.raises(ValueError, match=r"'last' must be in \[1, 2\], the number of linear maps"):
            merge(states, model, random_graph(), "repair", last=last)
