import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import MODELS
from resuming import same_state
from soup_helpers import HashJudge, random_states

from graphsparse.soups.evaluation.evaluator import Evaluator
from graphsparse.soups.recipes.interpolation import interpolation_soup
from graphsparse.soups.states.states import mix
from graphsparse.testing import random_graph

GCN = MODELS["GCN"]


def slow_interpolation(states, score, granularity, min_delta):
    """The published algorithm, one evaluation after another, with ties that keep the soup."""
    values = [score(state) for state in states]
    order = sorted(range(len(states)), key=lambda i: (-values[i], i))
    soup, best = states[order[0]], values[order[0]]
    ratios = []
    for i in order[1:]:
        taken = 1.0
        for k in range(granularity - 1, -1, -1):
            value = score(mix(soup, states[i], k / (granularity - 1)))
            if value > best + min_delta:
                taken, best = k / (granularity - 1), value
        soup = mix(soup, states[i], taken)
        ratios.append(taken)
    return soup, best, ratios


@settings(max_examples=40, deadline=None)
@given(
    num=st.integers(1, 5),
    seed=st.integers(0, 10**6),
    granularity=st.integers(2, 7),
    min_delta=st.sampled_from([0.0, 0.1, 0.4]),
)
def test_decisions_of_the_algorithm(num, seed, granularity, min_delta):
    states = random_states(GCN, num, seed)
    judge = HashJudge(GCN(), 40, seed)
    result = interpolation_soup(
        states, judge, granularity=granularity, min_delta=min_delta, split_validation=False, seed=seed
    )
    soup, best, ratios = slow_interpolation(states, judge.score, granularity, min_delta)
    assert result.score == best
    assert [step["ratio"] for step in result.trace] == ratios
    assert same_state(result.state_dict, soup)


@pytest.mark.parametrize("kind", ["GCN", "GraphSAGE", "GAT"])
def test_decisions_do_not_depend_on_how_the_evaluator_gets_there(kind):
    states = random_states(MODELS[kind], 5, spread=0.5)
    results = [
        interpolation_soup(states, Evaluator(MODELS[kind](), random_graph(90, seed=3), mode=mode))
        for mode in ("plain", "auto")
    ]
    assert results[0].trace == results[1].trace
    assert torch.equal(results[0].weights, results[1].weights)


def test_ratio_of_one_is_the_best_ingredient_bit_for_bit():
    states = random_states(GCN, 4)
    judge = HashJudge(GCN())
    judge.score = lambda state: 0.9 if same_state(state, states[2]) else 0.2
    result = interpolation_soup(states, judge, split_validation=False)
    assert [(step["ingredient"], step["ratio"]) for step in result.trace] == [(0, 1), (1, 1), (3, 1)]
    assert same_state(result.state_dict, states[2])
    assert result.weights.tolist() == [0, 0, 1, 0]
    assert [step["score"] for step in result.trace] == [None] * 3


def test_the_soup_itself_is_never_evaluated_again():
    states = random_states(GCN, 4)
    judge = HashJudge(GCN())
    asked = []
    scan = judge.scan
    judge.scan = lambda soup, other, ratios, floor: asked.append(ratios) or scan(soup, other, ratios, floor)
    result = interpolation_soup(states, judge, granularity=5, split_validation=False)
    assert asked == [[0.75, 0.5, 0.25, 0.0]] * 3
    proposed = sum(step["score"] is not None for step in result.trace)
    assert judge.calls == 4 + 3 * 4 + proposed


def test_weights_by_hand():
    states = [{k: torch.full_like(v, i) for k, v in GCN().state_dict().items()} for i in (0, 4, 8)]
    judge = HashJudge(GCN())
    # Ingredient 0 is best; then 0.5 with 4 gives 2, and 0.75 with 8 gives 3.5.
    good = {0.0: 0.5, 4.0: 0.4, 8.0: 0.3, 2.0: 0.6, 3.5: 0.7}
    judge.score = lambda state: good.get(float(state["convs.0.bias"][0]), 0.0)
    result = interpolation_soup(states, judge, granularity=5, split_validation=False)
    assert [step["ratio"] for step in result.trace] == [0.5, 0.75]
    assert result.weights.tolist() == [0.375, 0.375, 0.25]
    assert result.score == 0.7


def test_a_scan_that_promises_too_much_is_not_believed():
    judge = HashJudge(GCN())
    judge.score = lambda state: 0.5
    judge.scan = lambda soup, other, ratios, floor: [0.9] * len(ratios)
    result = interpolation_soup(random_states(GCN, 3), judge, split_validation=False)
    assert result.weights.tolist() == [1, 0, 0]
    assert result.score == 0.5
    assert not any(step["accepted"] for step in result.trace)


def test_scores_that_are_no_numbers_are_passed_over():
    judge = HashJudge(GCN())
    judge.scan = lambda soup, other, ratios, floor: [math.nan, None] * (len(ratios) // 2)
    result = interpolation_soup(random_states(GCN, 3), judge, granularity=5, split_validation=False)
    assert sorted(result.weights.tolist()) == [0, 0, 1]


def test_a_gain_that_the_other_half_does_not_see_is_not_taken():
    states = [{k: torch.full_like(v, i) for k, v in GCN().state_dict().items()} for i in (0, 1)]
    halves = HashJudge(GCN()).halves()
    for half, mixed in zip(halves, (0.9, 0.2), strict=True):
        half.score = lambda state, mixed=mixed: mixed if 0 < float(state["convs.0.bias"][0]) < 1 else 0.3
    judge = HashJudge(GCN())
    judge.halves = lambda seed: halves
    refused = interpolation_soup(states, judge)
    assert refused.weights.tolist() == [1, 0]
    assert refused.trace[0] == {"ingredient": 1, "ratio": 18 / 19, "fit": 0.9, "score": 0.2, "accepted": False}
    halves[1].score = lambda state: 0.3  # not worse
    assert interpolation_soup(states, judge).weights.tolist() == pytest.approx([18 / 19, 1 / 19])


def test_log_and_progress(capsys):
    entries = []
    result = interpolation_soup(random_states(GCN, 4), HashJudge(GCN()), log=entries.append, progress=True)
    assert [entry["ingredient"] for entry in entries] == [step["ingredient"] for step in result.trace]
    assert entries[-1]["score"] == result.score
    assert "interpolation soup: 100%" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "error", "name"),
    [
        ({"granularity": 1}, ValueError, "granularity"),
        ({"granularity": 20.0}, TypeError, "granularity"),
        ({"granularity": True}, TypeError, "granularity"),
        ({"min_delta": -0.1}, ValueError, "min_delta"),
        ({"min_delta": math.nan}, ValueError, "min_delta"),
        ({"min_delta": "0"}, TypeError, "min_delta"),
        ({"split_validation": 1}, TypeError, "split_validation"),
        ({"seed": 1.5}, TypeError, "seed"),
        ({"log": 3}, TypeError, "log"),
    ],
)
def test_bad_options(options, error, name):
    with pytest.raises(error, match=f"'{name}'"):
        interpolation_soup(random_states(GCN, 2), HashJudge(GCN()), **options)
