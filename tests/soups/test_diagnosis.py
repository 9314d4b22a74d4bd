import math
import warnings

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from models import MODELS
from soup_helpers import CountedStates, random_states, trained_states
from torch_geometric.nn import GCN

from graphsparse.datasets import load
from graphsparse.soups import Evaluator, diagnose, mix
from graphsparse.soups.diagnosis import angle_between
from graphsparse.testing import random_graph
from graphsparse.training import build_model, fit
from graphsparse.typing import has_module

DATA = random_graph(num_nodes=120)


def quiet(states, evaluator, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return diagnose(states, evaluator, **options)


@pytest.mark.parametrize("name", ["GCN", "GAT", "BatchNorm and a tied weight"])
def test_every_figure_by_the_long_way(name):
    states, evaluator = random_states(MODELS[name], 3), Evaluator(MODELS[name](), DATA)
    states = [{key: s[key.replace("third.lin", "second.lin")] for key in s} for s in states]
    found = quiet(states, evaluator)
    logits = [evaluator.logits(state) for state in states]
    y = DATA.y[DATA.val_mask]

    def loss(z):
        return float(F.cross_entropy(z, y))

    assert found.vals == [evaluator.score(state) for state in states]
    assert found.best == max(range(3), key=lambda i: (found.vals[i], -i))
    assert found.losses == pytest.approx([loss(z) for z in logits], rel=1e-5)
    parameters = [key for key, _ in MODELS[name]().named_parameters()]
    rows = torch.stack([torch.cat([s[key].double().flatten() for key in parameters]) for s in states])
    best = rows[found.best]
    for j in range(3):
        cosine = float(F.cosine_similarity(rows[j], best, dim=0).clamp(max=1))
        assert found.angles[j] == pytest.approx(math.degrees(math.acos(cosine)), abs=1e-5)
        middle = loss(evaluator.logits(mix(states[found.best], states[j], 0.5)))
        assert found.barriers[j] == pytest.approx(middle - (loss(logits[found.best]) + loss(logits[j])) / 2, abs=1e-5)
        for i in range(3):
            disagreement = float((logits[i].argmax(1) != logits[j].argmax(1)).double().mean())
            assert float(found.disagreement[i, j]) == pytest.approx(disagreement)


class Bent(torch.nn.Module):
    """Logits of two classes, 0 and the product of two weights."""

    def __init__(self, first, second):
        super().__init__()
        self.first, self.second = (torch.nn.Parameter(torch.tensor(float(value))) for value in (first, second))

    def forward(self, x, edge_index):
        return torch.stack([torch.zeros(len(x)), (self.first * self.second).expand(len(x))], dim=1)


def test_barrier_by_hand():
    data = random_graph(num_classes=2)
    data.y = torch.ones_like(data.y)
    # Both ends have the logit 4; halfway both weights are 0.
    found = quiet([Bent(2, 2).state_dict(), Bent(-2, -2).state_dict()], Evaluator(Bent(0, 0), data))
    assert found.barriers == pytest.approx([0, math.log(2) - math.log1p(math.exp(-4))], abs=1e-6)
    assert found.angles == [0, 180]
    # Several labels per node, of which one that is not known does not count.
    data.y = torch.tensor([[1.0, 0.0]]).repeat(data.num_nodes, 1)
    data.y[data.val_mask.nonzero()[0], 1] = torch.nan
    count = int(data.val_mask.sum())
    expected = (count * math.log(2) + (count - 1) * math.log1p(math.exp(4))) / (2 * count - 1)
    several = Evaluator(Bent(0, 0), data, metric=lambda logits, y: 0.0)
    assert quiet([Bent(2, 2).state_dict()], several).losses == pytest.approx([expected])


@given(st.integers(1, 8), st.sampled_from([1.0, 1e-3, 1e-6]), st.integers(0, 10**6))
def test_angles_are_those_of_the_vectors(size, scale, seed):
    """In extended precision: the angle of unit vectors by the lengths of their sum and difference."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(size, generator=generator, dtype=torch.float64)
    first, second = base + scale * torch.randn(2, size, generator=generator, dtype=torch.float64)
    found = angle_between(
        *({"a": row[: size // 2], "b": row[size // 2 :].view(1, -1), "c": torch.ones(3)} for row in (first, second)),
        ["a", "b"],
    )
    one, other = first / first.norm(), second / second.norm()
    expected = 2 * math.atan2(float((one - other).norm()), float((one + other).norm())) * 180 / math.pi
    # Squares are rounded to about 2^-52 of the largest, and a length is the root of one.
    within = math.degrees(math.sqrt(64 * 2**-52)) * float((first - second).norm()) / float(first.norm())
    assert found == pytest.approx(expected, rel=1e-6, abs=within)


def test_angles_in_half_precision_and_to_nothing():
    state = {"w": torch.ones(3000, dtype=torch.float16)}
    assert angle_between(state, {"w": 2 * state["w"]}, ["w"]) == pytest.approx(0, abs=1e-6)
    assert angle_between(state, state, ["w"]) == 0
    assert math.isnan(angle_between(state, {"w": 0 * state["w"]}, ["w"]))


def test_equal_ingredients_differ_in_nothing():
    state = MODELS["GCN"]().state_dict()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = diagnose([state] * 3, Evaluator(MODELS["GCN"](), DATA))
    assert found.best == 0
    assert found.barriers == [0, 0, 0]
    assert not found.disagreement.any()
    assert found.angles == [0, 0, 0]
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
    height, turned = found.barriers[other], found.angles[other]
    assert quiet(states, evaluator, barrier=height, angle=turned).apart == []
    sentence = quiet(states, evaluator, barrier=height - 1e-9).warnings
    assert len(sentence) == 1
    assert "another basin" in sentence[0]
    sentence = quiet(states, evaluator, barrier=height, angle=turned - 1e-9).warnings
    assert len(sentence) == 1
    assert "started from other weights" in sentence[0]


def test_no_more_than_three_states_in_memory():
    states, evaluator = random_states(lambda: GCN(8, 64, 2, 3), 5), Evaluator(GCN(8, 64, 2, 3), DATA)
    with CountedStates(states) as counted:
        del states
        quiet(counted, evaluator)
    assert counted.most <= 3


def test_each_ingredient_is_evaluated_once(monkeypatch):
    states, evaluator = random_states(MODELS["GCN"], 4), Evaluator(MODELS["GCN"](), DATA)
    calls, logits = [], Evaluator.logits
    monkeypatch.setattr(Evaluator, "logits", lambda self, state: calls.append(1) or logits(self, state))
    quiet(states, evaluator)
    assert len(calls) == 7


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
        assert max(found.angles) < 56
    else:
        assert found.apart == others
        assert all("another basin" in sentence for sentence in found.warnings[:2])
        assert min(found.barriers[i] for i in others) > 0.15
        assert min(found.angles[i] for i in others) > 75
