import pytest
import torch
import torch.nn.functional as F
from models import MODELS
from soup_helpers import random_states, trained_states

from graphsparse.soups.evaluation.evaluator import Evaluator
from graphsparse.soups.recipes.es2025 import Es2025
from graphsparse.soups.recipes.learned import learned_soup
from graphsparse.testing import random_graph


def released(states, model, data, lr, epochs, period, weight_decay):
    """Learned souping as it was released, with all states in memory: returns the soup of the last epoch."""
    names = list(states[0])
    stacked = {name: torch.stack([state[name] for state in states]) for name in names}
    raw = torch.ones(len(names), len(states), dtype=torch.float64).softmax(1).requires_grad_()
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([raw, scale], lr=lr, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, period)

    def soup():
        shares = raw.softmax(1)
        return {name: torch.einsum("i,i...->...", share, stacked[name]) for name, share in zip(names, shares)}  # noqa: B905

    for _ in range(epochs):
        optimizer.zero_grad()
        logits = scale * torch.func.functional_call(model, soup(), (data.x, data.edge_index))
        F.cross_entropy(logits[data.val_mask], data.y[data.val_mask]).backward()
        optimizer.step()
        schedule.step()
    return {name: value.detach() for name, value in soup().items()}, raw.detach().softmax(1)


@pytest.mark.parametrize("kind", ["GCN", "GAT", "GraphSAGE"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_released_rule(kind, weight_decay):
    data = random_graph()
    data.x = data.x.double()

    def make_model():
        return MODELS[kind]().double()

    states = random_states(make_model, 4)
    evaluator = Evaluator(make_model(), data)
    result = learned_soup(
        states, evaluator, compat=Es2025(weight_decay=weight_decay, restart_every=3), lr=8.0, epochs=7
    )
    expected, shares = released(states, make_model().eval(), data, 8.0, 7, 3, weight_decay)
    for row, (name, value) in enumerate(expected.items()):
        torch.testing.assert_close(result.state_dict[name], value, rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(result.weights[name], shares[row], rtol=1e-9, atol=1e-10)
    assert float((4 * shares - 1).abs().max()) > 0.01  # the start was left
    assert result.score == evaluator.score(result.state_dict)
    assert [("score" in entry) for entry in result.trace] == [True] + [False] * 6 + [True]


@pytest.mark.parametrize("groups", ["tensor", "layer", "global"])
def test_loss_falls(groups):
    data = random_graph(120)
    states = trained_states(MODELS["GraphSAGE"], 3, data) + random_states(MODELS["GraphSAGE"], 2)
    evaluator = Evaluator(MODELS["GraphSAGE"](), data)
    result = learned_soup(states, evaluator, groups=groups, epochs=30)
    losses = [entry["loss"] for entry in result.trace[1:]]
    assert losses[-1] < 0.7 * losses[0]
    if groups == "global":
        assert isinstance(result.weights, torch.Tensor)


def test_random_ingredients_are_left_out():
    data = random_graph(120)
    states = trained_states(MODELS["GCN"], 2, data) + random_states(MODELS["GCN"], 2)
    entries = []
    result = learned_soup(
        states,
        Evaluator(MODELS["GCN"](), data, metric=lambda logits, y: -float(F.cross_entropy(logits, y))),
        groups="global",
        epochs=60,
        lr=0.3,
        log=entries.append,
    )
    assert float(result.weights[:2].sum()) > 0.9
    assert len(entries) == 60


def test_dropout_follows_the_seed():
    data = random_graph()
    states = random_states(MODELS["GCN"], 3)
    evaluator = Evaluator(MODELS["GCN"](), data)

    def losses(seed, dropout=True):
        # The halves of another seed are others: compare the whole.
        found = learned_soup(states, evaluator, epochs=3, dropout=dropout, seed=seed, split_validation=False)
        return [entry["loss"] for entry in found.trace[1:]]

    assert losses(0) == losses(0) != losses(1)
    assert losses(0, dropout=False) == losses(1, dropout=False)


def test_unknown_rule():
    with pytest.raises(ValueError, match="'compat' must be None"):
        learned_soup([], None, compat="2025")
