import pytest
import torch
from soup_models import CACHED, two_states
from torch_geometric.nn import GCN, GCNConv, SGConv
from torch_geometric.transforms import ToSparseTensor

from graphsparse.metrics import accuracy
from graphsparse.soups.evaluator import Evaluator
from graphsparse.soups.states import mix
from graphsparse.testing import random_graph
from graphsparse.training import predict


def trained(model, state, data):
    model.load_state_dict(state)
    return accuracy(predict(model, data), data.y, data.val_mask)


@pytest.mark.parametrize("mode", ["plain", "layerwise", "cached", "auto"])
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
    assert Evaluator(model, data, mode="layerwise").mode == "layerwise"
    other = Evaluator(SGConv(8, 3, K=2), data)
    assert other.mode == "plain"
    assert "SGConv" in other.reason
    matrix = ToSparseTensor(layout=torch.sparse_csr)(random_graph())
    assert "adj_t" in Evaluator(GCN(8, 16, 2, 3), matrix).reason
    normed = Evaluator(CACHED["GCN, batch normalisation"](), data)
    assert normed.mode == "plain"
    assert "batch normalisation" in normed.reason
    with pytest.raises(ValueError, match="cannot be 'cached' here: .*SGConv"):
        Evaluator(SGConv(8, 3, K=2), data, mode="cached")


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
    found = [
        Evaluator(model, data, mode=mode, call=lambda net, graph: net(graph)).score(first)
        for mode in ("plain", "cached")
    ]
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"mode": "fast"}, ValueError, "'mode' must be one of"),
        ({"batch_norm": "lerp"}, ValueError, "'batch_norm' must be one of"),
        ({"mask": "nothing"}, ValueError, "no 'nothing'"),
    ],
)
def test_arguments_that_cannot_be(options, error, message):
    with pytest.raises(error, match=message):
        Evaluator(CACHED["GCN 2"](), random_graph(), **options)
    with pytest.raises(TypeError, match="'model' must be"):
        Evaluator(None, random_graph())
