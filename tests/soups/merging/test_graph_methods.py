"""Methods that look at what networks compute: Fisher, RegMean and distillation."""

import numpy as np
import pytest
import torch
from models import NormAndTie
from soup_helpers import random_states
from torch import nn
from torch_geometric.nn import GAT, GCN, GIN, GraphSAGE

from graphsparse.nn import accelerate
from graphsparse.soups import merge, route
from graphsparse.testing import random_graph

KINDS = {
    "GCN": lambda: GCN(8, 6, 2, 3, dropout=0.5),
    "GAT": lambda: GAT(8, 6, 2, 3, heads=2),
    "GIN with BatchNorm": lambda: GIN(8, 6, 2, 3, norm="batch_norm"),
    "tied": NormAndTie,
}


class Linear(nn.Module):
    """One matrix without a graph."""

    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(8, 3)

    def forward(self, x, edge_index):
        return self.lin(x)


def own(num):
    """Owners of the 60 nodes, by turns."""
    return torch.arange(60) % num


def loaded(make_model, state):
    model = make_model().eval()
    model.load_state_dict(state)
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_fisher_is_the_mean_weighted_by_squared_gradients_of_each_node_and_class(kind):
    make, data, num = KINDS[kind], random_graph(), 3
    states, owner = random_states(make, num), torch.full((60,), -1)
    owner[:18] = torch.arange(18) % num  # six nodes each
    found = merge(states, make(), data, "fisher", responsibility=owner)
    total, weights = {}, {}
    for i, state in enumerate(states):
        model = loaded(make, state)
        named = dict(model.named_parameters())
        diagonal = {name: torch.zeros_like(parameter) for name, parameter in named.items()}
        for v in (owner == i).nonzero():
            for c in range(3):
                logits = model(data.x, data.edge_index)[v].squeeze(0)
                log_p = logits.log_softmax(0)[c]
                grads = torch.autograd.grad(log_p, list(named.values()))
                for name, grad in zip(named, grads, strict=True):
                    diagonal[name] += log_p.exp().detach() * grad**2 / 6
        length = sum(value.square().sum() for value in diagonal.values()).sqrt()
        for name, value in diagonal.items():
            weight = (value / length).clamp(min=1e-10).double()
            total[name] = total.get(name, 0) + weight * state[name]
            weights[name] = weights.get(name, 0) + weight
    for name, value in total.items():
        torch.testing.assert_close(found.state_dict[name], (value / weights[name]).float(), rtol=1e-4, atol=1e-5)


def test_fisher_that_is_constant_gives_the_mean():
    """One class has the probability 1 whatever the weights."""
    states = random_states(lambda: GCN(8, 6, 2, 1), 3)
    found = merge(states, GCN(8, 6, 2, 1), random_graph(), "fisher", nodes=2)
    mean = merge(states, GCN(8, 6, 2, 1), method="mean")
    for name, value in mean.state_dict.items():
        torch.testing.assert_close(found.state_dict[name], value)


def test_fisher_draws_nodes_from_those_that_a_network_answers_for():
    states, data = random_states(KINDS["GCN"], 2), random_graph()
    drawn = [merge(states, KINDS["GCN"](), data, "fisher", nodes=3, seed=seed).state_dict for seed in (0, 0, 1)]
    name = "convs.0.lin.weight"
    assert torch.equal(drawn[0][name], drawn[1][name])
    assert not torch.equal(drawn[0][name], drawn[2][name])
    own = [torch.tensor([4, 7, 9]), torch.tensor([1])]
    three = merge(states, KINDS["GCN"](), data, "fisher", nodes=3, seed=5, responsibility=own).state_dict
    every = merge(states, KINDS["GCN"](), data, "fisher", nodes=50, seed=6, responsibility=own).state_dict
    torch.testing.assert_close(three[name], every[name])


def ridge_to_mean(rows, matrices, ridge):
    """Least squares of all rows under each other, those of the ridge below, by numpy."""
    mean = sum(matrices) / len(matrices)
    scale = sum((x.square().sum(0) / len(x)).mean() for x in rows)
    root = float(ridge * scale) ** 0.5
    left = [x.numpy() / len(x) ** 0.5 for x in rows] + [np.eye(len(mean)) * root]
    right = [(x @ w).numpy() / len(x) ** 0.5 for x, w in zip(rows, matrices, strict=True)] + [mean.numpy() * root]
    return np.linalg.lstsq(np.concatenate(left), np.concatenate(right), rcond=None)[0]


@pytest.mark.parametrize("ridge", [1e-3, 0.5])
def test_regmean_is_the_least_squares_solution_of_a_matrix(ridge):
    data, states = random_graph(), random_states(Linear, 3)
    nodes = [torch.arange(0, 10), torch.arange(5, 40), torch.tensor([50, 3])]
    found = merge(states, Linear(), data, "regmean", responsibility=nodes, ridge=ridge)
    rows = [data.x[index].double() for index in nodes]
    expected = ridge_to_mean(rows, [state["lin.weight"].double().t() for state in states], ridge)
    np.testing.assert_allclose(found.state_dict["lin.weight"].t().numpy(), expected, atol=1e-6)
    torch.testing.assert_close(found.state_dict["lin.bias"], sum(state["lin.bias"] for state in states) / 3)
    assert [(entry["matrix"], entry["rows"]) for entry in found.trace] == [("lin.weight", 47)]


