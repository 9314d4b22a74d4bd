import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from graphsparse.metrics import auroc, average_precision
from graphsparse.metrics import ranked_links as module
from graphsparse.metrics.ranked_links import RankedLinks, check_ties

LEVELS = st.integers(-3, 3)
POS, NEG = st.lists(LEVELS, min_size=1, max_size=25), st.lists(LEVELS, min_size=1, max_size=25)


@settings(max_examples=150, deadline=None)
@given(POS, NEG)
def test_equal_scikit_learn_and_the_other_functions(pos, neg):
    pos, neg = torch.tensor(pos).float(), torch.tensor(neg).float()
    ranked = RankedLinks(pos, neg)
    score, positive = torch.cat([pos, neg]), torch.arange(len(pos) + len(neg)) < len(pos)
    assert ranked.auroc() == pytest.approx(roc_auc_score(positive, score), rel=1e-12)
    assert ranked.average_precision() == pytest.approx(average_precision_score(positive, score), rel=1e-12)
    assert ranked.auroc() == auroc(score, positive)
    assert ranked.average_precision() == pytest.approx(average_precision(score, positive), rel=1e-12)


@settings(max_examples=100, deadline=None)
@given(POS, NEG, st.integers(1, 50))
def test_kth_highest(pos, neg, k):
    k = min(k, len(pos) + len(neg))
    ranked = RankedLinks(torch.tensor(pos), torch.tensor(neg))
    assert int(ranked._kth_highest(ranked.pos, k)) == sorted(pos + neg)[-k]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int32])
def test_types_and_blocks(dtype, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    pos, neg = ((torch.randn(num, generator=generator) * 4 + up).round().to(dtype) for num, up in ((300, 2), (500, 0)))
    before = pos.clone(), neg.clone()
    ranked = RankedLinks(pos, neg)
    whole = ranked.auroc(), ranked.average_precision(), ranked.hits_at_k(20)
    monkeypatch.setattr(module, "_BLOCK", 3)
    ranked = RankedLinks(pos, neg)
    assert (ranked.auroc(), ranked.average_precision(), ranked.hits_at_k(20)) == pytest.approx(whole, rel=1e-12)
    score, positive = torch.cat([pos, neg]), torch.arange(800) < 300
    assert whole[0] == auroc(score, positive)
    assert torch.equal(pos, before[0])  # only copies are sorted
    assert torch.equal(neg, before[1])


def test_infinities_signed_zeros_and_no_non_links():
    ranked = RankedLinks(torch.tensor([math.inf, -0.0]), torch.tensor([0.0, -math.inf]))
    assert ranked.auroc() == (1 + 1 + 0.5 + 1) / 4
    ranked = RankedLinks(torch.tensor([1.0]), torch.empty(0))
    assert math.isnan(ranked.auroc())
    assert ranked.average_precision() == 1
    assert ranked.recall_at_ratio(1.0) == 1
    assert ranked.hits_at_k(1) == 1


@pytest.mark.parametrize(
    ("error", "match", "pos", "neg"),
    [
        (TypeError, "'pos' must be a real-valued tensor .got list", [1.0], torch.ones(1)),
        (TypeError, "'neg' must be a real-valued tensor .got torch.bool", torch.ones(1), torch.ones(1).bool()),
        (
            TypeError,
            "must have the same type .got torch.float32 and torch.float64",
            torch.ones(1),
            torch.ones(1).double(),
        ),
        (ValueError, "'neg' must not hold NaN", torch.ones(1), torch.tensor([math.nan])),
        (ValueError, r"'neg' must be a vector .got shape \[1, 1\]", torch.ones(1), torch.ones(1, 1)),
        (ValueError, "'pos' holds no score", torch.empty(0), torch.ones(1)),
    ],
)
def test_bad_input(error, match, pos, neg):
    with pytest.raises(error, match=match):
        RankedLinks(pos, neg)


def test_bad_ties():
    with pytest.raises(ValueError, match="'ties' must be one of .* .got 'optimistic'"):
        check_ties("optimistic")
    with pytest.raises(ValueError, match="'ties' must be 'pessimistic' for 10.9"):
        module._draw(10**9, 5, 3, 0)
