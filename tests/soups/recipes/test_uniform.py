import pytest
import torch
from models import MODELS
from soup_helpers import HashJudge, random_states
from torch_geometric.nn import GCN

from graphsparse.datasets import load
from graphsparse.soups.evaluation.evaluator import Evaluator
from graphsparse.soups.recipes.uniform import uniform_soup
from graphsparse.testing import random_graph
from graphsparse.training import fit, predict


@pytest.mark.parametrize("kind", MODELS)
def test_streaming_mean_is_the_direct_mean(kind):
    states = random_states(MODELS[kind], 5)
    evaluator = Evaluator(MODELS[kind](), random_graph(), batch_norm="keep")
    result = uniform_soup(iter_only_by_number(states), evaluator)
    for name, value in states[0].items():
        if value.is_floating_point():
            expected = torch.stack([state[name].double() for state in states]).mean(0)
            torch.testing.assert_close(result.state_dict[name], expected.to(value.dtype), rtol=2e-7, atol=1e-8)
        else:
            assert torch.equal(result.state_dict[name], value)
    assert result.weights.tolist() == [0.2] * 5
    assert result.score == evaluator.score(result.state_dict)
    assert result.ingredient_scores == [evaluator.score(state) for state in states]


def iter_only_by_number(states):
    """What is asked of ingredients: a length, and a state for each number."""

    class Store:
        def __len__(self):
            return len(states)

        def __getitem__(self, index):
            assert 0 <= index < len(states)
            return states[index]

        __iter__ = None

    return Store()


def test_order_of_ingredients_does_not_matter_for_the_weights():
    states = random_states(MODELS["GCN"], 4)
    judge = HashJudge(MODELS["GCN"]())
    first, second = (uniform_soup(order, judge).state_dict for order in (states, states[::-1]))
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], rtol=1e-6, atol=1e-8)


@pytest.mark.bands
def test_ingredients_must_share_their_start_on_cora(data_root):
    """Averaging networks from different starts costs points; from one start it does not."""
    torch.set_num_threads(1)
    data = load("cora", str(data_root))
    x = data.x.to_dense() if data.x.layout != torch.strided else data.x
    # The leading directions of the features, which make training fast.
    _, _, directions = torch.linalg.svd(x, full_matrices=False)
    data.x = x @ directions[:64].t()

    def test_accuracy(shared, repeat):
        states = []
        for i in range(4):
            torch.manual_seed(100 * repeat + (0 if shared else i))
            model = GCN(64, 64, 2, 7, dropout=0.5)
            states.append(fit(model, data, epochs=100, lr=0.01, weight_decay=5e-4, seed=100 * repeat + i).state_dict)
        soup = uniform_soup(states, Evaluator(model, data))
        model.load_state_dict(soup.state_dict)
        right = predict(model, data).argmax(1) == data.y
        return 100 * float(right[data.test_mask].float().mean())

    shared, independent = (sum(test_accuracy(kind, r) for r in range(2)) / 2 for kind in (True, False))
    assert shared - independent >= 3
    assert shared == pytest.approx(80.7, abs=1.5)  # measured with an implementation that shares no line with ours
