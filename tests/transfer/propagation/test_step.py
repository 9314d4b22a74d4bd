import pytest
import torch
from transfer_pairs import small_pair

from graphsparse.training.link_task import link_average_precision
from graphsparse.transfer import EdgeLabelPropagation, assert_no_leak
from graphsparse.transfer.propagation import step as module
from graphsparse.transfer.propagation.step import PropagationStep

GRID = (0.0, 0.1, 1.0)


@pytest.fixture(scope="module")
def data():
    return small_pair()


def base(pairs):
    return torch.sin(pairs.double().prod(0)).float()


@pytest.fixture(autouse=True)
def short_grids(monkeypatch):
    monkeypatch.setattr(module, "LAMBDA_GRID", GRID)


def fitted_step(propagation, data, metric=link_average_precision, graph="enriched_target"):
    return PropagationStep(propagation, base, graph).fit(*data, metric, 0)


def test_the_best_weight_on_the_validation_pairs_is_taken(data):
    split = data[1]
    fitted = fitted_step(EdgeLabelPropagation(), data)
    assert list(fitted.tried) == list(GRID)
    assert fitted.tried[fitted.weight] == max(fitted.tried.values())
    now = link_average_precision(fitted.score(split.val), fitted.score(split.val_neg))
    assert now == pytest.approx(max(fitted.tried.values()))
    assert fitted.tried[0.0] == pytest.approx(link_average_precision(base(split.val), base(split.val_neg)))


def test_of_equally_good_weights_0_wins_and_leaves_the_logits_as_they_are(data):
    split = data[1]
    fitted = fitted_step(EdgeLabelPropagation(), data, lambda positive, negative: 0.5)
    assert fitted.weight == 0
    assert torch.equal(fitted.score(split.test), base(split.test))


def test_a_fixed_weight_is_tried_against_0_only(data):
    split = data[1]
    fitted = fitted_step(EdgeLabelPropagation(lam=0.3), data)
    assert list(fitted.tried) == [0.0, 0.3]
    always_0 = fitted_step(EdgeLabelPropagation(lam=0.3), data, lambda positive, negative: 0.5)
    assert torch.equal(always_0.score(split.test), base(split.test))


def test_weighted_scores_are_those_of_the_formulas(data):
    split = data[1]
    p = base(split.test).double().sigmoid()

    def prefer_last():
        values = iter((0.1, 0.2, 0.3))
        return lambda positive, negative: next(values)

    elp = fitted_step(EdgeLabelPropagation(), data, prefer_last())
    assert elp.weight == 1
    expected = torch.logit(elp.propagation.correct(split.test, p), eps=1e-6).float()
    assert torch.allclose(elp.score(split.test), expected)


def test_a_copy_of_the_propagation_is_fitted(data):
    given = EdgeLabelPropagation()
    fitted = fitted_step(given, data)
    with pytest.raises(RuntimeError):
        given.correct(data[1].test, torch.rand(data[1].test.size(1)))
    assert fitted.propagation.chosen_lambda == fitted.weight


@pytest.mark.parametrize("name", ["enriched_target", "target"])
def test_anchors_are_links_and_as_many_others_and_no_query(data, name):
    pair, split = data
    seen = []

    class Watched(EdgeLabelPropagation):
        def fit(self, anchors, y, p, num_nodes):
            seen.append((anchors, y, p))
            return super().fit(anchors, y, p, num_nodes)

    fitted_step(Watched(), data, graph=name)
    anchors, y, p = seen[0]
    graph = pair.graph(name, without=split)
    links = set(map(tuple, graph.edge_index.t().tolist()))
    assert all(((u, v) in links) == bool(label) for (u, v), label in zip(anchors.t().tolist(), y, strict=True))
    assert int(y.sum()) == graph.num_edges // 2
    assert torch.equal(p, base(anchors).sigmoid())
    assert_no_leak(split, pair, anchors=anchors)
    queries = {tuple(sorted(q)) for q in split.queries.t().tolist()}
    assert not queries & {tuple(sorted(a)) for a in anchors.t().tolist()}
