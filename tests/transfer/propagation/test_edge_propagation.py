import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pairs_reference import pair_sets, propagated, read_out, some_pairs

from graphsparse.metrics import auroc, average_precision
from graphsparse.transfer.propagation import edge_propagation
from graphsparse.transfer.propagation.edge_propagation import LAMBDA_GRID, EdgeLabelPropagation
from graphsparse.transfer.propagation.edge_signals import BOUNDS, MODES

NAN = math.nan
NORMS = ("row", "sym")


def others(pairs, num_nodes):
    """Return all pairs that are not among the given ones, in turn in both directions."""
    known = {tuple(sorted(pair)) for pair in pairs.t().tolist()}
    rest = [pair for pair in itertools.combinations(range(num_nodes), 2) if pair not in known]
    return torch.tensor([pair[:: (-1) ** i] for i, pair in enumerate(rest)], dtype=torch.int64).view(-1, 2).t()


def labels_and_scores(num, seed=0, mode="residual"):
    generator = torch.Generator().manual_seed(seed)
    y = (torch.rand(num, generator=generator) < 0.5).float()
    y[torch.rand(num, generator=generator) < 0.2] = NAN
    p = torch.rand(num, generator=generator)
    if mode == "mass":
        p[torch.rand(num, generator=generator) < 0.4] = NAN
    return y, p


