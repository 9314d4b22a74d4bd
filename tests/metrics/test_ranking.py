from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from graphsparse.metrics import auroc, average_precision, fpr_at_recall
from graphsparse.ops.blocks import blocks


@st.composite
def scored(draw):
    """Scores from few levels, so that most have ties, with at least one positive and one negative."""
    num = draw(st.integers(2, 30))
    score = draw(st.lists(st.integers(-4, 4), min_size=num, max_size=num))
    positive = draw(st.lists(st.booleans(), min_size=num, max_size=num).filter(lambda p: 0 < sum(p) < len(p)))
    return torch.tensor(score, dtype=torch.float32), torch.tensor(positive)


def slow_auroc(score, positive):
    pairs = [(p > n) + (p == n) / 2 for p in score[positive].tolist() for n in score[~positive].tolist()]
    return sum(pairs) / len(pairs)


def slow_fpr(score, positive, recall):
    rates = []
    for threshold in set(score.tolist()):
        flagged = score >= threshold
        if (flagged & positive).sum().item() >= round(recall * 100) * int(positive.sum()) / 100:
            rates.append((flagged & ~positive).sum().item() / (~positive).sum().item())
    return min(rates)


@settings(max_examples=60, deadline=None)
@given(scored())
def test_equal_scikit_learn(case):
    score, positive = case
    assert auroc(score, positive) == pytest.approx(roc_auc_score(positive, score), rel=1e-12, abs=1e-14)
    assert auroc(score, positive) == slow_auroc(score, positive)
    expected = average_precision_score(positive, score)
    assert average_precision(score, positive) == pytest.approx(expected, rel=1e-12)
    false_rate, true_rate, _ = roc_curve(positive, score, drop_intermediate=False)
    for recall in (0.5, 0.95, 1.0):
        assert fpr_at_recall(score, positive, recall) == false_rate[true_rate >= recall].min()
        assert fpr_at_recall(score, positive, recall) == slow_fpr(score, positive, recall)


def test_equal_scikit_learn_on_many_scores():
    generator = np.random.default_rng(0)
    positive = generator.random(20000) < 0.2
    score = (generator.normal(size=20000) + positive).astype(np.float32).round(2)
    tensors = torch.from_numpy(score), torch.from_numpy(positive)
    assert auroc(*tensors) == pytest.approx(roc_auc_score(positive, score), rel=1e-12)
    assert average_precision(*tensors) == pytest.approx(average_precision_score(positive, score), rel=1e-12)
    false_rate, true_rate, _ = roc_curve(positive, score, drop_intermediate=False)
    assert fpr_at_recall(*tensors) == false_rate[true_rate >= 0.95][0]


@settings(max_examples=50, deadline=None)
@given(scored())
def test_laws(case):
    score, positive = case
    value = auroc(score, positive)
    assert 0 <= value <= 1
    for increasing in (score.exp(), 3 * score - 7, score**3, torch.where(score > 3, torch.inf, score), score.long()):
        assert auroc(increasing, positive) == value
        assert average_precision(increasing, positive) == average_precision(score, positive)
        assert fpr_at_recall(increasing, positive) == fpr_at_recall(score, positive)
    assert auroc(-score, positive) == pytest.approx(1 - value, abs=1e-15)
    assert auroc(score, ~positive) == pytest.approx(1 - value, abs=1e-15)
    order = torch.randperm(len(score), generator=torch.Generator().manual_seed(0))
    assert auroc(score[order], positive[order]) == value
    assert average_precision(score[order], positive[order]) == average_precision(score, positive)
    rates = [fpr_at_recall(score, positive, recall) for recall in (0.1, 0.5, 0.9, 1.0)]
    assert sorted(rates) == rates


def test_hand_values():
    positive = torch.tensor([True, True, False, False])
    assert auroc(torch.tensor([4.0, 3.0, 2.0, 1.0]), positive) == 1
    assert auroc(torch.tensor([1.0, 2.0, 3.0, 4.0]), positive) == 0
    assert auroc(torch.ones(4), positive) == 0.5
    # Pairs: 3 > 2, 3 > 1, 2 = 2, 2 > 1.
    assert auroc(torch.tensor([3.0, 2.0, 2.0, 1.0]), positive) == 3.5 / 4
    # First 1 of 1, then 2 of 3 together.
    assert average_precision(torch.tensor([3.0, 2.0, 2.0, 1.0]), positive) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert average_precision(torch.ones(4), positive) == 0.5
    assert average_precision(torch.ones(2), torch.tensor([True, True])) == 1
    assert fpr_at_recall(torch.tensor([3.0, 2.0, 2.0, 1.0]), positive) == 0.5
    assert fpr_at_recall(torch.tensor([3.0, 2.0, 2.0, 1.0]), positive, 0.5) == 0
    assert fpr_at_recall(torch.ones(4), positive, 0.01) == 1


