"""A greedy soup written outside the package, with public names only."""

import inspect

import pytest
from models import MODELS
from resuming import same_state

from graphsparse.soups import SOUPS, Evaluator, greedy_soup, mix, soup, train_ingredients
from graphsparse.testing import random_graph
from graphsparse.training import Training

# What a user writes: counted below.


@soup(name="mean of those that help", source="Wortsman et al., arXiv 2203.05482, Recipe 1")
def mean_of_those_that_help(ingredients, acceptance):
    """Add ingredients to a mean one by one, from the best to the worst, and keep those that help."""
    members = 1
    for i in acceptance.order[1:]:
        candidate = mix(acceptance.soup, ingredients[i], members / (members + 1))
        members += acceptance.offer(candidate, ingredient=i)


def test_it_has_at_most_15_lines():
    assert len(inspect.getsource(mean_of_those_that_help).splitlines()) <= 15


@pytest.mark.parametrize("kind", ["GCN", "GraphSAGE", "GAT"])
@pytest.mark.parametrize("split_validation", [True, False])
def test_it_is_the_greedy_soup_on_ingredients_that_were_trained(tmp_path, kind, split_validation):
    data = random_graph(200)
    store = train_ingredients(MODELS[kind], data, 5, tmp_path / "store", training=Training(epochs=8), workers=0)
    evaluator = Evaluator(MODELS[kind](), data)
    own = SOUPS["mean of those that help"](store, evaluator, split_validation=split_validation, seed=3)
    ours = greedy_soup(store, evaluator, split_validation=split_validation, seed=3)
    assert same_state(own.state_dict, ours.state_dict)
    assert (own.val, own.ingredient_vals, own.trace) == (ours.val, ours.ingredient_vals, ours.trace)
    assert own.weights.tolist() == ours.weights.tolist()
    assert own.val >= max(own.ingredient_vals)
