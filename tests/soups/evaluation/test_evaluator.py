import pytest
import torch
from soup_models import CACHED, OTHERS, TREACHEROUS, two_states
from torch import nn
from torch_geometric.nn import GAT, GCN, GCN2Conv, GCNConv, TAGConv
from torch_geometric.transforms import ToSparseTensor

import graphsparse.nn
from graphsparse.metrics import accuracy
from graphsparse.soups.evaluation.evaluator import Evaluator
from graphsparse.soups.states import mix
from graphsparse.testing import random_graph
from graphsparse.training import predict


def trained(model, state, data):
    model.load_state_dict(state)
    return accuracy(predict(model, data), data.y, data.val_mask)


@pytest.mark.parametrize("mode", ["plain", "cached", "auto"])
def test_every_mode_scores_what_a_loaded_model_gets(mode):
    data = random_graph(300)
    model, first, second = two_states(CACHED["GCN 3"])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    evaluator = Evaluator(model, data, mode=mode)
    scores = evaluator.scan(first, second, [1.0, 0.4, 0.0])
    single = [evaluator.score(state) for state in (first, mix(first, second, 0.4), second)]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training
    expected = [trained(model, state, data) for state in (first, mix(first, second, 0.4), second)]
    assert scores == single == expected


def test_the_active_mode_is_told():
    data = random_graph()
    model = CACHED["GCN 2"]()
    assert (Evaluator(model, data).mode, Evaluator(model, data).reason) == ("cached", "")
    other = Evaluator(TAGConv(8, 3, K=2), data)
    assert other.mode == "plain"
    assert "TAGConv" in other.reason
    assert "accelerate" in other.reason
    matrix = ToSparseTensor(layout=torch.sparse_csr)(random_graph())
    assert "adj_t" in Evaluator(GCN(8, 16, 2, 3), matrix).reason
    normed = Evaluator(CACHED["GCN, batch normalisation"](), data)
    assert normed.mode == "plain"
    assert "batch normalisation" in normed.reason
    with pytest.raises(ValueError, match="cannot be 'cached' here: .*TAGConv"):
        Evaluator(TAGConv(8, 3, K=2), data, mode="cached")
    with pytest.raises(ValueError, match="cannot be 'cached' here: 'call' is given"):
        Evaluator(model, data, mode="cached", call=lambda net, graph: net(graph.x, graph.edge_index))


@pytest.mark.parametrize("name", OTHERS)
def test_models_of_other_kinds_are_evaluated_as_they_are(name):
    data = random_graph(400)
    model, first, second = two_states(OTHERS[name])
    evaluator = Evaluator(model, data)
    assert evaluator.mode == "plain"
    mixtures = [mix(first, second, ratio) for ratio in (0.9, 0.1)]
    assert evaluator.scan(first, second, [0.9, 0.1]) == [trained(model, state, data) for state in mixtures]


@pytest.mark.parametrize("name", TREACHEROUS)
def test_what_looks_like_a_known_model_gets_what_it_gives_itself(name):
    data = random_graph(400)
    model, first, second = two_states(TREACHEROUS[name])
    before = data.x.clone()
    mixtures = [first, mix(first, second, 0.6), second]
    copies = [data.clone() for _ in mixtures]
    other = TREACHEROUS[name]()
    expected = [trained(other, state, copied) for state, copied in zip(mixtures, copies, strict=True)]
    evaluator = Evaluator(model, data)
    for _ in range(2):
        assert evaluator.scan(first, second, [1.0, 0.6, 0.0]) == expected
        assert [evaluator.score(state) for state in mixtures] == expected
    assert torch.equal(data.x, before)


def test_plain_passes_run_the_layers_of_this_package():
    data, seen = random_graph(), []
    evaluator = Evaluator(
        OTHERS["GCNII of one's own"](), data, call=lambda net, graph: seen.append(net) or net(graph.x, graph.edge_index)
    )
    evaluator.score(evaluator.model.state_dict())
    assert all(isinstance(conv, graphsparse.nn.GCN2Conv) for conv in seen[0].convs)
    assert all(type(conv) is GCN2Conv for conv in evaluator.model.convs)


def test_edge_features_are_left_to_whole_passes():
    data = random_graph()
    data.edge_attr = torch.rand(data.num_edges, 4)
    model, state, _ = two_states(lambda: GAT(8, 16, 2, 3, edge_dim=4))
    evaluator = Evaluator(model, data)
    assert (evaluator.mode, evaluator.reason) == ("plain", "a layer takes features of edges")
    assert evaluator.score(state) == trained(model, state, data)
    assert Evaluator(GAT(8, 16, 2, 3), data).mode == "cached"


def test_weights_that_a_model_does_not_take_are_refused():
    data = random_graph()
    data.edge_weight = torch.ones(data.num_edges)
    model, state, _ = two_states(CACHED["SAGE 2"])
    evaluator = Evaluator(model, data)
    assert "edge_weight" in evaluator.reason
    with pytest.raises(ValueError, match="edge weights"):
        evaluator.score(state)


class Wrong(nn.Module):
    def __init__(self, change):
        super().__init__()
        self.conv, self.change = GCNConv(8, 3), change

    def forward(self, x, edge_index):
        return self.change(self.conv(x, edge_index))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda h: h.unsqueeze(-1), ValueError, "one row of logits per node, .60, C. .got .60, 3, 1.."),
        (lambda h: h[:, 0], ValueError, "one row of logits per node, .60, C. .got .60.."),
        (lambda h: h[:-1], ValueError, "one row of logits per node, .60, C. .got .59, 3.."),
        (lambda h: (h, h), TypeError, "must return a tensor of logits .got tuple."),
        (lambda h: h[:, :2], ValueError, "the model returns 2 classes"),
    ],
)
def test_outputs_that_are_no_logits_are_refused(change, error, message):
    evaluator = Evaluator(model := Wrong(change), random_graph())
    with pytest.raises(error, match=message):
        evaluator.score(model.state_dict())


