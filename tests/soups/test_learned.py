import math

import pytest
import torch
import torch.nn.functional as F
from models import MODELS, NormAndTie
from resuming import same_state
from soup_helpers import HashJudge, random_states, trained_states
from torch_geometric import nn
from torch_geometric.utils import subgraph

from graphsparse.soups import Evaluator, combine, learned_soup, uniform_soup
from graphsparse.soups.recipes import learned
from graphsparse.soups.recipes.learned import inner_products, state_gradient
from graphsparse.testing import random_graph

GCN = MODELS["GCN"]


def explicit(kind, states, evaluator, shares, names):
    """Loss by autograd through the mixture itself, with all states in memory; derivative of the shares."""
    shares = shares.clone().requires_grad_()
    mixed = {
        name: sum(w * state[name] for w, state in zip(row, states, strict=True))
        for name, row in zip(names, shares, strict=True)
    }
    data = evaluator.data
    logits = torch.func.functional_call(evaluator.model, mixed, (data.x, data.edge_index))[data.mask]
    loss = F.cross_entropy(logits, data.y[data.mask])
    loss.backward()
    return loss.item(), shares.grad


@pytest.mark.parametrize("kind", ["GCN", "GraphSAGE", "GAT", "GIN", "GCNII"])
@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_derivative_of_the_shares_is_autograd_through_the_mixture(kind, dtype, close):
    data = random_graph()
    data.x = data.x.to(dtype)

    def make_model():
        return MODELS[kind]().to(dtype)

    states, evaluator = random_states(make_model, 4), Evaluator(make_model(), data)
    names = list(states[0])
    shares = torch.randn(len(names), 4).double().softmax(1)
    mixture = combine(states, dict(zip(names, shares, strict=True)))
    loss, gradient = state_gradient(evaluator.model, mixture, names, evaluator.data)
    expected_loss, expected = explicit(kind, states, evaluator, shares.to(dtype), names)
    assert loss == pytest.approx(expected_loss, rel=10 * close)
    torch.testing.assert_close(inner_products(states, gradient).to(dtype), expected, rtol=1e3 * close, atol=close)


