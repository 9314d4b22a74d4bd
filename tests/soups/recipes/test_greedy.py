import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import MODELS
from soup_helpers import HashJudge, random_states

from graphsparse.soups.recipes.greedy import greedy_soup
from graphsparse.soups.states.states import combine

GCN = MODELS["GCN"]


def slow_greedy(states, fit, accept):
    """The recipe with all states in memory, and each mean computed from its members."""

    def mean(members):
        weights = torch.zeros(len(states)).double()
        weights[members] = 1 / len(members)
        return combine(states, weights)

    order = sorted(range(len(states)), key=lambda i: (-accept(states[i]), i))
    members = order[:1]
    for i in order[1:]:
        new = [*members, i]
        if fit(mean(new)) > fit(mean(members)) and accept(mean(new)) >= accept(mean(members)):
            members = new
    return members


class Smooth(HashJudge):
    """Judges by one number of a state that rounding does not change."""

    def score(self, state):
        value = state["convs.0.bias"].double().sum() * (1 if "0 0" in self.salt else 2) + 1.0
        return round(float(value.sin()), 2)


@settings(max_examples=30, deadline=None)
@given(num=st.integers(1, 6), seed=st.integers(0, 10**6), split=st.booleans())
def test_against_a_slow_reference(num, seed, split):
    states = random_states(GCN, num, seed, spread=3.0)
    for i, state in enumerate(states):
        state["convs.0.bias"] = torch.randn(16, generator=torch.Generator().manual_seed(seed + i))
    judge = Smooth(GCN())
    fit, accept = judge.halves(0) if split else (judge, judge)
    result = greedy_soup(states, judge, split_validation=split)
    members = slow_greedy(states, fit.score, accept.score)
    assert result.weights.nonzero().view(-1).tolist() == sorted(members)
    assert len(result.trace) == num - 1
    assert sum(step["accepted"] for step in result.trace) == len(members) - 1


def test_ties_keep_the_soup():
    judge = HashJudge(GCN())
    judge.score = lambda state: 0.5
    result = greedy_soup(random_states(GCN, 3), judge, split_validation=False)
    assert result.weights.tolist() == [1, 0, 0]


@pytest.mark.parametrize(("better", "expected"), [("fit", [1, 0]), ("accept", [1, 0]), ("both", [0.5, 0.5])])
def test_both_halves_must_agree(better, expected):
    states = [{k: torch.full_like(v, i) for k, v in GCN().state_dict().items()} for i in (0, 1)]
    fit, accept = judge = HashJudge(GCN()).halves()
    for name, half in (("fit", fit), ("accept", accept)):
        mixed = 0.9 if better in (name, "both") else 0.1
        half.score = lambda state, mixed=mixed: mixed if float(state["convs.0.bias"][0]) == 0.5 else 0.3
    whole = HashJudge(GCN())
    whole.halves = lambda seed: judge
    assert greedy_soup(states, whole).weights.tolist() == expected


def test_number_of_evaluations():
    judge = HashJudge(GCN())
    greedy_soup(random_states(GCN, 5), judge, split_validation=False)
    assert judge.calls == 2 * 5 - 1
