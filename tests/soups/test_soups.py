"""What every soup promises."""

from functools import cache, partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import MODELS, NormAndTie
from resuming import same_state
from soup_helpers import CountedStates, HashJudge, random_states, trained_states
from torch_geometric.nn import GCN

from graphsparse.soups import (
    SOUPS,
    Acceptance,
    Evaluator,
    Ingredients,
    combine,
    interpolation_soup,
    learned_soup,
    mix,
    soup,
    train_ingredients,
    uniform_soup,
)
from graphsparse.soups.evaluation.cached_forward import CachedForward
from graphsparse.soups.states import tie, tied_names
from graphsparse.testing import random_graph
from graphsparse.training import Training

pytestmark = pytest.mark.once

#: Short options of each soup; a soup that is new needs none to be tested.
OPTIONS = {"interpolation": {"granularity": 5}, "learned": {"epochs": 3}, "lottery pool": {"target": 0}}
OURS = {name: made for name, made in SOUPS.items() if made.__module__.startswith("graphsparse.soups.")}
MAKE = {name: partial(made, **OPTIONS.get(name, {})) for name, made in OURS.items()}
MAKE["learned on parts"] = partial(learned_soup, epochs=3, num_parts=4, parts_per_step=2)
#: What is never below the best ingredient, and what is a weighted sum.
GUARDED = [name for name in MAKE if name not in ("uniform", "lottery pool")]
SUMS = [name for name in MAKE if name != "lottery pool"]


@cache
def trained(kind):
    return trained_states(MODELS[kind], 3, random_graph(), epochs=4)


def accepting(evaluator, split_validation, seed=0):
    return evaluator.halves(seed)[1] if split_validation else evaluator


def assert_weights(name, result, states):
    """Weights are not negative, have sum 1, and build the state again."""
    if name not in SUMS:
        assert result.weights is None
        return
    num = len(states)
    floats = {key for key, value in states[0].items() if value.is_floating_point()}
    weights = result.weights if isinstance(result.weights, dict) else {"all": result.weights}
    assert not isinstance(result.weights, dict) or set(weights) == floats
    for vector in weights.values():
        assert vector.shape == (num,)
        assert (vector >= 0).all()
        assert float(vector.sum()) == pytest.approx(1, abs=1e-12)
    again = combine(states, result.weights)
    for key in floats:
        torch.testing.assert_close(again[key], result.state_dict[key])


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
    result = MAKE[name](states, judge, split_validation=split_validation, seed=seed)
    accept = accepting(judge, split_validation, seed)
    assert result.ingredient_vals == [accept.score(state) for state in states]
    assert result.val >= max(result.ingredient_vals)
    assert accept.score(result.state_dict) == result.val
    assert_weights(name, result, states)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("split_validation", [True, False])
def test_trained_ingredients(name, kind, split_validation):
    data = random_graph()
    states = trained(kind)
    evaluator = Evaluator(MODELS[kind](), data)
    result = MAKE[name](states, evaluator, split_validation=split_validation)
    accept = accepting(evaluator, split_validation)
    # The state that is returned is the one that was scored, statistics of batch normalisation included.
    assert accept.score(tie(result.state_dict, tied_names(evaluator.model))) == result.val
    if name in GUARDED:
        assert result.val >= max(result.ingredient_vals)
    if kind != "BatchNorm and a tied weight":
        assert_weights(name, result, states)
    again = MAKE[name](states, Evaluator(MODELS[kind](), data), split_validation=split_validation)
    assert same_state(again.state_dict, result.state_dict)
    assert again.trace == result.trace
    MODELS[kind]().load_state_dict(result.state_dict)


