import pytest
import torch
import torch.nn.functional as F
from models import MODELS, NormAndTie
from soup_helpers import random_states

from graphsparse.soups.evaluation.evaluator import Evaluator
from graphsparse.soups.evaluation.gradient import inner_products, node_loss, state_gradient
from graphsparse.soups.recipes.ingredients import Ingredients
from graphsparse.soups.states.grouping import group_tensors
from graphsparse.soups.states.states import combine
from graphsparse.testing import random_graph


def explicit(kind, states, evaluator, grouping, shares, scale=None):
    """Loss by autograd through the mixture itself, with all states in memory; derivative of the shares."""
    shares = shares.clone().requires_grad_()
    weights = grouping.weights(shares)
    mixed = {
        name: sum(w * state[name] for w, state in zip(weights[name], states, strict=True))
        for name in weights
        if name in dict(evaluator.model.named_parameters())
    }
    data = evaluator.data
    logits = torch.func.functional_call(evaluator.model, mixed, (data.x, data.edge_index))[data.mask]
    loss = F.cross_entropy(logits if scale is None else scale * logits, data.y[data.mask])
    loss.backward()
    return loss.item(), shares.grad


@pytest.mark.parametrize("kind", ["GCN", "GraphSAGE", "GAT", "GIN", "GCNII"])
@pytest.mark.parametrize("groups", ["tensor", "layer", "global"])
def test_derivative_of_the_coefficients_is_autograd_through_the_mixture(kind, groups):
    data = random_graph()
    data.x = data.x.double()

    def make_model():
        return MODELS[kind]().double()

    states = random_states(make_model, 4)
    evaluator = Evaluator(make_model(), data)
    grouping = group_tensors(evaluator.model, groups)
    shares = torch.randn(grouping.count, 4).double().softmax(1)
    loss, gradient = state_gradient(
        evaluator.model, combine(states, grouping.weights(shares)), list(grouping.trained), evaluator.data
    )
    expected_loss, expected = explicit(kind, states, evaluator, grouping, shares)
    assert loss == pytest.approx(expected_loss, abs=1e-9)
    torch.testing.assert_close(inner_products(states, gradient, grouping), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kind", ["GCN", "GraphSAGE", "GAT"])
def test_derivative_in_single_precision(kind):
    states = random_states(MODELS[kind], 4)
    evaluator = Evaluator(MODELS[kind](), random_graph())
    grouping = group_tensors(evaluator.model, "tensor")
    shares = torch.full((grouping.count, 4), 0.25).double()
    _, gradient = state_gradient(
        evaluator.model, combine(states, grouping.weights(shares)), list(grouping.trained), evaluator.data
    )
    _, expected = explicit(kind, states, evaluator, grouping, shares.float())
    torch.testing.assert_close(inner_products(states, gradient, grouping).float(), expected, rtol=1e-4, atol=1e-6)


def test_output_scale_and_weight_of_the_loss():
    states = random_states(MODELS["GCN"], 1)
    evaluator = Evaluator(MODELS["GCN"](), random_graph())
    names = list(states[0])
    scale = torch.tensor(1.7, dtype=torch.float64, requires_grad=True)
    loss, _ = state_gradient(evaluator.model, states[0], names, evaluator.data, weight=2.0, scale=scale)
    again = torch.tensor(1.7, requires_grad=True)
    expected = 2 * F.cross_entropy(again * evaluator.logits(states[0]), evaluator.y)
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    assert scale.grad.item() == pytest.approx(again.grad.item(), rel=1e-5)


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


def test_dropout_is_off_unless_asked_for_and_modes_are_given_back():
    evaluator = Evaluator(MODELS["GCN"](), random_graph())
    state = random_states(MODELS["GCN"], 1)[0]
    losses = {
        dropout: {state_gradient(evaluator.model, state, list(state), evaluator.data, dropout=dropout)[0] for _ in "ab"}
        for dropout in (False, True)
    }
    assert [len(losses[False]), len(losses[True])] == [1, 2]
    assert not any(module.training for module in evaluator.model.modules())


def test_dropout_leaves_statistics_of_batch_normalisation_alone():
    evaluator = Evaluator(NormAndTie(), random_graph())
    state = Ingredients(random_states(NormAndTie, 1), evaluator)[0]
    before = {name: value.clone() for name, value in state.items()}
    state_gradient(evaluator.model, state, ["first.bias"], evaluator.data, dropout=True)
    assert all(torch.equal(value, before[name]) for name, value in state.items())


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
