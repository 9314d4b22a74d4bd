import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ogb.linkproppred import Evaluator

from graphsparse.metrics import mrr
from graphsparse.metrics.mrr import reciprocal_ranks

EVALUATOR = Evaluator("ogbl-citation2")


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 12), st.integers(1, 9), st.integers(0, 999))
def test_equals_the_evaluator_of_ogb(num, k, seed):
    generator = torch.Generator().manual_seed(seed)
    pos = torch.randint(4, (num,), generator=generator).float()
    neg = torch.randint(4, (num, k), generator=generator).float()
    ranks = EVALUATOR.eval({"y_pred_pos": pos, "y_pred_neg": neg})["mrr_list"]
    torch.testing.assert_close(reciprocal_ranks(pos, neg).float(), ranks)
    assert mrr(pos, neg) == pytest.approx(float(ranks.double().mean()), rel=1e-6)


def test_blocks_change_nothing(monkeypatch):
    import importlib

    pos, neg = torch.rand(50), torch.rand(50, 7)
    whole = mrr(pos, neg)
    monkeypatch.setattr(importlib.import_module("graphsparse.metrics.mrr"), "_BLOCK", 15)
    assert mrr(pos, neg) == whole


def test_hand_values():
    assert mrr(torch.tensor([2.0]), torch.tensor([[1.0, 3.0, 3.0]])) == pytest.approx(1 / 3)
    assert mrr(torch.tensor([2.0]), torch.tensor([[2.0, 2.0]])) == 1 / 2  # between first and third
    assert mrr(torch.tensor([2.0]), torch.empty(1, 0)) == 1


@pytest.mark.parametrize(
    ("pos", "neg"),
    [(torch.ones(2), torch.ones(2)), (torch.ones(2), torch.ones(3, 2)), (torch.ones(0), torch.ones(0, 2))],
)
def test_bad_shapes(pos, neg):
    with pytest.raises(ValueError, match=r"must be \[P\] with P > 0, and \[P, k\]"):
        mrr(pos, neg)


def test_nan():
    with pytest.raises(ValueError, match="'neg' must not hold NaN"):
        mrr(torch.ones(1), torch.tensor([[float("nan")]]))