@pytest.mark.parametrize("name", MAKE)
def test_batch_norm_buffers_and_ties(name):
    data = random_graph()
    states = trained("BatchNorm and a tied weight")
    evaluator = Evaluator(NormAndTie(), data)
    result = MAKE[name](states, evaluator)
    assert torch.equal(result.state_dict["third.lin.weight"], result.state_dict["second.lin.weight"])
    assert result.state_dict["norm.num_batches_tracked"].dtype == torch.int64
    model = NormAndTie()
    model.load_state_dict(result.state_dict)
    # Statistics are those of the mixed weights on this graph: the first layer's output has mean 0 and variance 1.
    with torch.no_grad():
        normal = model.norm.eval()(model.first(data.x, data.edge_index))
    scale, shift = model.norm.weight, model.norm.bias
    torch.testing.assert_close((normal.mean(0) - shift) / scale, torch.zeros(16), atol=1e-4, rtol=0)
    if isinstance(result.weights, dict):
        assert torch.equal(result.weights["second.lin.weight"], result.weights["third.lin.weight"])
    kept = MAKE[name](states, Evaluator(NormAndTie(), data, batch_norm="keep"))
    assert_weights(name, kept, states)


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("kind", ["GCN", "BatchNorm and a tied weight"])
def test_identical_ingredients_are_their_own_soup(name, kind):
    data = random_graph()
    state = trained(kind)[0]
    evaluator = Evaluator(MODELS[kind](), data, batch_norm="keep")
    result = MAKE[name]([{k: v.clone() for k, v in state.items()} for _ in range(3)], evaluator)
    assert same_state(result.state_dict, state)
    assert result.val == result.ingredient_vals[0]


@pytest.mark.parametrize("name", MAKE)
def test_what_is_zero_in_all_is_zero_in_the_soup(name):
    """So a soup of sparse networks under one mask is as sparse as they are."""
    masks = {key: torch.rand(value.shape) < 0.5 for key, value in MODELS["GCN"]().state_dict().items()}
    states = [{key: value * masks[key] for key, value in state.items()} for state in random_states(MODELS["GCN"], 4)]
    found = MAKE[name](states, Evaluator(MODELS["GCN"](), random_graph())).state_dict
    assert all(not value[~masks[key]].any() for key, value in found.items())


@pytest.mark.parametrize("name", MAKE)
def test_result_shares_no_memory_and_ingredients_stay(name):
    states = random_states(MODELS["GCN"], 3)
    before = [{k: v.clone() for k, v in state.items()} for state in states]
    result = MAKE[name](states, Evaluator(MODELS["GCN"](), random_graph()))
    for value in result.state_dict.values():
        value.fill_(7)
    assert all(same_state(state, old) for state, old in zip(states, before, strict=True))


@pytest.mark.parametrize("name", MAKE)
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
        MAKE[name](states, judge)
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


@pytest.mark.parametrize("name", MAKE)
def test_test_labels_change_nothing(name):
    data, other = random_graph(), random_graph()
    other.y[~other.val_mask] = (other.y[~other.val_mask] + 1) % 3
    states = random_states(MODELS["GCN"], 3)
    first, second = (MAKE[name](states, Evaluator(MODELS["GCN"](), graph)) for graph in (data, other))
    assert same_state(first.state_dict, second.state_dict)


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precision(name, dtype):
    data = random_graph()
    data.x = data.x.to(dtype)

    def make_model():
        return MODELS["GraphSAGE"]().to(dtype)

    states = random_states(make_model, 3)
    result = MAKE[name](states, Evaluator(make_model(), data))
    assert {value.dtype for value in result.state_dict.values()} == {dtype}
    assert_weights(name, result, states)


@pytest.mark.parametrize("name", MAKE)
def test_one_ingredient_is_the_soup(name):
    states = random_states(MODELS["GCN"], 1)
    result = MAKE[name](states, Evaluator(MODELS["GCN"](), random_graph()))
    assert same_state(result.state_dict, states[0])


@pytest.mark.parametrize("name", MAKE)
def test_bad_ingredients(name):
    evaluator = Evaluator(MODELS["GCN"](), random_graph())
    states = random_states(MODELS["GCN"], 2)
    with pytest.raises(ValueError, match="at least one state dict"):
        MAKE[name]([], evaluator)
    with pytest.raises(TypeError, match="'ingredients'"):
        MAKE[name](states[0], evaluator)
    with pytest.raises(TypeError, match="'evaluator'"):
        MAKE[name](states, None)
    broken = {k: torch.full_like(v, torch.nan) for k, v in states[0].items()}
    with pytest.raises(ValueError, match="ingredient 1 holds values that are not numbers"):
        MAKE[name]([states[0], broken], evaluator)
    with pytest.raises(ValueError, match="ingredient 1 does not fit the model"):
        MAKE[name]([states[0], random_states(MODELS["GAT"], 1)[0]], evaluator)
    with pytest.raises(ValueError, match="torch.float64, not"):
        MAKE[name]([states[0], {k: v.double() for k, v in states[1].items()}], evaluator)


