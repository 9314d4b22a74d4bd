"""What every soup promises."""

from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import MODELS, NormAndTie
from resuming import same_state
from soup_helpers import CountedStates, HashJudge, random_states, trained_states
from torch_geometric.nn import GCN

from graphsparse.soups.evaluation.cached_forward import CachedForward
from graphsparse.soups.evaluation.evaluator import Evaluator
from graphsparse.soups.recipes.greedy import greedy_soup
from graphsparse.soups.recipes.interpolation import interpolation_soup
from graphsparse.soups.recipes.learned import learned_soup
from graphsparse.soups.recipes.partition_learned import partition_learned_soup
from graphsparse.soups.recipes.uniform import uniform_soup
from graphsparse.soups.states.states import combine
from graphsparse.soups.states.ties import tie, tied_names
from graphsparse.testing import random_graph

pytestmark = pytest.mark.once

GUARDED = {
    "greedy": greedy_soup,
    "interpolation": lambda *args, **kwargs: interpolation_soup(*args, granularity=5, **kwargs),
    "learned": lambda *args, **kwargs: learned_soup(*args, epochs=3, **kwargs),
    "learned by layer": lambda *args, **kwargs: learned_soup(*args, epochs=3, groups="layer", **kwargs),
    "learned, global": lambda *args, **kwargs: learned_soup(*args, epochs=3, groups="global", **kwargs),
    "partition learned": lambda *args, **kwargs: partition_learned_soup(
        *args, epochs=3, num_parts=4, parts_per_step=2, **kwargs
    ),
}


@cache
def trained(kind):
    return trained_states(MODELS[kind], 3, random_graph(), epochs=4)


def uniform(ingredients, evaluator, split_validation=True, seed=0):
    return uniform_soup(ingredients, evaluator)


def es2025(ingredients, evaluator, split_validation=True, seed=0):
    return learned_soup(ingredients, evaluator, epochs=3, compat="es2025", seed=seed)


SOUPS = {"uniform": uniform, "es2025": es2025, **GUARDED}


def accepting(evaluator, split_validation, seed=0):
    return evaluator.halves(seed)[1] if split_validation else evaluator


def assert_weights(result, states):
    """Weights are not negative, have sum 1, and build the state again."""
    num = len(states)
    floats = {name for name, value in states[0].items() if value.is_floating_point()}
    weights = result.weights if isinstance(result.weights, dict) else {"all": result.weights}
    assert not isinstance(result.weights, dict) or set(weights) == floats
    for vector in weights.values():
        assert vector.shape == (num,)
        assert (vector >= 0).all()
        assert float(vector.sum()) == pytest.approx(1, abs=1e-12)
    again = combine(states, result.weights)
    for name in floats:
        torch.testing.assert_close(again[name], result.state_dict[name])


@pytest.mark.parametrize("name", GUARDED)
@settings(max_examples=12, deadline=None)
@given(
    num=st.integers(1, 4),
    num_nodes=st.integers(1, 6),
    salt=st.integers(0, 10**6),
    split_validation=st.booleans(),
    seed=st.integers(0, 3),
)
def test_never_below_the_best_ingredient_whatever_the_metric(name, num, num_nodes, salt, split_validation, seed):
    states = random_states(MODELS["GraphSAGE"], num, salt)
    judge = HashJudge(MODELS["GraphSAGE"](), num_nodes, salt)
    result = GUARDED[name](states, judge, split_validation=split_validation, seed=seed)
    accept = accepting(judge, split_validation, seed)
    assert result.ingredient_scores == [accept.score(state) for state in states]
    assert result.score >= max(result.ingredient_scores)
    assert accept.score(result.state_dict) == result.score
    assert_weights(result, states)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("name", SOUPS)
@pytest.mark.parametrize("split_validation", [True, False])
def test_trained_ingredients(name, kind, split_validation):
    data = random_graph()
    states = trained(kind)
    evaluator = Evaluator(MODELS[kind](), data)
    soup = SOUPS[name]
    result = soup(states, evaluator, split_validation=split_validation)
    accept = evaluator if name in ("uniform", "es2025") else accepting(evaluator, split_validation)
    # The state that is returned is the one that was scored, statistics of batch normalisation included.
    assert accept.score(tie(result.state_dict, tied_names(evaluator.model))) == result.score
    if name in GUARDED:
        assert result.score >= max(result.ingredient_scores)
    if kind != "BatchNorm and a tied weight":
        assert_weights(result, states)
    again = soup(states, Evaluator(MODELS[kind](), data), split_validation=split_validation)
    assert same_state(again.state_dict, result.state_dict)
    assert again.trace == result.trace
    MODELS[kind]().load_state_dict(result.state_dict)


