import pytest
import torch
from transfer_pairs import small_pair

from graphsparse.transfer.data.leak import assert_no_leak
from graphsparse.transfer.models.validation import link_average_precision
from graphsparse.transfer.propagation.edge_propagation import EdgeLabelPropagation
from graphsparse.transfer.propagation.xmc import XMCPropagation
from graphsparse.transfer.propagation_step import PropagationStep

GRID = (0.0, 0.1, 1.0)


@pytest.fixture(scope="module")
def data():
    return small_pair()


def base(pairs):
    return torch.sin(pairs.double().prod(0)).float()


def step(propagation, grid=GRID, metric=link_average_precision):
    return PropagationStep(propagation, base, grid, metric)


@pytest.mark.parametrize("make", [EdgeLabelPropagation, XMCPropagation])
def test_the_best_weight_on_the_validation_pairs_is_taken(data, make):
    pair, split = data
    fitted = step(make()).fit(pair, split, 0)
    assert list(fitted.tried) == list(GRID)
    assert fitted.tried[fitted.weight] == max(fitted.tried.values())
    for weight in GRID:
        alone = step(make(), (0.0, weight)).fit(pair, split, 0)
        assert alone.tried[weight] == fitted.tried[weight]
    now = link_average_precision(fitted.score(split.val), fitted.score(split.val_neg))
    assert now == pytest.approx(max(fitted.tried.values()))
    assert fitted.tried[0.0] == pytest.approx(link_average_precision(base(split.val), base(split.val_neg)))


@pytest.mark.parametrize("make", [EdgeLabelPropagation, XMCPropagation])
def test_of_equally_good_weights_0_wins_and_leaves_the_logits_as_they_are(data, make):
    pair, split = data
    fitted = step(make(), metric=lambda positive, negative: 0.5).fit(pair, split, 0)
    assert fitted.weight == 0
    assert torch.equal(fitted.score(split.test), base(split.test))


def test_a_fixed_weight_is_tried_against_0_only(data):
    pair, split = data
    fitted = step(EdgeLabelPropagation(lam=0.3)).fit(pair, split, 0)
    assert list(fitted.tried) == [0.0, 0.3]
    always_0 = step(EdgeLabelPropagation(lam=0.3), metric=lambda positive, negative: 0.5).fit(pair, split, 0)
    assert torch.equal(always_0.score(split.test), base(split.test))


def test_weighted_scores_are_those_of_the_formulas(data):
    pair, split = data
    p = base(split.test).double().sigmoid()

    def prefer_last():
        values = iter((0.1, 0.2, 0.3))
        return lambda positive, negative: next(values)

    xmc = step(XMCPropagation(), metric=prefer_last()).fit(pair, split, 0)
    assert xmc.weight == 1
    assert torch.allclose(xmc.score(split.test), (p + xmc.propagation.score(split.test)).float())
    elp = step(EdgeLabelPropagation(), metric=prefer_last()).fit(pair, split, 0)
    expected = torch.logit(elp.propagation.correct(split.test, p), eps=1e-6).float()
    assert torch.allclose(elp.score(split.test), expected)


def test_links_of_the_target_alone(data):
    pair, split = data
    fitted = PropagationStep(XMCPropagation(), base, GRID, link_average_precision, "target").fit(pair, split, 0)
    graph = pair.graph("target", without=split)
    plain = XMCPropagation().fit(graph.edge_index, pair.num_nodes)
    assert torch.equal(fitted.propagation.score(split.test), plain.score(split.test))
    assert graph.num_edges < pair.enriched_target(without=split).num_edges


@pytest.mark.parametrize("name", ["enriched_target", "target"])
def test_anchors_are_links_and_as_many_others_and_no_query(data, name):
    pair, split = data
    seen = []

    class Watched(EdgeLabelPropagation):
        def fit(self, anchors, y, p, num_nodes, weight=None):
            seen.append((anchors, y, p))
            return super().fit(anchors, y, p, num_nodes, weight)

    PropagationStep(Watched(), base, GRID, link_average_precision, name).fit(pair, split, 0)
    anchors, y, p = seen[0]
    graph = pair.graph(name, without=split)
    links = set(map(tuple, graph.edge_index.t().tolist()))
    assert all(((u, v) in links) == bool(label) for (u, v), label in zip(anchors.t().tolist(), y, strict=True))
    assert int(y.sum()) == graph.num_edges // 2
    assert torch.equal(p, base(anchors).sigmoid())
    assert_no_leak(split, pair, anchors=anchors)
    queries = {tuple(sorted(q)) for q in split.queries.t().tolist()}
    assert not queries & {tuple(sorted(a)) for a in anchors.t().tolist()}