@pytest.mark.parametrize("name", MAKE)
def test_bad_options(name):
    states, judge = random_states(MODELS["GCN"], 2), HashJudge(MODELS["GCN"]())
    judge.score = lambda state: pytest.fail("scored")
    for option, error in (
        ({"split_validation": 1}, TypeError),
        ({"seed": 1.5}, TypeError),
        ({"seed": -1}, ValueError),
        ({"log": 3}, TypeError),
        ({"flavour": 3}, TypeError),
    ):
        with pytest.raises(error, match=f"'{next(iter(option))}'"):
            MAKE[name](states, judge, **option)


@pytest.mark.parametrize("name", GUARDED)
def test_log_gets_the_trace_and_there_is_a_bar(name, capsys):
    entries = []
    result = MAKE[name](random_states(MODELS["GCN"], 4), HashJudge(MODELS["GCN"]()), log=entries.append, progress=True)
    assert entries == result.trace != []
    assert "soup: 100%" in capsys.readouterr().err


@pytest.mark.parametrize("name", MAKE)
def test_names_of_one_tensor_must_agree_and_scores_be_numbers(name):
    states, judge = random_states(NormAndTie, 2), HashJudge(NormAndTie())
    states[1]["third.lin.weight"] = states[1]["third.lin.weight"] + 1
    with pytest.raises(ValueError, match="ingredient 1 has different values in 'third.lin.weight' and 'second.lin"):
        MAKE[name](states, judge)
    judge = HashJudge(MODELS["GCN"]())
    judge.score = lambda state: float("nan")
    if name in GUARDED:
        with pytest.raises(ValueError, match="'evaluator' gives no number for ingredient 0"):
            MAKE[name](random_states(MODELS["GCN"], 2), judge, split_validation=False)


def test_a_store_of_another_graph(tmp_path):
    data = random_graph()
    store = train_ingredients(MODELS["GCN"], data, 2, tmp_path / "store", training=Training(epochs=1), workers=0)
    assert len(uniform_soup(store, Evaluator(MODELS["GCN"](), data)).ingredient_vals) == 2
    with pytest.raises(ValueError, match="belongs to another graph"):
        uniform_soup(store, Evaluator(MODELS["GCN"](), random_graph(seed=1)))


def test_the_halves_of_a_seed_share_no_node_and_miss_none():
    whole = Evaluator(MODELS["GCN"](), random_graph())
    acceptance = Acceptance(Ingredients(random_states(MODELS["GCN"], 2), whole), whole, seed=3)
    fit, judge = acceptance.fit, acceptance.judge
    assert not (fit.data.mask & judge.data.mask).any()
    assert ((fit.data.mask | judge.data.mask) == whole.data.mask).all()
    assert (fit.data.y[judge.data.mask] == -1).all()


def test_a_recipe_of_ones_own():
    states, seen = random_states(MODELS["GCN"], 3), {}

    @soup(name="test", source="here")
    def newest(ingredients, acceptance, *, share=0.25):
        """Mix the best with the last."""
        seen.update(val=acceptance.val, order=acceptance.order, seed=acceptance.seed)
        assert acceptance.soup.weights.tolist() == [float(i == acceptance.order[0]) for i in range(3)]
        acceptance.take(mix(acceptance.soup, ingredients[2], 1 - share))
        acceptance.note(share=share)

    try:
        assert SOUPS["test"] is newest
        assert (newest.name, newest.source, newest.__doc__) == ("test", "here", "Mix the best with the last.")
        judge = HashJudge(MODELS["GCN"]())
        found = newest(states, judge, share=0.5, split_validation=False, seed=7)
        best = seen["order"][0]
        assert found.weights.tolist() == [0.5 * (i == best) + 0.5 * (i == 2) for i in range(3)]
        assert same_state(found.state_dict, mix(states[best], states[2], 0.5))
        assert (found.trace, seen["seed"]) == ([{"share": 0.5}], 7)
        # A state that nobody knows the shares of is a soup without weights.
        plain = soup(name="test")(lambda ingredients, acceptance: acceptance.take(dict(ingredients[1])))
        assert plain(states, judge).weights is None
        for recipe in (lambda ingredients: None, lambda ingredients, acceptance, share: None):
            with pytest.raises(TypeError, match=r"a recipe must have the parameters \(ingredients, acceptance, \*, "):
                soup(name="test")(recipe)
    finally:
        del SOUPS["test"]