@pytest.mark.parametrize("name", SOUPS)
def test_batch_norm_buffers_and_ties(name):
    data = random_graph()
    states = trained("BatchNorm and a tied weight")
    evaluator = Evaluator(NormAndTie(), data)
    result = SOUPS[name](states, evaluator)
    assert torch.equal(result.state_dict["third.lin.weight"], result.state_dict["second.lin.weight"])
    assert result.state_dict["norm.num_batches_tracked"].dtype == torch.int64
    model = NormAndTie()
    model.load_state_dict(result.state_dict)
    # Statistics are those of the mixed weights on this graph: the first layer's output has mean 0 and variance 1.
    with torch.no_grad():
        normal = model.norm.eval()(model.first(data.x, data.edge_index))
    scale, shift = model.norm.weight, model.norm.bias
    torch.testing.assert_close((normal.mean(0) - shift) / scale, torch.zeros(16), atol=1e-4, rtol=0)
    weights = result.weights["second.lin.weight"] if isinstance(result.weights, dict) else result.weights
    if isinstance(result.weights, dict):
        assert torch.equal(weights, result.weights["third.lin.weight"])
    kept = SOUPS[name](states, Evaluator(NormAndTie(), data, batch_norm="keep"))
    assert_weights(kept, states)


@pytest.mark.parametrize("name", SOUPS)
@pytest.mark.parametrize("kind", ["GCN", "BatchNorm and a tied weight"])
def test_identical_ingredients_are_their_own_soup(name, kind):
    data = random_graph()
    state = trained(kind)[0]
    evaluator = Evaluator(MODELS[kind](), data, batch_norm="keep")
    result = SOUPS[name]([{k: v.clone() for k, v in state.items()} for _ in range(3)], evaluator)
    assert same_state(result.state_dict, state)
    assert result.score == result.ingredient_scores[0]


@pytest.mark.parametrize("name", SOUPS)
def test_result_shares_no_memory_and_ingredients_stay(name):
    states = random_states(MODELS["GCN"], 3)
    before = [{k: v.clone() for k, v in state.items()} for state in states]
    result = SOUPS[name](states, Evaluator(MODELS["GCN"](), random_graph()))
    for value in result.state_dict.values():
        value.fill_(7)
    assert all(same_state(state, old) for state, old in zip(states, before, strict=True))


@pytest.mark.parametrize("name", SOUPS)
@pytest.mark.parametrize("num", [3, 9])
def test_three_states_in_memory_whatever_their_number(name, num):
    def make_model():
        return GCN(8, 211, 2, 7)  # widths that nothing but a weight has

    states = CountedStates(random_states(make_model, num))
    judge = HashJudge(make_model())

    def counted(function):
        def call(*args, **kwargs):
            states.count()
            return function(*args, **kwargs)

        return call

    accept = judge.halves(0)
    for part in (judge, *accept):
        part.score = counted(part.score)
    judge.halves = lambda seed: accept
    with states:
        SOUPS[name](states, judge)
    assert states.reads > num
    assert 1.5 < states.most <= 3.0001


def test_three_states_in_memory_while_mixtures_stand_side_by_side(monkeypatch):
    def make_model():
        return GCN(8, 61, 6, 7)

    states = CountedStates(random_states(make_model, 3))
    evaluator = Evaluator(make_model(), random_graph())
    assert evaluator.mode == "cached"
    load = CachedForward._load
    monkeypatch.setattr(CachedForward, "_load", lambda *args: (load(*args), states.count()))
    with states:
        interpolation_soup(states, evaluator, granularity=20, split_validation=False)
    assert 1.5 < states.most <= 3.0001


@pytest.mark.parametrize("name", SOUPS)
def test_test_labels_change_nothing(name):
    data, other = random_graph(), random_graph()
    other.y[~other.val_mask] = (other.y[~other.val_mask] + 1) % 3
    states = random_states(MODELS["GCN"], 3)
    first, second = (SOUPS[name](states, Evaluator(MODELS["GCN"](), graph)) for graph in (data, other))
    assert same_state(first.state_dict, second.state_dict)


@pytest.mark.parametrize("name", SOUPS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precision(name, dtype):
    data = random_graph()
    data.x = data.x.to(dtype)

    def make_model():
        return MODELS["GraphSAGE"]().to(dtype)

    states = random_states(make_model, 3)
    result = SOUPS[name](states, Evaluator(make_model(), data))
    assert {value.dtype for value in result.state_dict.values()} == {dtype}
    assert_weights(result, states)


@pytest.mark.parametrize("name", SOUPS)
def test_one_ingredient_is_the_soup(name):
    states = random_states(MODELS["GCN"], 1)
    result = SOUPS[name](states, Evaluator(MODELS["GCN"](), random_graph()))
    assert same_state(result.state_dict, states[0])


@pytest.mark.parametrize("name", SOUPS)
def test_bad_ingredients(name):
    evaluator = Evaluator(MODELS["GCN"](), random_graph())
    states = random_states(MODELS["GCN"], 2)
    with pytest.raises(ValueError, match="at least one state dict"):
        SOUPS[name]([], evaluator)
    with pytest.raises(TypeError, match="'ingredients'"):
        SOUPS[name](states[0], evaluator)
    with pytest.raises(TypeError, match="'evaluator'"):
        SOUPS[name](states, None)
    broken = {k: torch.full_like(v, torch.nan) for k, v in states[0].items()}
    with pytest.raises(ValueError, match="ingredient 1 holds values that are not numbers"):
        SOUPS[name]([states[0], broken], evaluator)
    with pytest.raises(ValueError, match="ingredient 1 does not fit the model"):
        SOUPS[name]([states[0], random_states(MODELS["GAT"], 1)[0]], evaluator)
    with pytest.raises(ValueError, match="torch.float64, not"):
        SOUPS[name]([states[0], {k: v.double() for k, v in states[1].items()}], evaluator)
