import pytest
import torch
from models import MODELS, NormAndTie
from soup_helpers import HashJudge, random_states

from graphsparse.soups import Evaluator, train_ingredients
from graphsparse.soups.recipes.ingredients import Ingredients, best_first, one_hot
from graphsparse.testing import random_graph
from graphsparse.training import Training

GCN = MODELS["GCN"]


def test_length_states_and_scores():
    states = random_states(GCN, 3)
    judge = HashJudge(GCN())
    found = Ingredients(states, judge)
    assert len(found) == 3
    assert all(torch.equal(found[1][name], states[1][name]) for name in states[1])
    done = []
    assert found.scores(judge, lambda: done.append(1)) == [judge.score(state) for state in states]
    assert done == [1, 1, 1]


def test_ranking_and_one_hot():
    assert best_first([0.1, 0.9, 0.5, 0.9]) == [1, 3, 2, 0]
    assert one_hot(1, 3).tolist() == [0, 1, 0]


def test_names_of_one_tensor_must_agree():
    states = random_states(NormAndTie, 2)
    found = Ingredients(states, HashJudge(NormAndTie()))
    assert found[0]["third.lin.weight"] is found[0]["second.lin.weight"]
    states[1]["third.lin.weight"] = states[1]["third.lin.weight"] + 1
    with pytest.raises(ValueError, match="ingredient 1 has different values in 'third.lin.weight' and 'second.lin"):
        Ingredients(states, HashJudge(NormAndTie()))


def test_scores_must_be_numbers():
    judge = HashJudge(GCN())
    judge.score = lambda state: float("nan")
    with pytest.raises(ValueError, match="'evaluator' gives no number for ingredient 0"):
        Ingredients(random_states(GCN, 2), judge).scores(judge)


def test_wrong_evaluator_and_ingredients_of_another_model():
    with pytest.raises(TypeError, match="'evaluator' must be an Evaluator"):
        Ingredients(random_states(GCN, 2), GCN())
    with pytest.raises(ValueError, match="ingredient 0 does not fit the model"):
        Ingredients(random_states(MODELS["GAT"], 2), HashJudge(GCN()))


def test_a_store_of_another_graph(tmp_path):
    data = random_graph()
    store = train_ingredients(GCN, data, 2, tmp_path / "store", training=Training(epochs=1), workers=0)
    assert len(Ingredients(store, Evaluator(GCN(), data))) == 2
    with pytest.raises(ValueError, match="belongs to another graph"):
        Ingredients(store, Evaluator(GCN(), random_graph(seed=1)))
