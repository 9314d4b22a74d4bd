import pytest
import torch
from models import MODELS
from soup_helpers import random_states

from graphsparse.metrics import accuracy
from graphsparse.soups.evaluation.evaluator import Evaluator
from graphsparse.soups.recipes.ensemble import ensemble
from graphsparse.testing import random_graph
from graphsparse.training import predict


def all_logits(kind, states, data):
    model = MODELS[kind]()
    found = []
    for state in states:
        model.load_state_dict(state)
        found.append(predict(model, data)[data.val_mask])
    return torch.stack(found)


@pytest.mark.parametrize("kind", ["GCN", "GAT", "GraphSAGE"])
def test_means_of_logits_and_of_probabilities(kind):
    data = random_graph()
    states = random_states(MODELS[kind], 4)
    evaluator = Evaluator(MODELS[kind](), data)
    logits = all_logits(kind, states, data)
    y = data.y[data.val_mask]
    for mean, expected in (("logits", logits.mean(0)), ("probabilities", logits.softmax(2).mean(0).log())):
        found = ensemble(states, evaluator, mean=mean)
        torch.testing.assert_close(found.logits, expected, rtol=1e-4, atol=1e-5)
        assert found.score == accuracy(expected, y)
        assert found.ingredient_scores == [accuracy(one, y) for one in logits]


def test_any_metric():
    data = random_graph()
    states = random_states(MODELS["GCN"], 2)
    evaluator = Evaluator(MODELS["GCN"](), data, metric=lambda logits, y: -float(logits.sum()))
    found = ensemble(states, evaluator)
    assert found.score == pytest.approx(sum(found.ingredient_scores) / 2, rel=1e-4)


def test_unknown_mean():
    with pytest.raises(ValueError, match="'mean' must be one of"):
        ensemble(random_states(MODELS["GCN"], 2), Evaluator(MODELS["GCN"](), random_graph()), mean="votes")
