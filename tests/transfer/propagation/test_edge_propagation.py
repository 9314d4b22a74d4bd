import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pairs_reference import pair_sets, propagated, read_out, some_pairs

from graphsparse.metrics import auroc, average_precision
from graphsparse.transfer import EdgeLabelPropagation
from graphsparse.transfer.propagation import edge_propagation
from graphsparse.transfer.propagation.edge_propagation import BOUNDS, LAMBDA_GRID

NAN = math.nan
MODES = ("residual", "outcome")


def others(pairs, num_nodes):
    """Return all pairs that are not among the given ones, in turn in both directions."""
    known = {tuple(sorted(pair)) for pair in pairs.t().tolist()}
    rest = [pair for pair in itertools.combinations(range(num_nodes), 2) if pair not in known]
    return torch.tensor([pair[:: (-1) ** i] for i, pair in enumerate(rest)], dtype=torch.int64).view(-1, 2).t()


def labels_and_scores(num, seed=0):
    generator = torch.Generator().manual_seed(seed)
    y = (torch.rand(num, generator=generator) < 0.5).float()
    y[torch.rand(num, generator=generator) < 0.2] = NAN
    return y, torch.rand(num, generator=generator)


def expected_scores(mode, anchors, y, p, queries, p_q, lam, rounds=4, alpha=0.9):
    """Compute corrected scores from the explicit line graph, query by query."""
    start, seed = (p, torch.where(y.isnan(), p, y)) if mode == "outcome" else [(y - p).nan_to_num(0.0)] * 2
    values = propagated(anchors, start, seed, rounds=rounds, alpha=alpha, norm="row", bounds=BOUNDS[mode])
    result = p_q.double().tolist()
    for i, f in enumerate(read_out(anchors, values, queries)):
        if f is not None and mode == "residual":
            result[i] = min(max(result[i] + lam * f, 1e-6), 1 - 1e-6)
        elif f is not None:
            result[i] += lam * (f - result[i])
    return result


