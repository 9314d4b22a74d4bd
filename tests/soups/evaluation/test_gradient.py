import pytest
import torch
import torch.nn.functional as F
from models import MODELS, NormAndTie
from soup_helpers import random_states

from graphsparse.soups import Evaluator, Ingredients
from graphsparse.soups.recipes.learned import node_loss, state_gradient
from graphsparse.testing import random_graph


def test_weight_of_the_loss_and_the_modes_are_given_back():
    states = random_states(MODELS["GCN"], 1)
    evaluator = Evaluator(MODELS["GCN"](), random_graph())
    loss, _ = state_gradient(evaluator.model, states[0], list(states[0]), evaluator.data, weight=2.0)
    assert loss == pytest.approx(2 * F.cross_entropy(evaluator.logits(states[0]), evaluator.y).item(), rel=1e-5)
    assert not any(module.training for module in evaluator.model.modules())


def test_a_tied_weight_has_the_gradient_of_both_places():
    states = Ingredients(random_states(NormAndTie, 1), Evaluator(NormAndTie(), random_graph()))
    evaluator = Evaluator(NormAndTie(), random_graph())
    model, data = evaluator.model, evaluator.data
    state = evaluator.prepared(states[0])
    _, gradient = state_gradient(model, state, [name for name, _ in model.named_parameters()], data)
    model.load_state_dict(state)
    model.requires_grad_(True)
    F.cross_entropy(model(data.x, data.edge_index)[data.mask], data.y[data.mask]).backward()
    for name, value in model.named_parameters():
        torch.testing.assert_close(gradient[name], value.grad)


def test_several_labels():
    logits = torch.randn(5, 3)
    y = torch.randint(2, (5, 3)).float()
    expected = F.binary_cross_entropy_with_logits(logits, y)
    torch.testing.assert_close(node_loss(logits, y), expected)
    torch.testing.assert_close(node_loss(logits, y.long()), expected)
    y[0, 1] = torch.nan
    keep = torch.ones(5, 3, dtype=torch.bool)
    keep[0, 1] = False
    torch.testing.assert_close(node_loss(logits, y), F.binary_cross_entropy_with_logits(logits[keep], y[keep]))


def test_loss_that_is_not_finite():
    evaluator = Evaluator(MODELS["GCN"](), random_graph())
    state = random_states(MODELS["GCN"], 1)[0]
    state["convs.0.bias"] = torch.full((16,), torch.inf)
    with pytest.raises(FloatingPointError, match="the loss is nan"):
        state_gradient(evaluator.model, state, list(state), evaluator.data)


@pytest.mark.parametrize(
    ("logits", "y", "message"),
    [
        (torch.zeros(4, 3), torch.zeros(4), r"give 'loss'.*'data.y' \[4\] of torch.float32"),
        (torch.zeros(4, 3), torch.zeros(4, 2), r"give 'loss'.*logits \[4, 3\], 'data.y' \[4, 2\]"),
        (torch.zeros(4, 3, 1), torch.zeros(4).long(), r"logits \[4, 3, 1\]"),
        (torch.zeros(4, 3), torch.tensor([0, 1, 2, 3]), r"runs from 0 to 3, but the model returns 3 outputs"),
        (torch.zeros(4, 3), torch.tensor([0, 1, 2, -1]), r"runs from -1 to 2"),
        (
            torch.zeros(4, 1),
            torch.tensor([[0.5], [1.0], [0.0], [2.0]]),
            "give 'loss': several labels per node must be 0",
        ),
        (torch.zeros(4, 2), torch.tensor([[0, 1]] * 3 + [[0, 2]]), "several labels per node must be 0, 1 or NaN"),
        (torch.zeros(4, 1), torch.tensor([0, 1, 2, 1]), r"runs from 0 to 2, but the model returns 1 outputs"),
    ],
)
def test_labels_that_have_no_loss(logits, y, message):
    with pytest.raises(ValueError, match=message):
        node_loss(logits, y)


def test_one_logit_for_two_classes():
    logits, y = torch.randn(6, 1), torch.tensor([0, 1, 1, 0, 1, 0])
    torch.testing.assert_close(node_loss(logits, y), F.cross_entropy(torch.cat([0 * logits, logits], 1), y))
