import math

import pytest
import torch
from models import MODELS
from resuming import same_state
from soup_helpers import HashJudge, random_states

from graphsparse.soups.recipes.es2025 import Es2025
from graphsparse.soups.recipes.learning import Learning, Options
from graphsparse.soups.recipes.uniform import uniform_soup

GCN = MODELS["GCN"]
DEFAULTS = {
    "groups": "tensor",
    "epochs": 3,
    "lr": None,
    "rule": None,
    "eval_every": 1,
    "split_validation": True,
    "dropout": False,
    "seed": 0,
    "progress": False,
    "log": None,
}


def learn(states, judge, **options):
    learning = Learning(states, judge, Options(**{**DEFAULTS, **options}))
    return learning.run([(learning.fit.data, 1.0)] * 100)


def scored(judge, function):
    judge.score = function
    judge.halves = lambda seed: (judge, judge)
    return judge


def test_the_uniform_soup_is_returned_unless_it_is_exceeded():
    states = random_states(GCN, 3)
    judge = scored(HashJudge(GCN()), lambda state: 0.5)
    result = learn(states, judge)
    assert same_state(result.state_dict, uniform_soup(states, judge).state_dict)
    assert torch.equal(result.weights, torch.full((3,), 1 / 3, dtype=torch.float64))


def test_an_ingredient_is_returned_unless_it_is_exceeded():
    states = random_states(GCN, 3)
    judge = scored(HashJudge(GCN()), lambda state: 0.9 if same_state(state, states[1]) else 0.5)
    result = learn(states, judge)
    assert same_state(result.state_dict, states[1])
    assert result.weights.tolist() == [0, 1, 0]
    assert result.trace[0] == {"epoch": 0, "score": 0.9}


@pytest.mark.parametrize("best", [1, 2, 4])
def test_the_best_epoch_is_kept(best):
    calls = []

    def score(state):
        calls.append(state)
        return {3 + 1 + best: 0.9}.get(len(calls), 0.1)  # three ingredients, the uniform soup, then the epochs

    states = random_states(GCN, 3)
    result = learn(states, scored(HashJudge(GCN()), score), epochs=4)
    assert same_state(result.state_dict, calls[3 + best])
    assert result.score == 0.9
    assert [entry["score"] for entry in result.trace].index(0.9) == best


def test_how_often_it_is_asked():
    result = learn(random_states(GCN, 2), HashJudge(GCN()), epochs=7, eval_every=3)
    assert [entry["epoch"] for entry in result.trace if "score" in entry] == [0, 3, 6, 7]


def test_log_is_the_trace(capsys):
    entries = []
    result = learn(random_states(GCN, 2), HashJudge(GCN()), log=entries.append, progress=True)
    assert entries == result.trace[1:]
    assert "learned soup: 100%" in capsys.readouterr().err


def test_the_seed_of_the_caller_is_left_alone():
    torch.manual_seed(4)
    expected = torch.rand(1)
    torch.manual_seed(4)
    states, judge = random_states(GCN, 2), HashJudge(GCN())
    torch.manual_seed(4)
    learn(states, judge, dropout=True)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize(
    ("options", "error", "name"),
    [
        ({"groups": "row"}, ValueError, "groups"),
        ({"groups": "layer", "rule": Es2025()}, ValueError, "groups"),
        ({"epochs": 0}, ValueError, "epochs"),
        ({"epochs": 2.0}, TypeError, "epochs"),
        ({"eval_every": 0}, ValueError, "eval_every"),
        ({"lr": 0.0}, ValueError, "lr"),
        ({"lr": math.inf}, ValueError, "lr"),
        ({"lr": "0.1"}, TypeError, "lr"),
        ({"split_validation": None}, TypeError, "split_validation"),
        ({"seed": -1}, ValueError, "seed"),
        ({"dropout": 0.5}, TypeError, "dropout"),
        ({"log": 1}, TypeError, "log"),
    ],
)
def test_bad_options(options, error, name):
    with pytest.raises(error, match=f"'{name}'"):
        learn(random_states(GCN, 2), HashJudge(GCN()), **options)