def expected_scores(mode, norm, anchors, y, p, queries, p_q, lam, weight=None, rounds=4, alpha=0.9):
    """Compute corrected scores from the explicit line graph, query by query."""
    options = {"rounds": rounds, "alpha": alpha, "norm": norm, "bounds": BOUNDS[mode], "weight": weight}

    def values(start, seed):
        return read_out(anchors, propagated(anchors, start, seed, **options), queries, weight)

    label = torch.where(y.isnan(), p, y)
    result = p_q.double().tolist()
    if mode == "mass":
        known = label.isfinite()
        above = values(*[label.nan_to_num(0.0)] * 2)
        below = values(*[known.double()] * 2)
        prior = float(y[~y.isnan()].double().mean()) if (~y.isnan()).any() else 0.5
        found = [None if m is None or m == 0 else n / m for n, m in zip(above, below, strict=True)]
        for i, f in enumerate(found):
            if math.isnan(result[i]):
                result[i] = prior if f is None else f
            elif f is not None:
                result[i] += lam * (f - result[i])
        return result
    residual = (y - p).nan_to_num(0.0)
    found = values(residual, residual) if mode == "residual" else values(p, label)
    for i, f in enumerate(found):
        if f is not None and mode == "residual":
            result[i] = min(max(result[i] + lam * f, 1e-6), 1 - 1e-6)
        elif f is not None:
            result[i] += lam * (f - result[i])
    return result


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=25, deadline=None)
@given(case=pair_sets(), lam=st.sampled_from([0.002, 0.3, 1.0]), seed=st.integers(0, 99))
def test_equals_the_explicit_line_graph(mode, norm, weighted, case, lam, seed):
    anchors, num_nodes = case
    y, p = labels_and_scores(anchors.size(1), seed, mode)
    queries = others(anchors, num_nodes)
    _, p_q = labels_and_scores(queries.size(1), seed + 1, mode)
    p_q = p_q.clamp(0.01, 0.99)
    weight = torch.rand(anchors.size(1)) + 0.2 if weighted else None
    if anchors.size(1) == 0:
        return
    elp = EdgeLabelPropagation(4, 0.9, mode, norm, lam).fit(anchors, y, p, num_nodes, weight)
    expected = expected_scores(mode, norm, anchors, y, p, queries, p_q, lam, weight)
    np.testing.assert_allclose(elp.correct(queries, p_q), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("mode", MODES)
def test_queries_do_not_influence_one_another(mode, norm, monkeypatch):
    anchors = some_pairs()
    queries = torch.cat([others(anchors, 30), anchors[:, :30]], 1)
    _, p_q = labels_and_scores(queries.size(1), 5, mode)
    elp = EdgeLabelPropagation(mode=mode, norm=norm, lam=0.4).fit(anchors, *labels_and_scores(80, 0, mode), 30)
    whole = elp.correct(queries, p_q)
    assert ((whole - p_q).abs() > 1e-3).sum() > 100
    some = torch.randperm(queries.size(1), generator=torch.Generator().manual_seed(0))[:40]
    torch.testing.assert_close(elp.correct(queries[:, some], p_q[some]), whole[some])
    torch.testing.assert_close(elp.correct(queries.flip(0).int(), p_q), whole)
    torch.testing.assert_close(elp.correct(queries.repeat(1, 2), p_q.repeat(2)), whole.repeat(2))
    monkeypatch.setattr(edge_propagation, "CACHED", 7)
    torch.testing.assert_close(elp.correct(queries, p_q), whole)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("mode", MODES)
def test_an_anchor_does_not_see_its_own_label(mode, norm):
    anchors = some_pairs()
    y, p = labels_and_scores(80, 0, mode)
    y, p_q = y.nan_to_num(0.0), torch.rand(80)
    elp = EdgeLabelPropagation(mode=mode, norm=norm, lam=1.0)
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
    weight, p_q = torch.rand(80) + 0.5, torch.rand(80).clamp(0.01, 0.99)
    elp = EdgeLabelPropagation(4, lam=0.3, anchor_folds=0).fit(anchors, y, p, 30, weight)
    expected = expected_scores("residual", "row", anchors, y, p, anchors, p_q, 0.3, weight)
    np.testing.assert_allclose(elp.correct(anchors, p_q), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("weighted", [False, True])
def test_an_anchor_is_read_from_a_fit_without_its_group(weighted):
    anchors, (y, p) = some_pairs(), labels_and_scores(80)
    weight, p_q = torch.rand(80) + 0.5 if weighted else None, torch.rand(80)
    elp = EdgeLabelPropagation(lam=0.5, anchor_folds=4).fit(anchors, y, p, 30, weight)
    corrected = elp.correct(anchors, p_q)
    fold = elp._fold_of(anchors)
    assert torch.equal(fold, elp._fold_of(anchors.flip(0)))
    assert torch.bincount(fold, minlength=4).min() > 8
    for number in range(4):
        keep, ask = fold != number, fold == number
        rest = None if weight is None else weight[keep]
        alone = EdgeLabelPropagation(lam=0.5).fit(anchors[:, keep], y[keep], p[keep], 30, rest)
        torch.testing.assert_close(corrected[ask], alone.correct(anchors[:, ask], p_q[ask]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_weight_0_and_no_anchors_change_nothing(mode):
    anchors, queries = some_pairs(), others(some_pairs(), 30)
    p_q = torch.rand(queries.size(1), dtype=torch.float64)
    p_q[:2] = torch.tensor([0.0, 1.0])
    none = torch.empty(2, 0, dtype=torch.int64)
    y, p = labels_and_scores(80)
    for transductive in (False, True):
        elp = EdgeLabelPropagation(mode=mode, lam=0, transductive=transductive).fit(anchors, y, p, 30)
        assert torch.equal(elp.correct(queries, p_q), p_q)
        elp = EdgeLabelPropagation(mode=mode, lam=1, transductive=transductive)
        assert torch.equal(elp.fit(none, torch.empty(0), torch.empty(0), 30).correct(queries, p_q), p_q)
    elp = EdgeLabelPropagation(mode=mode, lam=1).fit(anchors, y, p, 32)
    for far in ([30], [31]), ([31], [30]):
        assert torch.equal(elp.correct(torch.tensor(far), p_q[5:6]), p_q[5:6])
    alone = EdgeLabelPropagation(mode=mode, lam=1, anchor_folds=0).fit(anchors[:, :1], y[:1], p[:1], 30)
    assert torch.equal(alone.correct(anchors[:, :1], p_q[:1]), p_q[:1])
    assert alone.correct(none, p_q[:0]).numel() == 0


@pytest.mark.parametrize("mode", MODES)
def test_other_names_of_the_nodes_change_nothing(mode):
    anchors, queries = some_pairs(), others(some_pairs(), 30)
    y, p = labels_and_scores(80, 0, mode)
    p_q = torch.rand(queries.size(1))
    generator = torch.Generator().manual_seed(3)
    name, order = torch.randperm(30, generator=generator), torch.randperm(80, generator=generator)
    elp = EdgeLabelPropagation(mode=mode, lam=0.7)
    first = elp.fit(anchors, y, p, 30).correct(queries, p_q)
    second = elp.fit(name[anchors[:, order]], y[order], p[order], 30).correct(name[queries], p_q)
    torch.testing.assert_close(first, second, rtol=0, atol=1e-6)


def test_mass_reaches_what_has_no_score():
    """A path 0-1-2-3 of which one pair is known, and a pair 5-6 that nothing reaches."""
    anchors = torch.tensor([[0, 1, 2], [1, 2, 3]])
    y, p = torch.tensor([0.0, NAN, NAN]), torch.full((3,), NAN)
    queries, unknown = torch.tensor([[3, 5], [4, 6]]), torch.tensor([NAN, NAN])
    near = EdgeLabelPropagation(1, 0.9, "mass", lam=1.0).fit(anchors, y, p, 7)
    assert near.correct(queries, unknown).tolist() == [0, 0]  # the mean label is 0 as well
    y = torch.tensor([1.0, NAN, 0.0])
    far = EdgeLabelPropagation(1, 0.9, "mass", lam=0.0).fit(anchors, y, p, 7)
    # At 3: value 0.9 * 0 + 0.1 * 0, evidence 0.9 / 2 + 0.1. Nothing known at 5 and 6: the mean label.
    assert far.correct(queries, unknown).tolist() == pytest.approx([0, 0.5])
    # At 0: value 0.9 / 2 + 0.1 with the same evidence; a query with a score keeps it where the weight is 0.
    assert far.correct(torch.tensor([[0, 0], [4, 4]]), torch.tensor([NAN, 0.25])).tolist() == [1, 0.25]


@pytest.mark.parametrize("mode", MODES)
def test_transductive_is_the_recurrence_over_all_pairs(mode):
    anchors, queries = some_pairs(), others(some_pairs(), 30)[:, ::5]
    y, p = labels_and_scores(80, 0, mode)
    p_q, weight = torch.rand(queries.size(1)).clamp(0.01, 0.99), torch.rand(80) + 0.5
    elp = EdgeLabelPropagation(3, 0.8, mode, "sym", 0.5, transductive=True).fit(anchors, y, p, 30, weight)
    pairs = torch.cat([anchors, queries], 1)
    options = {"rounds": 3, "alpha": 0.8, "norm": "sym", "bounds": BOUNDS[mode]}
    options["weight"] = torch.cat([weight, torch.ones_like(p_q)])
    label, none = torch.where(y.isnan(), p, y), torch.zeros_like(p_q)
    if mode == "mass":
        value = torch.cat([label, p_q])
        found = propagated(pairs, *[value.nan_to_num(0.0)] * 2, **options)
        found = found / propagated(pairs, *[value.isfinite().float()] * 2, **options)
    elif mode == "outcome":
        found = propagated(pairs, torch.cat([p, p_q]), torch.cat([label, p_q]), **options)
    else:
        found = propagated(pairs, *[torch.cat([(y - p).nan_to_num(0.0), none])] * 2, **options)
    found = found[80:]
    old = p_q.double().numpy()
    expected = np.clip(old + 0.5 * found, 1e-6, 1 - 1e-6) if mode == "residual" else (old + found) / 2
    np.testing.assert_allclose(elp.correct(queries, p_q), expected, rtol=0, atol=1e-6)
    # Here other queries do matter.
    assert not torch.allclose(elp.correct(queries[:, :5], p_q[:5]), elp.correct(queries, p_q)[:5], atol=1e-4)
    with pytest.raises(ValueError, match="'queries' holds an anchor"):
        elp.correct(anchors[:, :1], p_q[:1])
    with pytest.raises(ValueError, match="'queries' must hold each undirected pair once"):
        elp.correct(queries[:, [0, 0]], p_q[:2])


def test_types_and_logits():
    anchors, queries = some_pairs(), others(some_pairs(), 30)
    elp = EdgeLabelPropagation(lam=0.3).fit(anchors, *labels_and_scores(80), 30)
    p_q = torch.rand(queries.size(1), dtype=torch.float64)
    for dtype in (torch.float32, torch.float64):
        corrected = elp.correct(queries, p_q.to(dtype))
        assert corrected.dtype == dtype
        found = elp.correct(queries, p_q.to(dtype), logits=True)
        torch.testing.assert_close(found, torch.logit(corrected, eps=1e-6))
    extreme = elp.correct(queries[:, :2], torch.tensor([0.0, 1.0]), logits=True)
    assert extreme.isfinite().all()


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
        (ValueError, "'norm' must be one of", {"norm": "rw"}),
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
    for weight in (torch.zeros(80), -torch.ones(80), torch.full((80,), NAN), torch.full((80,), math.inf)):
        with pytest.raises(ValueError, match="'weight' must hold positive numbers"):
            elp.fit(anchors, y, p, 30, weight)
    elp.fit(anchors, y, p, 30)
    with pytest.raises(ValueError, match="'queries' must hold no self-loops"):
        elp.correct(torch.tensor([[1], [1]]), one)
    with pytest.raises(ValueError, match="'queries' holds the index 30"):
        elp.correct(torch.tensor([[1], [30]]), one)
    with pytest.raises(ValueError, match=r"'p' must have one entry per pair, \[1\]"):
        elp.correct(torch.tensor([[1], [3]]), p)
    for score in (NAN, 1.5, -0.25):
        with pytest.raises(ValueError, match="'p' must hold probabilities"):
            elp.correct(torch.tensor([[1], [3]]), torch.tensor([score]))
    queries = others(anchors, 30)[:, :3]
    with pytest.raises(ValueError, match="'grid' must hold 0"):
        elp.choose_lambda(queries, torch.tensor([1, 0, 1]), p[:3], grid=[0.1])
    with pytest.raises(ValueError, match="'y' must have one label per query"):
        elp.choose_lambda(queries, torch.tensor([1, 0]), p[:3])
    with pytest.raises(ValueError, match="'y' must hold labels, 0 or 1"):
        elp.choose_lambda(queries, torch.tensor([1, 0, 2]), p[:3])
    with pytest.raises(ValueError, match="'queries' holds an anchor"):
        elp.choose_lambda(anchors[:, :2], torch.tensor([1, 0]), p[:2])
    with pytest.raises(ValueError, match="'metric' must return a number .got nan"):
        elp.choose_lambda(queries, torch.tensor([1, 0, 1]), p[:3], metric=lambda score, positive: NAN)