def test_regmean_takes_inputs_of_attention_before_aggregation():
    make, data = KINDS["GAT"], random_graph()
    states = random_states(make, 2)
    found = merge(states, make(), data, "regmean", responsibility=own(2))
    rows = []
    for i, state in enumerate(states):
        model = loaded(make, state)
        with torch.no_grad():
            hidden = model.convs[0](data.x, data.edge_index).relu()
        rows.append(hidden[own(2) == i].double())
    expected = ridge_to_mean(rows, [state["convs.1.lin.weight"].double().t() for state in states], 1e-3)
    np.testing.assert_allclose(found.state_dict["convs.1.lin.weight"].t().numpy(), expected, atol=1e-5)
    mean = merge(states, make(), method="mean").state_dict
    assert torch.equal(found.state_dict["convs.1.att_src"], mean["convs.1.att_src"])


def test_regmean_leaves_a_matrix_alone_that_is_multiplied_from_both_sides_or_by_nothing_but_zeros():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.both, self.dead = nn.Parameter(torch.randn(8, 4)), nn.Parameter(torch.randn(4, 3))

        def forward(self, x, edge_index):
            return (x @ self.both @ self.both.t())[:, :3] + (0 * x[:, :4]) @ self.dead

    states = random_states(Tied, 2)
    found, mean = (merge(states, Tied(), random_graph(), method).state_dict for method in ("regmean", "mean"))
    assert torch.equal(found["both"], mean["both"])
    torch.testing.assert_close(found["dead"], mean["dead"])


def test_regmean_refuses_layers_whose_products_it_cannot_see():
    model = accelerate(KINDS["GCN"]())
    with pytest.raises(ValueError, match="accelerated"):
        merge([model.state_dict()] * 2, model, random_graph(), "regmean")


def aggregate(data):
    """Sums over neighbours."""
    return torch.zeros_like(data.x).index_add_(0, data.edge_index[1], data.x[data.edge_index[0]])


def sides(data):
    """Owners that a network can tell from what it sees."""
    return (aggregate(data)[:, 0] > 0).long()


def kl(model, data, states, make, owner):
    """Mean divergence of a model from the networks that answer for the nodes."""
    total = 0.0
    with torch.no_grad():
        log_q = model(data.x, data.edge_index).log_softmax(1)
        for i, state in enumerate(states):
            p = loaded(make, state)(data.x, data.edge_index).softmax(1)[owner == i]
            total += float((p * (p.log() - log_q[owner == i])).sum())
    return total / len(owner)


@pytest.mark.parametrize("kind", KINDS)
def test_distilled_networks_say_what_those_say_that_answer(kind):
    make, data = KINDS[kind], random_graph()
    owner, states = sides(data), random_states(make, 2)
    found = merge(states, make(), data, "distil", responsibility=owner, epochs=60)
    before = kl(loaded(make, merge(states, make(), method="mean").state_dict), data, states, make, owner)
    after = kl(loaded(make, found.state_dict), data, states, make, owner)
    losses = [entry["loss"] for entry in found.trace]
    assert len(losses) == 60
    assert after < 0.5 * before
    assert losses[-1] == pytest.approx(after, rel=0.3)
    if kind in ("GCN", "GAT"):  # no statistics, so that the loss of the first step is that of the mean
        assert losses[0] == pytest.approx(before, rel=1e-4)


def test_a_step_of_distillation_is_one_of_adam():
    make, data = KINDS["GCN"], random_graph()
    states = random_states(make, 2)
    found = merge(states, make(), data, "distil", responsibility=own(2), epochs=1, lr=0.1).state_dict
    model = loaded(make, merge(states, make(), method="mean").state_dict)
    log_q = model(data.x, data.edge_index).log_softmax(1)
    teachers = [loaded(make, state)(data.x, data.edge_index).detach().softmax(1) for state in states]
    target = torch.where((own(2) == 0).unsqueeze(1), *teachers)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    (-(target * log_q).sum() / 60).backward()
    optimizer.step()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(found[name], value)


def test_networks_of_disjoint_classes_are_distilled_into_one_of_all():
    def make(outputs=3):
        return GraphSAGE(8, 16, 2, outputs, aggr="sum")

    data, classes = random_graph(), [[2, 0], [1]]
    states, owner = [make(len(known)).state_dict() for known in classes], sides(data)
    found = merge(states, make(), data, "distil", responsibility=owner, classes=classes)
    predicted = loaded(make, found.state_dict)(data.x, data.edge_index).argmax(1)
    asked = route(states, make(), data, owner, classes).argmax(1)
    assert torch.equal(asked == 1, owner == 1)
    assert float((predicted == asked).float().mean()) > 0.9


@pytest.mark.parametrize("method", ["fisher", "distil"])
def test_neither_a_frozen_layer_nor_one_that_keeps_its_graph_matters(method):
    graphs, make, given = (
        [random_graph(seed=i) for i in range(2)],
        KINDS["GCN"],
        {"epochs": 2} if method == "distil" else {"nodes": 2},
    )
    states = random_states(make, 2)
    found = merge(states, make(), graphs, method, **given).state_dict
    other = GCN(8, 6, 2, 3, cached=True)
    other.convs[0].requires_grad_(False)
    other(graphs[0].x, graphs[0].edge_index)
    again = merge(states, other, graphs, method, **given).state_dict
    assert all(torch.equal(again[name], value) for name, value in found.items())


def test_distillation_over_several_graphs_keeps_statistics_of_all():
    make = KINDS["GIN with BatchNorm"]
    graphs = [random_graph(seed=i) for i in range(2)]
    found = merge(random_states(make, 2), make(), graphs, "distil", epochs=5).state_dict
    model = loaded(make, found)
    with torch.no_grad():
        first = [model.convs[0].nn.lins[0](graph.x + aggregate(graph)) for graph in graphs]
    mean = torch.stack([hidden.mean(0) for hidden in first]).mean(0)
    torch.testing.assert_close(found["convs.0.nn.norms.0.module.running_mean"], mean, rtol=1e-3, atol=1e-4)