@pytest.mark.parametrize(
    ("percent", "num"),
    [(95, 20), (95, 60), (95, 100), (95, 340), (95, 10000), (7, 100), (28, 100), (55, 100), (57, 100)],
)
def test_enough_is_exactly_the_recall(percent, num):
    """A whole number of positives; finding that many is enough, one less is not, however the product rounds."""
    enough = percent * num // 100
    score = torch.arange(num + 3, 0, -1)
    positive = torch.ones(num + 3, dtype=torch.bool)
    positive[[enough - 1, enough + 1, num + 2]] = False
    assert fpr_at_recall(score, positive, percent / 100) == 1 / 3


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int32])
def test_types_and_blocks(dtype, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    positive = torch.arange(800) < 300
    score = (torch.randn(800, generator=generator) * 4 + 2 * positive).round().to(dtype)
    before = score.clone()
    whole = [metric(score, positive) for metric in (auroc, average_precision, fpr_at_recall)]
    assert whole[0] == pytest.approx(roc_auc_score(positive, score.double()), rel=1e-12)
    monkeypatch.setattr("graphsparse.metrics.ranking.blocks", partial(blocks, step=3))
    assert [metric(score, positive) for metric in (auroc, average_precision, fpr_at_recall)] == whole
    assert torch.equal(score, before)  # only copies are sorted


def test_infinities_are_scores():
    score = torch.tensor([float("inf"), float("inf"), 0.0, -float("inf")])
    assert auroc(score, torch.tensor([True, False, True, False])) == (0.5 + 1 + 0 + 1) / 4


def test_close_integers_are_told_apart():
    """As floats both would be 2^53."""
    assert auroc(torch.tensor([2**53 + 1, 2**53]), torch.tensor([True, False])) == 1


def test_counts_do_not_overflow():
    """Two classes of 1.2 million: more pairs than 32 bits hold."""
    positive = torch.arange(2_400_000) % 2 == 0
    score = torch.arange(2_400_000)
    assert auroc(score, positive) == pytest.approx(0.5 - 0.5 / 1.2e6, rel=1e-12)


@pytest.mark.parametrize("metric", [auroc, average_precision, fpr_at_recall])
@pytest.mark.parametrize(
    ("error", "match", "score", "positive"),
    [
        (TypeError, "'score' must be a real-valued tensor .got list", [1.0], torch.tensor([True])),
        (TypeError, "'score' must be a real-valued", torch.ones(1, dtype=torch.complex64), torch.tensor([True])),
        (TypeError, "'positive' must be a bool tensor .got torch.int64", torch.ones(2), torch.tensor([1, 0])),
        (ValueError, r"must both be \[N\] .got \[2\] and \[1\]", torch.ones(2), torch.tensor([True])),
        (ValueError, r"must both be \[N\]", torch.ones(2, 1), torch.tensor([[True], [False]])),
        (ValueError, "'score' must not hold NaN", torch.tensor([1.0, float("nan")]), torch.tensor([True, False])),
        (ValueError, "'positive' marks nothing", torch.ones(2), torch.tensor([False, False])),
        (ValueError, "'positive' marks nothing", torch.ones(0), torch.ones(0, dtype=torch.bool)),
    ],
)
def test_bad_input(metric, error, match, score, positive):
    with pytest.raises(error, match=match):
        metric(score, positive)


def test_bad_recall_and_no_negative():
    score, positive = torch.tensor([1.0, 2.0]), torch.tensor([True, False])
    for recall in (0, -0.1, 1.01, float("nan")):
        with pytest.raises(ValueError, match="'recall' must be in"):
            fpr_at_recall(score, positive, recall)
    with pytest.raises(TypeError, match="'recall' must be a number"):
        fpr_at_recall(score, positive, "0.95")
    for metric in (auroc, fpr_at_recall):
        with pytest.raises(ValueError, match="'positive' marks everything"):
            metric(score, torch.ones(2, dtype=torch.bool))