@pytest.mark.parametrize("kind", ["GCN", "GAT", "GraphSAGE"])
def test_steps_are_those_of_adam_through_the_mixture(kind):
    """The rule with all states in memory, autograd through the mixture, and a rate that falls along a cosine to 0."""
    data = random_graph()
    data.x = data.x.double()

    def make_model():
        return MODELS[kind]().double()

    states, evaluator = random_states(make_model, 4), Evaluator(make_model(), data)
    names, losses = list(states[0]), []
    raw = torch.zeros(len(names), 4, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([raw], lr=0.3)
    for epoch in range(4):
        optimizer.param_groups[0]["lr"] = 0.3 * (1 + math.cos(math.pi * epoch / 4)) / 2
        loss, gradient = explicit(kind, states, evaluator, raw.detach().softmax(1), names)
        losses.append(loss)
        optimizer.zero_grad()
        raw.softmax(1).backward(gradient)
        optimizer.step()
    entries = []
    found = learned_soup(states, evaluator, epochs=4, lr=0.3, split_validation=False, log=entries.append)
    assert [entry["loss"] for entry in entries[1:]] == pytest.approx(losses, rel=1e-9)
    last = combine(states, dict(zip(names, raw.detach().softmax(1), strict=True)))
    assert entries[-1]["val"] == evaluator.score(last)
    assert found.val == max(entry["val"] for entry in entries)


@pytest.mark.parametrize("num_parts", [1, 4])
def test_loss_falls(num_parts):
    data = random_graph(120)
    states = trained_states(MODELS["GraphSAGE"], 3, data) + random_states(MODELS["GraphSAGE"], 2)
    result = learned_soup(states, Evaluator(MODELS["GraphSAGE"](), data), epochs=32, num_parts=num_parts)
    losses = [entry["loss"] for entry in result.trace[1:]]
    assert sum(losses[-4:]) < 0.7 * sum(losses[:4])


def test_random_ingredients_are_left_out():
    data = random_graph(120)
    states = trained_states(GCN, 2, data) + random_states(GCN, 2)
    metric = lambda logits, y: -float(F.cross_entropy(logits, y))  # noqa: E731
    result = learned_soup(states, Evaluator(GCN(), data, metric=metric), epochs=60, lr=1.0, split_validation=False)
    assert all(float(shares[:2].sum()) > 0.99 for shares in result.weights.values())


def scored(judge, function):
    judge.score = function
    judge.halves = lambda seed: (judge, judge)
    return judge


def test_the_uniform_soup_is_returned_unless_it_is_exceeded():
    states = random_states(GCN, 3)
    judge = scored(HashJudge(GCN()), lambda state: 0.5)
    result = learned_soup(states, judge)
    assert same_state(result.state_dict, uniform_soup(states, judge).state_dict)
    assert torch.equal(result.weights, torch.full((3,), 1 / 3, dtype=torch.float64))


def test_an_ingredient_is_returned_unless_it_is_exceeded():
    states = random_states(GCN, 3)
    judge = scored(HashJudge(GCN()), lambda state: 0.9 if same_state(state, states[1]) else 0.5)
    result = learned_soup(states, judge)
    assert same_state(result.state_dict, states[1])
    assert result.weights.tolist() == [0, 1, 0]
    assert result.trace[0] == {"epoch": 0, "val": 0.9}


@pytest.mark.parametrize("best", [1, 2, 4])
def test_the_best_epoch_is_kept(best):
    calls = []

    def score(state):
        calls.append(state)
        return {3 + 1 + best: 0.9}.get(len(calls), 0.1)  # three ingredients, the uniform soup, then the epochs

    states = random_states(GCN, 3)
    result = learned_soup(states, scored(HashJudge(GCN()), score), epochs=4)
    assert same_state(result.state_dict, calls[3 + best])
    assert result.val == 0.9
    assert [entry["val"] for entry in result.trace].index(0.9) == best


def test_the_seed_of_the_caller_is_left_alone():
    states, judge = random_states(GCN, 2), HashJudge(GCN())
    torch.manual_seed(4)
    expected = torch.rand(1)
    torch.manual_seed(4)
    learned_soup(states, judge, epochs=2, num_parts=4)
    assert torch.equal(torch.rand(1), expected)


def test_buffers_and_further_names_follow_their_layer():
    states = random_states(NormAndTie, 3)
    for state in states:
        state["norm.weight"], state["norm.bias"] = torch.rand(2, 16)
    found = learned_soup(states, scored(HashJudge(NormAndTie()), rising()), epochs=2).weights
    model = NormAndTie()
    assert set(found) == {name for name, value in model.state_dict().items() if value.is_floating_point()}
    assert torch.equal(found["third.lin.weight"], found["second.lin.weight"])
    beside = (found["norm.weight"] + found["norm.bias"]) / 2
    torch.testing.assert_close(found["norm.running_mean"], beside)
    torch.testing.assert_close(found["norm.running_var"], beside)
    assert not torch.equal(found["norm.weight"], found["norm.bias"])


def test_buffers_of_a_layer_without_parameters_follow_all():
    def make_model():
        model = GCN()
        model.register_module("free", torch.nn.BatchNorm1d(2, affine=False))
        return model

    found = learned_soup(random_states(make_model, 2), scored(HashJudge(make_model()), rising()), epochs=2).weights
    parameters = [found[name] for name, _ in make_model().named_parameters()]
    torch.testing.assert_close(found["free.running_mean"], torch.stack(parameters).mean(dim=0))


def rising():
    """A metric by which every later state is better."""
    count = iter(range(1000))
    return lambda state: next(count) / 1000


def test_a_loss_of_ones_own():
    data = random_graph()
    data.y = torch.randn(data.num_nodes)
    states = trained_states(GCN, 2, random_graph()) + random_states(GCN, 1)

    def error(logits, y):
        return (logits.mean(dim=1) - y).square().mean()

    evaluator = Evaluator(GCN(), data, metric=lambda logits, y: -float(error(logits, y)))
    with pytest.raises(ValueError, match=r"give 'loss'.*'data.y' \[10\] of torch.float32"):
        learned_soup(states, evaluator, epochs=2)
    found = learned_soup(states, evaluator, epochs=20, loss=error, split_validation=False)
    assert found.val > max(found.ingredient_vals)


def test_too_few_outputs():
    data = random_graph()
    data.y = data.y + 1
    with pytest.raises(ValueError, match=r"runs from 1 to 3, but the model returns 3 outputs"):
        learned_soup(random_states(GCN, 2), Evaluator(GCN(), data, metric=lambda logits, y: 0.5), epochs=2)


def test_nothing_to_learn():
    judge = HashJudge(torch.nn.ReLU())
    judge.score = lambda state: 0.5
    with pytest.raises(ValueError, match="nothing to learn"):
        learned_soup([{}], judge)


def steps(monkeypatch, data=None, **options):
    """The graphs and weights that a soup takes its steps on, and the evaluator that it was given."""
    found = []
    gradient = learned.state_gradient

    def noted(model, state, names, data, *, weight, **options):
        found.append((data, weight))
        return gradient(model, state, names, data, weight=weight, **options)

    monkeypatch.setattr(learned, "state_gradient", noted)
    data = random_graph(90) if data is None else data
    data.id = torch.arange(data.num_nodes)
    data.edge_weight = torch.rand(data.num_edges)
    evaluator = Evaluator(GCN(), data)
    learned_soup(random_states(GCN, 2), evaluator, **options)
    return found, evaluator


def weighted(edge_index, edge_weight):
    return {(u, v): w for u, v, w in zip(*edge_index.tolist(), edge_weight.tolist(), strict=True)}


@pytest.mark.parametrize("kind", ["GCN", "GraphSAGE", "GAT", "BatchNorm and a tied weight"])
def test_all_parts_in_each_step_is_the_whole_graph(kind):
    data = random_graph(90)
    data.x = data.x.double()

    def make_model():
        return MODELS[kind]().double()

    states = random_states(make_model, 3)
    expected = learned_soup(states, Evaluator(make_model(), data), epochs=8)
    found = learned_soup(states, Evaluator(make_model(), data), num_parts=5, parts_per_step=5, epochs=8)
    assert len(found.trace) == len(expected.trace) == 9
    for one, other in zip(found.trace, expected.trace, strict=True):
        assert one == pytest.approx(other, rel=1e-9)
    for name, value in expected.state_dict.items():
        torch.testing.assert_close(found.state_dict[name], value, rtol=1e-8, atol=1e-10)


def test_parts_are_walked_through_and_keep_the_edges_between_them(monkeypatch):
    found, evaluator = steps(monkeypatch, num_parts=6, parts_per_step=2, epochs=9)
    assert len(found) == 9
    data = evaluator.data
    for walk in range(3):
        seen = torch.cat([batch.id for batch, _ in found[3 * walk : 3 * walk + 3]])
        assert torch.equal(seen.sort().values, torch.arange(90))
    assert len({tuple(batch.id.tolist()) for batch, _ in found}) > 3  # the walks differ
    for batch, _ in found:
        expected = weighted(*subgraph(batch.id, data.edge_index, data.edge_weight))
        assert weighted(batch.id[batch.edge_index], batch.edge_weight) == expected


def test_losses_of_a_walk_weigh_every_node_alike(monkeypatch):
    found, evaluator = steps(monkeypatch, num_parts=6, parts_per_step=2, epochs=3)
    fit, _ = evaluator.halves(0)
    # The weight is that of the mean over the nodes that are there; a node has the same one in every step.
    assert sum(weight for _, weight in found) == pytest.approx(3)
    for batch, weight in found:
        assert weight / int(batch.mask.sum()) == pytest.approx(3 / fit.num_nodes)
        assert (batch.y[~batch.mask] == -1).all()


def test_steps_without_judged_nodes_are_passed_over(monkeypatch):
    found, _ = steps(monkeypatch, num_parts=60, parts_per_step=1, epochs=40)
    assert len(found) == 40
    assert all(batch.mask.any() for batch, _ in found)
    assert all(batch.num_nodes < 10 for batch, _ in found)


def test_judged_nodes_are_spread_over_the_parts(monkeypatch):
    data = random_graph(600)
    data.val_mask = torch.arange(600) < 120  # of which random nodes would be in clusters
    found, _ = steps(monkeypatch, data, num_parts=6, epochs=6)
    counts = [int(batch.mask.sum()) for batch, _ in found]
    assert max(counts) <= 2 * min(counts)


def test_accepts_after_every_walk():
    data = random_graph(90)
    states = random_states(GCN, 2)
    result = learned_soup(states, Evaluator(GCN(), data), num_parts=7, parts_per_step=3, epochs=8)
    assert [entry["epoch"] for entry in result.trace if "val" in entry] == [0, 3, 6, 8]


@pytest.mark.parametrize(
    ("options", "error", "name"),
    [
        ({"num_parts": 0}, ValueError, "num_parts"),
        ({"num_parts": 61}, ValueError, "num_parts"),
        ({"num_parts": 4.0}, TypeError, "num_parts"),
        ({"parts_per_step": 0}, ValueError, "parts_per_step"),
        ({"num_parts": 4, "parts_per_step": 5}, ValueError, "parts_per_step"),
        ({"epochs": 0}, ValueError, "epochs"),
        ({"epochs": 2.0}, TypeError, "epochs"),
        ({"lr": 0.0}, ValueError, "lr"),
        ({"lr": math.inf}, ValueError, "lr"),
        ({"lr": "0.1"}, TypeError, "lr"),
        ({"loss": 3}, TypeError, "loss"),
    ],
)
def test_bad_options(options, error, name):
    with pytest.raises(error, match=f"'{name}'"):
        learned_soup(random_states(GCN, 2), Evaluator(GCN(), random_graph()), **options)


def test_a_layer_that_keeps_its_first_graph():
    def make_model():
        return nn.GCN(8, 16, 2, 3, cached=True)

    with pytest.raises(ValueError, match="cached=True"):
        learned_soup(random_states(make_model, 2), Evaluator(make_model(), random_graph()), num_parts=8)
