import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ogb.linkproppred import Evaluator

from graphsparse.metrics import RankedLinks, hits_at_k

EVALUATOR = Evaluator("ogbl-collab")
LEVELS = st.integers(-3, 3)


@settings(max_examples=150, deadline=None)
@given(st.lists(LEVELS, min_size=1, max_size=20), st.lists(LEVELS, min_size=1, max_size=20), st.integers(1, 25))
def test_equals_the_evaluator_of_ogb(pos, neg, k):
    pos, neg = torch.tensor(pos).float(), torch.tensor(neg).float()
    EVALUATOR.K = k
    expected = EVALUATOR.eval({"y_pred_pos": pos, "y_pred_neg": neg})[f"hits@{k}"]
    assert hits_at_k(pos, neg, k) == expected
    assert RankedLinks(pos, neg).hits_at_k(k) == expected


def test_equals_the_evaluator_on_many_scores():
    generator = torch.Generator().manual_seed(0)
    pos, neg = torch.randn(5000, generator=generator) + 1, torch.randn(20_000, generator=generator)
    for k in (20, 50, 100):
        EVALUATOR.K = k
        assert hits_at_k(pos, neg, k) == EVALUATOR.eval({"y_pred_pos": pos, "y_pred_neg": neg})[f"hits@{k}"]


def test_equal_scores_are_no_hit():
    assert hits_at_k(torch.ones(3), torch.ones(3), 1) == 0
    assert hits_at_k(torch.ones(3), torch.empty(0), 1) == 1


@pytest.mark.parametrize(
    ("error", "match", "arguments"),
    [
        (ValueError, "'k' must be at least 1 .got 0", (torch.ones(2), torch.ones(2), 0)),
        (TypeError, "'k' must be an integer .got 2.0", (torch.ones(2), torch.ones(2), 2.0)),
        (TypeError, "must have the same type", (torch.ones(2), torch.ones(2).long(), 1)),
        (ValueError, "'neg' must not hold NaN", (torch.ones(2), torch.tensor([math.nan]), 1)),
        (ValueError, r"must be \[P\] with P > 0, and \[N\] .got \[0\] and \[2\]", (torch.ones(0), torch.ones(2), 1)),
        (ValueError, r"must be \[P\] with P > 0, and \[N\]", (torch.ones(2), torch.ones(2, 1), 1)),
    ],
)
def test_bad_input(error, match, arguments):
    with pytest.raises(error, match=match):
        hits_at_k(*arguments)
