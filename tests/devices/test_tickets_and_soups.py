"""Tickets and soups found on a device that is not the CPU, and their files on the other one."""

import re
from functools import partial

import pytest
import torch
from both_devices import assert_equal, there
from models import MODELS, NormAndTie
from soup_helpers import random_states
from torch_geometric.nn import GCN

from graphsparse.nn import accelerate, shrink
from graphsparse.soups import SOUPS, Evaluator, combine, diagnose, ensemble, mix
from graphsparse.testing import random_graph
from graphsparse.tickets import METHODS, FastGLT, Ticket, Untrained, find_ticket
from graphsparse.training import Training, predict

pytestmark = pytest.mark.cuda

OURS = {name: method for name, method in METHODS.items() if type(method).__module__.startswith("graphsparse.")}
OURS |= {"untrained": Untrained(epochs=3), "fastglt": FastGLT(epochs=3, pretrain=1)}
OURS |= {name: type(OURS[name])(edges_per_round=0.4, weights_per_round=0.6) for name in ("ugs", "wd-glt")}
SOUP_OPTIONS = {"interpolation": {"granularity": 3}, "learned": {"epochs": 2}, "lottery pool": {"target": 0}}
BUILT_IN = {n: partial(s, **SOUP_OPTIONS.get(n, {})) for n, s in SOUPS.items() if "graphsparse." in s.__module__}
MAKERS = {"cached": lambda: GCN(8, 16, 2, 3), "plain": NormAndTie}


def small():
    return GCN(8, 16, 2, 3)


@pytest.mark.parametrize("name", OURS)
def test_tickets(name, device, tmp_path):
    method, data = OURS[name], random_graph()
    sparse = {"edges": {"edge_sparsity": 0.4}, "weights": {"weight_sparsity": 0.6}}
    asked = {key: value for what in method.prunes for key, value in sparse[what].items()}
    ticket = find_ticket(
        lambda: small().to(device), there(data, device), method=method, training=Training(epochs=2), **asked
    )
    ticket.save(tmp_path / "t")
    loaded = Ticket.load(tmp_path / "t")
    expected = predict(loaded.materialize(small), loaded.sparsify(data))
    found = predict(ticket.materialize(small).to(device), ticket.sparsify(there(data, device)))
    assert_equal(found, expected, 1e-3, device)
    again = predict(loaded.materialize(lambda: small().to(device)).to(device), loaded.sparsify(there(data, device)))
    assert_equal(again, expected, 1e-3, device)


def test_a_smaller_model(device):
    model, data = small().to(device), there(random_graph(), device)
    with torch.no_grad():
        model.convs[1].lin.weight[:, 5:] = 0
    less = shrink(model, data)
    assert less.convs[0].lin.weight.shape == (5, 8)
    assert_equal(predict(less, data), predict(model, data).cpu(), 1e-4, device)


def test_a_ticket_of_the_cpu_is_that_of_the_device(device):
    for name in ("random_untrained", "random"):
        asked = {"weight_sparsity": 0.6, "training": Training(epochs=1, lr=0.0, weight_decay=0.0)}
        here, away = (
            find_ticket(
                lambda where=where: small().to(where), there(random_graph(), where), method=METHODS[name], **asked
            )
            for where in ("cpu", device)
        )
        assert_equal(dict(away.weight_masks), dict(here.weight_masks))
        assert_equal(dict(away.state_dict), dict(here.state_dict))


def test_a_ticket_of_a_model_and_a_graph_on_two_devices(device):
    with pytest.raises(ValueError, match=re.escape(f"'model' is on cpu, but 'data.x' is on {device}: move")):
        find_ticket(small, there(random_graph(), device), weight_sparsity=0.5, training=Training(epochs=1))


@pytest.mark.parametrize(("kind", "states_there"), [("cached", True), ("cached", False), ("plain", False)])
@pytest.mark.parametrize("name", BUILT_IN)
def test_soups(name, kind, states_there, device):
    """Ingredients may stay on the CPU, or in a store, while they are judged on a device."""
    torch.manual_seed(0)
    model, states, data = MAKERS[kind](), random_states(MAKERS[kind], 3), random_graph()
    evaluator = Evaluator(there(model, device), there(data, device))
    assert evaluator.mode == kind
    away = [there(state, device) for state in states] if states_there else states
    found = BUILT_IN[name](away, evaluator)
    expected = BUILT_IN[name](states, Evaluator(model, data))
    assert found.val == expected.val
    if name != "lottery pool":
        assert_equal(dict(found.state_dict), dict(expected.state_dict), 1e-3)


def test_ensemble_and_diagnosis(device):
    model, states, data = GCN(8, 16, 2, 3), random_states(MAKERS["cached"], 3), random_graph()
    there_too = [there(state, device) for state in states], Evaluator(there(model, device), there(data, device))
    here = states, Evaluator(model, data)
    assert ensemble(*there_too).score == ensemble(*here).score
    assert str(diagnose(*there_too)) == str(diagnose(*here))


def test_weights_of_a_sum_on_the_device(device):
    states = random_states(MAKERS["cached"], 2)
    weights = torch.tensor([0.25, 0.75])
    found = combine([there(state, device) for state in states], weights.to(device))
    assert_equal(found, combine(states, weights), device=device)


def test_soups_of_what_is_on_two_devices(device):
    model, states, data = GCN(8, 16, 2, 3), random_states(MAKERS["cached"], 2), random_graph()
    apart = [states[0], there(states[1], device)]
    with pytest.raises(ValueError, match=f"ingredient 1 does not fit ingredient 0: .* is on {device}, not on cpu"):
        combine(apart, torch.tensor([0.5, 0.5]))
    with pytest.raises(ValueError, match=f"ingredient 1 does not fit ingredient 0: .* is on {device}, not on cpu"):
        SOUPS["greedy"](apart, Evaluator(model, data))
    with pytest.raises(ValueError, match=f"'second' does not fit 'first': .* is on {device}, not on cpu"):
        mix(*apart, 0.5)
    for mode in ("auto", "plain"):
        with pytest.raises(ValueError, match=re.escape(f"'model' is on {device}, but 'data.x' is on cpu: move")):
            Evaluator(there(model, device), data, mode=mode)
        with pytest.raises(ValueError, match=re.escape(f"'model' is on cpu, but 'data.x' is on {device}: move")):
            Evaluator(accelerate(model), there(data, device), mode=mode)


def test_every_model_is_scored_alike(device):
    for make in MODELS.values():
        model, data = make(), random_graph()
        expected = Evaluator(model, data).logits(model.state_dict())
        found = Evaluator(there(model, device), there(data, device)).logits(model.state_dict())
        assert_equal(found, expected, 1e-3, device)