@pytest.mark.parametrize("mode", ["plain", "cached"])
def test_too_few_classes_are_refused(mode):
    evaluator = Evaluator(model := GCN(8, 16, 2, 2), random_graph(), mode=mode)
    for score in (evaluator.score, lambda state: evaluator.scan(state, state, [0.5])):
        with pytest.raises(ValueError, match="run to 2, but the model returns 2 classes"):
            score(model.state_dict())


@pytest.mark.parametrize("mode", ["plain", "cached"])
def test_values_that_are_infinite_in_both_states_stay_so(mode):
    """A class that is never given."""
    data = random_graph(200)
    model, first, second = two_states(CACHED["GCN, jk cat"])
    first["lin.bias"][1] = second["lin.bias"][1] = -torch.inf
    evaluator = Evaluator(model, data, mode=mode)
    expected = [trained(model, mix(first, second, ratio), data) for ratio in (0.7, 0.2)]
    assert evaluator.scan(first, second, [0.7, 0.2]) == expected


def test_states_of_inference_mode():
    data = random_graph(200)
    model, first, second = two_states(CACHED["GCN 2"])
    evaluator = Evaluator(model, data)
    expected = evaluator.scan(first, second, [0.7, 0.2])
    with torch.inference_mode():
        states = [{name: value.clone() for name, value in state.items()} for state in (first, second)]
    assert evaluator.scan(*states, [0.7, 0.2]) == expected


def test_batch_normalisation_is_that_of_the_mixture():
    data = random_graph(200)
    model, first, second = two_states(CACHED["GCN, batch normalisation"])
    evaluator = Evaluator(model, data)
    mixed = mix(first, second, 0.5)
    ready = evaluator.prepared(mixed)
    assert evaluator.prepared(ready)["norms.0.module.running_mean"].equal(ready["norms.0.module.running_mean"])
    assert not ready["norms.0.module.running_mean"].equal(mixed["norms.0.module.running_mean"])
    assert (
        evaluator.score(mixed) == Evaluator(model, data, batch_norm="keep").score(ready) == trained(model, ready, data)
    )
    kept = Evaluator(model, data, batch_norm="keep")
    assert kept.prepared(mixed) is mixed
    assert kept.mode == "cached"


def test_halves_add_up_to_the_whole():
    data = random_graph(301)
    model, first, _ = two_states(CACHED["SAGE 2"])
    evaluator = Evaluator(model, data)
    fit, accept = evaluator.halves(seed=5)
    whole = fit.score(first) * fit.num_nodes + accept.score(first) * accept.num_nodes
    assert round(whole) == round(evaluator.score(first) * evaluator.num_nodes)
    assert fit.num_nodes + accept.num_nodes == evaluator.num_nodes == int(data.val_mask.sum())
    assert not set(fit.nodes.tolist()) & set(accept.nodes.tolist())
    assert evaluator.score(first) == Evaluator(model, data).score(first)  # the whole is as it was


def test_another_metric():
    data = random_graph(200)

    def least(logits, y):
        right = logits.argmax(1) == y
        return min(float(right[y == label].double().mean()) for label in y.unique())

    model, first, second = two_states(CACHED["GCN 2"])
    scores = [
        Evaluator(model, data, metric=least, mode=mode).scan(first, second, [0.9, 0.1]) for mode in ("plain", "cached")
    ]
    assert scores[0] == scores[1]


def test_no_other_label_matters():
    data = random_graph(200)
    model, first, second = two_states(CACHED["GCN 2"])
    expected = Evaluator(model, data).scan(first, second, [0.7, 0.2])
    data.y[~data.val_mask] = 0
    data.test_mask[:] = False
    assert Evaluator(model, data).scan(first, second, [0.7, 0.2]) == expected


def test_a_call_of_ones_own():
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = GCNConv(8, 3)

        def forward(self, graph):
            return self.conv(graph.x, graph.edge_index)

    data = random_graph()
    model, first, _ = two_states(Net)
    evaluator = Evaluator(model, data, call=lambda net, graph: net(graph))
    model.load_state_dict(first)
    assert evaluator.score(first) == accuracy(model(data), data.y, data.val_mask)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"mode": "fast"}, ValueError, "'mode' must be one of"),
        ({"batch_norm": "lerp"}, ValueError, "'batch_norm' must be one of"),
        ({"mask": "nothing"}, ValueError, "no 'nothing'"),
        ({"metric": 3}, TypeError, "'metric' must be a function"),
        ({"call": 3}, TypeError, "'call' must be a function"),
    ],
)
def test_arguments_that_cannot_be(options, error, message):
    with pytest.raises(error, match=message):
        Evaluator(CACHED["GCN 2"](), random_graph(), **options)
    with pytest.raises(TypeError, match="'model' must be"):
        Evaluator(None, random_graph())
    data = random_graph()
    for y, message in (
        (data.y.view(-1, 1), "one class per node, .N., where 'metric' is None .got .'N', 1.."),
        (data.y - 3, "from -3 to -2: a class is an integer from 0"),
    ):
        data.y = y
        with pytest.raises(ValueError, match=message):
            Evaluator(CACHED["GCN 2"](), data)
    evaluator = Evaluator(model := CACHED["GCN 2"](), random_graph())
    with pytest.raises(ValueError, match="'ratios' must be in"):
        evaluator.scan(model.state_dict(), model.state_dict(), [2.0])
