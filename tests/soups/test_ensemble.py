import pytest
import torch
from models import MODELS
from soup_helpers import random_states
from torch_geometric.nn import GCN

from graphsparse.metrics import accuracy
from graphsparse.replication import released_learned_soup
from graphsparse.soups import Evaluator, diagnose, ensemble, learned_soup
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


def test_several_labels_are_sigmoids():
    """The mean of what each ingredient says of every label, of which several may be right."""
    data = random_graph()
    data.y = (torch.rand(data.num_nodes, 3) < 0.4).float()

    def metric(z, y):
        return float(((z > 0) == (y > 0)).double().mean())

    evaluator, states = Evaluator(MODELS["GCN"](), data, metric=metric), random_states(MODELS["GCN"], 4, spread=5.0)
    found = ensemble(states, evaluator, mean="probabilities")
    expected = all_logits("GCN", states, data).double().sigmoid().mean(0)
    torch.testing.assert_close(found.logits.double().sigmoid(), expected, rtol=1e-4, atol=1e-5)
    assert found.score == pytest.approx(metric(expected - 0.5, data.y[data.val_mask]))
    # Confident to the last bit, yet still finite and in order.
    far = ensemble([{n: 1e3 * v for n, v in state.items()} for state in states], evaluator, mean="probabilities")
    assert far.logits.isfinite().all()


def test_one_logit_for_two_classes():
    data = random_graph(num_classes=2)

    def make_model():
        return GCN(8, 16, 2, 1)

    def metric(z, y):
        return float(((z.view(-1) > 0) == (y > 0)).double().mean())

    evaluator, states = Evaluator(make_model(), data, metric=metric), random_states(make_model, 3)
    found = ensemble(states, evaluator, mean="probabilities")
    expected = torch.stack([evaluator.logits(state).double().sigmoid() for state in states]).mean(0)
    torch.testing.assert_close(found.logits.double().sigmoid(), expected, rtol=1e-4, atol=1e-5)


def test_any_metric():
    data = random_graph()
    states = random_states(MODELS["GCN"], 2)
    evaluator = Evaluator(MODELS["GCN"](), data, metric=lambda logits, y: -float(logits.sum()))
    found = ensemble(states, evaluator)
    assert found.score == pytest.approx(sum(found.ingredient_scores) / 2, rel=1e-4)


def test_unknown_mean():
    with pytest.raises(ValueError, match="'mean' must be one of"):
        ensemble(random_states(MODELS["GCN"], 2), Evaluator(MODELS["GCN"](), random_graph()), mean="votes")


def test_scores_must_be_numbers():
    evaluator = Evaluator(MODELS["GCN"](), random_graph(), metric=lambda logits, y: float("nan"))
    with pytest.raises(ValueError, match="'evaluator' gives no number for ingredient 0"):
        ensemble(random_states(MODELS["GCN"], 2), evaluator)


def test_what_has_no_probabilities():
    data, model = random_graph(), GCN(8, 16, 2, 1)
    data.y = torch.randn(60, 1)
    states = random_states(lambda: GCN(8, 16, 2, 1), 2)
    evaluator = Evaluator(model, data, metric=lambda logits, y: -float((logits - y).square().mean()))
    with pytest.raises(ValueError, match="'mean' cannot be 'probabilities' for labels that are neither classes"):
        ensemble(states, evaluator, mean="probabilities")
    model.load_state_dict(states[0])
    first = predict(model, data)
    model.load_state_dict(states[1])
    mean = (first + predict(model, data)) / 2
    torch.testing.assert_close(ensemble(states, evaluator).logits, mean[data.val_mask])
    with pytest.raises(ValueError, match="there is no loss for these labels, give 'loss'"):
        learned_soup(states, evaluator, epochs=1)
    with pytest.raises(ValueError, match="learns by cross-entropy"):
        released_learned_soup(states, evaluator, epochs=1)
    mse = torch.nn.functional.mse_loss
    assert learned_soup(states, evaluator, epochs=2, loss=mse).val >= max(ensemble(states, evaluator).ingredient_scores)


class Broken(GCN):
    def forward(self, x, edge_index):
        return super().forward(x, edge_index) * float("nan")


def test_logits_that_are_not_numbers():
    states = random_states(lambda: Broken(8, 16, 2, 3), 2)
    evaluator = Evaluator(Broken(8, 16, 2, 3), random_graph())
    for use in (ensemble, diagnose):
        with pytest.raises(ValueError, match="ingredient 0 gives logits that are not numbers"):
            use(states, evaluator)