@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=25, deadline=None)
@given(case=pair_sets(), lam=st.sampled_from([0.002, 0.3, 1.0]), seed=st.integers(0, 99))
def test_equals_the_explicit_line_graph(mode, case, lam, seed):
    anchors, num_nodes = case
    y, p = labels_and_scores(anchors.size(1), seed)
    queries = others(anchors, num_nodes)
    p_q = labels_and_scores(queries.size(1), seed + 1)[1].clamp(0.01, 0.99)
    if anchors.size(1) == 0:
        return
    elp = EdgeLabelPropagation(4, 0.9, mode, lam).fit(anchors, y, p, num_nodes)
    expected = expected_scores(mode, anchors, y, p, queries, p_q, lam)
    np.testing.assert_allclose(elp.correct(queries, p_q), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_queries_do_not_influence_one_another(mode, monkeypatch):
    anchors = some_pairs()
    queries = torch.cat([others(anchors, 30), anchors[:, :30]], 1)
    _, p_q = labels_and_scores(queries.size(1), 5)
    elp = EdgeLabelPropagation(mode=mode, lam=0.4).fit(anchors, *labels_and_scores(80), 30)
    whole = elp.correct(queries, p_q)
    assert ((whole - p_q).abs() > 1e-3).sum() > 100
    some = torch.randperm(queries.size(1), generator=torch.Generator().manual_seed(0))[:40]
    torch.testing.assert_close(elp.correct(queries[:, some], p_q[some]), whole[some])
    torch.testing.assert_close(elp.correct(queries.flip(0).int(), p_q), whole)
    torch.testing.assert_close(elp.correct(queries.repeat(1, 2), p_q.repeat(2)), whole.repeat(2))
    monkeypatch.setattr(edge_propagation, "CACHED", 7)
    torch.testing.assert_close(elp.correct(queries, p_q), whole)


@pytest.mark.parametrize("mode", MODES)
def test_an_anchor_does_not_see_its_own_label(mode):
    anchors = some_pairs()
    y, p = labels_and_scores(80)
    y, p_q = y.nan_to_num(0.0), torch.rand(80)
    elp = EdgeLabelPropagation(mode=mode, lam=1.0)
    before = elp.fit(anchors, y, p, 30).correct(anchors, p_q)
    assert ((before - p_q).abs() > 1e-3).sum() > 40
    for i in range(0, 80, 9):
        turned = y.clone()
        turned[i] = 1 - turned[i]
        after = elp.fit(anchors, turned, p, 30).correct(anchors, p_q)
        assert after[i] == before[i]
        assert not torch.equal(after, before)  # but others see it


def test_taking_out_the_own_value_is_not_enough():
    """Why anchors are dealt into groups: a label comes back through the neighbours, unless there are no rounds."""
    anchors, (y, p) = some_pairs(), labels_and_scores(80)
    y, p_q = y.nan_to_num(0.0), torch.full((80,), 0.5)
    turned = y.clone()
    turned[3] = 1 - turned[3]
    for rounds, seen in ((0, False), (1, True), (5, True)):
        elp = EdgeLabelPropagation(rounds, lam=1.0, anchor_folds=0)
        before, after = (elp.fit(anchors, labels, p, 30).correct(anchors, p_q) for labels in (y, turned))
        assert (abs(float(after[3] - before[3])) > 1e-3) is seen


def test_own_value_taken_out():
    anchors, (y, p) = some_pairs(), labels_and_scores(80)
    p_q = torch.rand(80).clamp(0.01, 0.99)
    elp = EdgeLabelPropagation(4, lam=0.3, anchor_folds=0).fit(anchors, y, p, 30)
    expected = expected_scores("residual", anchors, y, p, anchors, p_q, 0.3)
    np.testing.assert_allclose(elp.correct(anchors, p_q), expected, rtol=0, atol=1e-6)


def test_an_anchor_is_read_from_a_fit_without_its_group():
    anchors, (y, p) = some_pairs(), labels_and_scores(80)
    p_q = torch.rand(80)
    elp = EdgeLabelPropagation(lam=0.5, anchor_folds=4).fit(anchors, y, p, 30)
    corrected = elp.correct(anchors, p_q)
    fold = elp._fold_of(anchors)
    assert torch.equal(fold, elp._fold_of(anchors.flip(0)))
    assert torch.bincount(fold, minlength=4).min() > 8
    for number in range(4):
        keep, ask = fold != number, fold == number
        alone = EdgeLabelPropagation(lam=0.5).fit(anchors[:, keep], y[keep], p[keep], 30)
        torch.testing.assert_close(corrected[ask], alone.correct(anchors[:, ask], p_q[ask]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_weight_0_and_no_anchors_change_nothing(mode):
    anchors, queries = some_pairs(), others(some_pairs(), 30)
    p_q = torch.rand(queries.size(1), dtype=torch.float64)
    p_q[:2] = torch.tensor([0.0, 1.0])
    none = torch.empty(2, 0, dtype=torch.int64)
    y, p = labels_and_scores(80)
    elp = EdgeLabelPropagation(mode=mode, lam=0).fit(anchors, y, p, 30)
    assert torch.equal(elp.correct(queries, p_q), p_q)
    elp = EdgeLabelPropagation(mode=mode, lam=1)
    assert torch.equal(elp.fit(none, torch.empty(0), torch.empty(0), 30).correct(queries, p_q), p_q)
    if mode == "residual":  # and scores that are right already stay as they are, however near to 0 and 1
        right = elp.fit(anchors, p, p, 30)
        assert torch.equal(right.correct(queries, p_q), p_q)
    elp = EdgeLabelPropagation(mode=mode, lam=1).fit(anchors, y, p, 32)
    for far in ([30], [31]), ([31], [30]):
        assert torch.equal(elp.correct(torch.tensor(far), p_q[5:6]), p_q[5:6])
    alone = EdgeLabelPropagation(mode=mode, lam=1, anchor_folds=0).fit(anchors[:, :1], y[:1], p[:1], 30)
    assert torch.equal(alone.correct(anchors[:, :1], p_q[:1]), p_q[:1])
    assert alone.correct(none, p_q[:0]).numel() == 0


@pytest.mark.parametrize("mode", MODES)
def test_other_names_of_the_nodes_change_nothing(mode):
    anchors, queries = some_pairs(), others(some_pairs(), 30)
    y, p = labels_and_scores(80)
    p_q = torch.rand(queries.size(1))
    generator = torch.Generator().manual_seed(3)
    name, order = torch.randperm(30, generator=generator), torch.randperm(80, generator=generator)
    elp = EdgeLabelPropagation(mode=mode, lam=0.7)
    first = elp.fit(anchors, y, p, 30).correct(queries, p_q)
    second = elp.fit(name[anchors[:, order]], y[order], p[order], 30).correct(name[queries], p_q)
    torch.testing.assert_close(first, second, rtol=0, atol=1e-6)


def test_scores_keep_their_type():
    anchors, queries = some_pairs(), others(some_pairs(), 30)
    elp = EdgeLabelPropagation(lam=0.3).fit(anchors, *labels_and_scores(80), 30)
    p_q = torch.rand(queries.size(1), dtype=torch.float64)
    for dtype in (torch.float32, torch.float64):
        assert elp.correct(queries, p_q.to(dtype)).dtype == dtype


@pytest.mark.parametrize("folds", [0, 5])
@pytest.mark.parametrize("mode", MODES)
def test_what_was_fitted_can_be_taken_elsewhere(mode, folds):
    anchors, queries, (y, p) = some_pairs(), others(some_pairs(), 30), labels_and_scores(80)
    elp = EdgeLabelPropagation(mode=mode, anchor_folds=folds).fit(anchors, y, p, 30)
    truth, p_q = torch.arange(queries.size(1)) % 3 == 0, torch.rand(queries.size(1))
    elp.choose_lambda(queries, truth, p_q)
    again = EdgeLabelPropagation(mode=mode, anchor_folds=folds)
    again.restore(elp.state())
    for pairs, scores in ((queries, p_q), (anchors, torch.rand(80))):
        assert torch.equal(again.correct(pairs, scores), elp.correct(pairs, scores))


def test_lambda_is_chosen_on_validation():
    """Anchors around a node say that its pairs are links, where the scores say the contrary."""
    anchors = torch.tensor([[0, 0, 0, 5, 5, 5], [1, 2, 3, 6, 7, 8]])
    y, p = torch.tensor([1.0, 1, 1, 0, 0, 0]), torch.full((6,), 0.5)
    queries = torch.tensor([[0, 0, 5, 5], [10, 11, 10, 11]])
    truth, scores = torch.tensor([1, 1, 0, 0]), torch.tensor([0.4, 0.5, 0.6, 0.55])
    elp = EdgeLabelPropagation().fit(anchors, y, p, 12)
    assert elp.choose_lambda(queries, truth, scores) == elp.chosen_lambda == 0.3  # 0.1 brings 0.45 ... 0.55
    corrected = elp.correct(queries, scores)
    assert average_precision(corrected, truth.bool()) == 1
    assert torch.equal(corrected, EdgeLabelPropagation(lam=0.3).fit(anchors, y, p, 12).correct(queries, scores))
    # Where it hurts, and where it does not matter, it stays out.
    assert elp.choose_lambda(queries, 1 - truth, scores) == 0
    assert torch.equal(elp.correct(queries, scores), scores)
    assert elp.choose_lambda(queries, truth, scores, metric=lambda score, positive: 1.0) == 0
    assert elp.choose_lambda(queries, truth.bool(), scores, grid=[1, 0], metric=auroc) == 1
    with pytest.raises(ValueError, match="'metric' must return a number"):
        elp.choose_lambda(queries, truth, scores, metric=lambda score, positive: NAN)
    assert elp.chosen_lambda is None
    # What is chosen is what is used, also where a weight was given.
    given = EdgeLabelPropagation(lam=0.3).fit(anchors, y, p, 12)
    assert given.choose_lambda(queries, 1 - truth, scores) == 0
    assert torch.equal(given.correct(queries, scores), scores)
    elp.choose_lambda(queries, truth, scores)
    elp.fit(anchors, y, p, 12)
    assert elp.chosen_lambda is None
    assert LAMBDA_GRID[0] == 0


def test_without_validation_nothing_is_changed():
    anchors, queries = some_pairs(), others(some_pairs(), 30)
    p_q = torch.rand(queries.size(1))
    elp = EdgeLabelPropagation().fit(anchors, *labels_and_scores(80), 30)
    with pytest.warns(UserWarning, match="'choose_lambda' was not called"):
        assert torch.equal(elp.correct(queries, p_q), p_q)


@pytest.mark.parametrize(
    ("error", "match", "options"),
    [
        (TypeError, "'K' must be an integer", {"K": 2.5}),
        (ValueError, "'K' must be at least 0 .got -1", {"K": -1}),
        (ValueError, r"'alpha' must be in \[0, 1\] .got 1.5", {"alpha": 1.5}),
        (ValueError, "'mode' must be one of", {"mode": "logit"}),
        (ValueError, r"'lam' must be in \[0, 1\]", {"lam": -0.1}),
        (ValueError, "'anchor_folds' must be 0 or at least 2", {"anchor_folds": 1}),
    ],
)
def test_bad_options(error, match, options):
    with pytest.raises(error, match=match):
        EdgeLabelPropagation(**options)


def test_bad_input():
    anchors, (y, p) = some_pairs(), labels_and_scores(80)
    elp = EdgeLabelPropagation(lam=0.5)
    one = torch.tensor([0.5])
    with pytest.raises(RuntimeError, match="'fit' must be called first"):
        elp.correct(anchors, p)
    with pytest.raises(ValueError, match="'anchors' must hold each undirected pair once"):
        elp.fit(torch.cat([anchors, anchors[:, :1].flip(0)], 1), torch.cat([y, one]), torch.cat([p, one]), 30)
    with pytest.raises(ValueError, match="'anchors' must not hold self-loops"):
        elp.fit(torch.tensor([[1], [1]]), one, one, 30)
    with pytest.raises(ValueError, match="'anchors' holds the index"):
        elp.fit(anchors, y, p, 5)
    with pytest.raises(ValueError, match="'y' must have one entry per pair"):
        elp.fit(anchors, y[:5], p, 30)
    with pytest.raises(TypeError, match="'y' must be a floating point tensor .got torch.int64"):
        elp.fit(anchors, y.nan_to_num().long(), p, 30)
    with pytest.raises(TypeError, match="'p' must be a floating point tensor .got list"):
        elp.fit(anchors, y, p.tolist(), 30)
    for name, bad, extra in (("y", 1.5, ", NaN"), ("y", -1.0, ", NaN"), ("p", NAN, " "), ("p", -0.25, " ")):
        wrong = {"y": y.clone(), "p": p.clone()}
        wrong[name][7] = bad
        with pytest.raises(ValueError, match=f"'{name}' must hold numbers between 0 and 1{extra}.*got {bad}"):
            elp.fit(anchors, wrong["y"], wrong["p"], 30)
    elp.fit(anchors, y, p, 30)
    with pytest.raises(ValueError, match="'queries' must hold no self-loops"):
        elp.correct(torch.tensor([[1], [1]]), one)
    with pytest.raises(ValueError, match="'queries' holds the index 30"):
        elp.correct(torch.tensor([[1], [30]]), one)
    with pytest.raises(ValueError, match=r"'p' must have one entry per pair, \[1\]"):
        elp.correct(torch.tensor([[1], [3]]), p)
    for score in (NAN, 1.5, -0.25):
        with pytest.raises(ValueError, match="'p' must hold numbers between 0 and 1"):
            elp.correct(torch.tensor([[1], [3]]), torch.tensor([score]))
    queries = others(anchors, 30)[:, :3]
    with pytest.raises(ValueError, match="'grid' must hold 0"):
        elp.choose_lambda(queries, torch.tensor([1, 0, 1]), p[:3], grid=[0.1])
    for wrong in (torch.tensor([1, 0]), torch.tensor([1, 0, 2])):
        with pytest.raises(ValueError, match="'y' must hold a label, 0 or 1, for each of 3 queries"):
            elp.choose_lambda(queries, wrong, p[:3])
    with pytest.raises(ValueError, match="'queries' holds an anchor"):
        elp.choose_lambda(anchors[:, :2], torch.tensor([1, 0]), p[:2])
    with pytest.raises(ValueError, match="'metric' must return a number .got nan"):
        elp.choose_lambda(queries, torch.tensor([1, 0, 1]), p[:3], metric=lambda score, positive: NAN)
