import warnings

import pytest
import torch
import torch.nn.functional as F
from models import MODELS
from soup_helpers import CountedStates, random_states, trained_states
from torch_geometric.nn import GCN

from graphsparse.datasets import load
from graphsparse.soups.diagnosis.diagnostics import diagnose
from graphsparse.soups.evaluation.evaluator import Evaluator
from graphsparse.soups.states.states import mix
from graphsparse.testing import random_graph
from graphsparse.tickets import find_ticket
from graphsparse.training import Training, build_model, fit
from graphsparse.typing import has_module

DATA = random_graph(num_nodes=120)


def quiet(states, evaluator, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return diagnose(states, evaluator, **options)


@pytest.mark.parametrize("name", ["GCN", "GAT", "BatchNorm and a tied weight"])
@pytest.mark.parametrize("pairs", [True, False])
def test_every_figure_by_the_long_way(name, pairs):
    states, evaluator = random_states(MODELS[name], 3), Evaluator(MODELS[name](), DATA)
    states = [{key: s[key.replace("third.lin", "second.lin")] for key in s} for s in states]
    found = quiet(states, evaluator, pairs=pairs)
    logits = [evaluator.logits(state) for state in states]
    y = DATA.y[DATA.val_mask]

    def loss(z):
        return float(F.cross_entropy(z, y))

    assert found.scores == [evaluator.score(state) for state in states]
    assert found.best == max(range(3), key=lambda i: (found.scores[i], -i))
    assert found.losses == pytest.approx([loss(z) for z in logits], rel=1e-5)
    parameters = [key for key, _ in MODELS[name]().named_parameters()]
    rows = torch.stack([torch.cat([s[key].double().flatten() for key in parameters]) for s in states])
    mean = rows.mean(dim=0)
    torch.testing.assert_close(found.geometry.distances, (rows - mean).norm(dim=1))
    cosine = (rows @ mean) / rows.norm(dim=1) / mean.norm()
    torch.testing.assert_close(found.geometry.angles, cosine.acos().rad2deg())
    for i in range(3):
        for j in range(3):
            disagreement = float((logits[i].argmax(1) != logits[j].argmax(1)).double().mean())
            assert float(found.disagreement[i, j]) == pytest.approx(disagreement)
            middle = loss(evaluator.logits(mix(states[i], states[j], 0.5))) - (loss(logits[i]) + loss(logits[j])) / 2
            if i == found.best:
                assert found.barriers[j] == pytest.approx(middle, abs=1e-5)
            if pairs:
                assert float(found.pair_barriers[i, j]) == pytest.approx(middle, abs=1e-5)
    assert (found.pair_barriers is None) != pairs


def test_equal_ingredients_differ_in_nothing():
    state = MODELS["GCN"]().state_dict()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = diagnose([state] * 3, Evaluator(MODELS["GCN"](), DATA), pairs=True)
    assert found.best == 0
    assert found.barriers == [0, 0, 0]
    assert not found.disagreement.any()
    assert not found.pair_barriers.any()
    assert not found.geometry.distances.any()
    assert found.warnings == found.apart == []
    assert quiet([state], Evaluator(MODELS["GCN"](), DATA)).barriers == [0]


def test_the_one_that_lies_apart_is_named():
    make_model = MODELS["GCN"]
    states = trained_states(make_model, 4, DATA, epochs=40, seed=0)
    states[2] = trained_states(make_model, 1, DATA, epochs=40, seed=3)[0]
    # What is best is said by the metric, which sees here whether it is that one.
    apart = Evaluator(make_model(), DATA).logits(states[2])
    evaluator = Evaluator(make_model(), DATA, metric=lambda z, y: 0.0 if torch.equal(z, apart) else 1.0)
    with pytest.warns(UserWarning, match="Ingredient 2 "):
        found = diagnose(states, evaluator)
    assert found.apart == [2]
    assert len(found.warnings) == 1
    assert "!" in str(found).splitlines()[3]
    assert str(found).endswith(found.warnings[0])
    # If that one is the best, all others are far from it, and the last sentence says so.
    other = Evaluator(make_model(), DATA, metric=lambda z, y: 1.0 if torch.equal(z, apart) else 0.0)
    with pytest.warns(UserWarning, match="None belongs with ingredient 2"):
        found = diagnose(states, other)
    assert found.apart == [0, 1, 3]


def test_thresholds():
    evaluator = Evaluator(MODELS["GCN"](), DATA)
    states = random_states(MODELS["GCN"], 2, spread=0.2)
    found = quiet(states, evaluator)
    other = 1 - found.best
    height, turned = found.barriers[other], float(found.geometry.pair_angles[0, 1])
    assert quiet(states, evaluator, barrier=height, angle=turned).apart == []
    sentence = quiet(states, evaluator, barrier=height - 1e-9).warnings
    assert len(sentence) == 1
    assert "another basin" in sentence[0]
    sentence = quiet(states, evaluator, barrier=height, angle=turned - 1e-9).warnings
    assert len(sentence) == 1
    assert "started from other weights" in sentence[0]


@pytest.mark.parametrize("pairs", [True, False])
def test_no_more_than_three_states_in_memory(pairs):
    states, evaluator = random_states(lambda: GCN(8, 64, 2, 3), 5), Evaluator(GCN(8, 64, 2, 3), DATA)
    with CountedStates(states) as counted:
        del states
        quiet(counted, evaluator, pairs=pairs)
    assert counted.most <= 3


@pytest.mark.parametrize(("pairs", "expected"), [(False, 7), (True, 10)])
def test_each_ingredient_is_evaluated_once(monkeypatch, pairs, expected):
    states, evaluator = random_states(MODELS["GCN"], 4), Evaluator(MODELS["GCN"](), DATA)
    calls, logits = [], Evaluator.logits
    monkeypatch.setattr(Evaluator, "logits", lambda self, state: calls.append(1) or logits(self, state))
    quiet(states, evaluator, pairs=pairs)
    assert len(calls) == expected


def test_tickets_with_one_edge_mask():
    options = {"edge_sparsity": 0.3, "training": Training(epochs=3)}
    tickets = [find_ticket(MODELS["GCN"], DATA, weight_sparsity=s, **options) for s in (0.2, 0.4)]
    evaluator = Evaluator(MODELS["GCN"](), tickets[0].sparsify(DATA))
    assert quiet(tickets, evaluator).scores == [evaluator.score(ticket.state_dict) for ticket in tickets]
    with pytest.raises(ValueError, match="ticket.sparsify"):
        diagnose(tickets, Evaluator(MODELS["GCN"](), DATA))


def test_several_labels_per_node():
    data = DATA.clone()
    data.y = F.one_hot(DATA.y, 3).float()
    evaluator = Evaluator(MODELS["GCN"](), data, metric=lambda z, y: -float((z - y).abs().mean()))
    states = random_states(MODELS["GCN"], 2)
    found = quiet(states, evaluator)
    answers = [evaluator.logits(state) > 0 for state in states]
    assert float(found.disagreement[0, 1]) == pytest.approx(float((answers[0] != answers[1]).double().mean()))


@pytest.mark.skipif(not has_module("matplotlib"), reason="needs matplotlib")
def test_plot(tmp_path):
    found = quiet(random_states(MODELS["GCN"], 3), Evaluator(MODELS["GCN"](), DATA))
    found.plot(tmp_path / "deep" / "plot.png")
    assert (tmp_path / "deep" / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_bad_ingredients():
    evaluator = Evaluator(MODELS["GCN"](), DATA)
    state = MODELS["GCN"]().state_dict()
    with pytest.raises(ValueError, match="got none"):
        diagnose([], evaluator)
    with pytest.raises(ValueError, match="ingredient 1 .*missing keys"):
        diagnose([state, {}], evaluator)
    with pytest.raises(ValueError, match="ingredient 1 .*not numbers"):
        diagnose([state, {name: value * torch.nan for name, value in state.items()}], evaluator)
    with pytest.raises(TypeError, match="'evaluator'"):
        diagnose([state], lambda state: 1.0)


@pytest.mark.parametrize("shared", [True, False])
def test_initial_weights_on_cora(data_root, shared):
    data = load("cora", str(data_root))
    data.x = (data.x / data.x.sum(dim=1, keepdim=True).clamp(min=1)).to_sparse_csr()

    def make_model():
        return GCN(1433, 16, 2, 7, dropout=0.5)

    states = []
    for i in range(3):
        model = build_model(make_model, 0 if shared else i)
        states.append(fit(model, data, epochs=60, seed=100 + i).state_dict)
    found = quiet(states, Evaluator(make_model(), data))
    others = [i for i in range(3) if i != found.best]
    if shared:
        assert found.apart == []
        assert max(found.barriers) < 0.05
        assert float(found.geometry.pair_angles.max()) < 56
    else:
        assert found.apart == others
        assert all("another basin" in sentence for sentence in found.warnings[:2])
        assert min(found.barriers[i] for i in others) > 0.15
        assert min(float(found.geometry.pair_angles[found.best, i]) for i in others) > 75
