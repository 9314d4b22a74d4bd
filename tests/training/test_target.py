import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from ogb.graphproppred import Evaluator

from graphsparse.training.target import check_target, mean_auroc, read_labels, read_metric, rmse, target_loss

NAN = math.nan


class Named:
    def __init__(self, task_type):
        self.task_type = task_type


def test_target():
    assert check_target("binary", []) == "binary"
    assert check_target("regression", Named("binary classification")) == "regression"
    for of_ogb, target in (
        ("binary classification", "binary"),
        ("multiclass classification", "multiclass"),
        ("regression", "regression"),
    ):
        assert check_target(None, Named(of_ogb)) == target
    with pytest.raises(ValueError, match="does not say it .got 'subtoken prediction'"):
        check_target(None, Named("subtoken prediction"))
    with pytest.raises(ValueError, match="does not say it .got None"):
        check_target(None, [])
    with pytest.raises(ValueError, match="must be one of .*got 'rank'"):
        check_target("rank", [])


def test_forms_of_labels():
    y = torch.tensor([[0.0, 1.0], [NAN, 1.0], [1.0, 0.0]])
    for form in (y, y.view(-1)):
        assert torch.equal(read_labels(form, 3, "binary").nan_to_num(7), y.nan_to_num(7))
    assert read_labels(torch.tensor([1, 0]), 2, "binary").tolist() == [[1], [0]]
    for form in (torch.tensor([2, 0]), torch.tensor([[2], [0]]), torch.tensor([[2.0], [0.0]])):
        assert read_labels(form, 2, "multiclass").tolist() == [2, 0]
        assert read_labels(form, 2, "multiclass").dtype == torch.int64
    assert read_labels(torch.tensor([0.5, NAN]), 2, "regression").shape == (2, 1)
    for none in (torch.tensor([2, -1, -100]), torch.tensor([[2.0], [NAN], [-1.0]])):  # as PyTorch's losses leave out
        assert read_labels(none, 3, "multiclass").tolist() == [2, -100, -100]
    assert read_labels(torch.tensor([2, -1]), 2, "regression").tolist() == [[2], [-1]]


BAD = {
    "missing": (None, "binary", "'y' must hold labels.*NoneType"),
    "too many": (torch.ones(5), "binary", r"the same number for each of 2 .got \[5\]"),
    "none": (torch.ones(0), "binary", "must hold labels"),
    "two": (torch.tensor([0, 2]), "binary", "binary labels must be 0, 1 or NaN .got 0.0 to 2.0"),
    "half": (torch.tensor([0.0, 0.5]), "multiclass", "one integer from 0"),
    "negative": (torch.tensor([0, -2]), "multiclass", "one integer from 0.*got -2"),
    "bools": (torch.tensor([False, True]), "multiclass", "one integer from 0"),
    "no answer": (torch.tensor([0, -1]), "binary", "binary labels must be 0, 1 or NaN .got -1.0 to 0.0"),
    "several": (torch.ones(2, 2), "multiclass", r"one integer from 0 .*\[2, 2\]"),
    "infinite": (torch.tensor([0.0, math.inf]), "regression", "infinite label"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_labels(name):
    y, target, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        read_labels(y, 2, target)


@given(st.integers(0, 10**6))
def test_loss_is_the_mean_over_known_labels(seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    y = torch.randint(2, (6, 3), generator=generator).double()
    y[torch.rand(6, 3, generator=generator) < 0.5] = NAN
    known = [(float(z), float(t)) for z, t in zip(logits.view(-1), y.view(-1), strict=True) if not math.isnan(t)]
    if not known:
        assert target_loss(logits, y, "binary") is target_loss(logits, y, "regression") is None
        return
    binary = np.mean([math.log(1 + math.exp(-z if t == 1 else z)) for z, t in known])
    assert float(target_loss(logits, y, "binary")) == pytest.approx(binary, rel=1e-9)
    assert float(target_loss(logits, y, "regression")) == pytest.approx(np.mean([(z - t) ** 2 for z, t in known]))
    classes = torch.randint(3, (6,), generator=generator)
    assert float(target_loss(logits, classes, "multiclass")) == float(F.cross_entropy(logits, classes))


def test_labels_that_are_not_known_have_no_gradient():
    logits = torch.zeros(2, 2, requires_grad=True)
    target_loss(logits, torch.tensor([[1.0, NAN], [NAN, NAN]]), "binary").backward()
    assert logits.grad.flatten().tolist() == [pytest.approx(-0.5), 0, 0, 0]


def with_known(seed, real=False):
    generator = torch.Generator().manual_seed(seed)
    y = torch.randn(30, 12, generator=generator) if real else torch.randint(2, (30, 12), generator=generator).float()
    y[torch.rand(30, 12, generator=generator) < 0.3] = NAN
    return torch.randn(30, 12, generator=generator), y


@pytest.mark.parametrize("seed", range(3))
def test_metrics_equal_those_of_ogb(seed):
    evaluator = Evaluator("ogbg-moltox21")  # 12 questions
    logits, y = with_known(seed)
    y[:, 3] = y[:, 3].masked_fill(y[:, 3] == 0, 1)  # one answer only
    assert mean_auroc(logits, y) == pytest.approx(evaluator.eval({"y_true": y, "y_pred": logits})["rocauc"], abs=1e-12)
    name, metric, maximize = read_metric("binary", evaluator)
    assert name == "rocauc"
    assert maximize
    assert metric(logits, y) == evaluator.eval({"y_true": y, "y_pred": logits})["rocauc"]
    evaluator.eval_metric = "rmse"
    logits, y = with_known(seed, real=True)
    assert rmse(logits, y) == pytest.approx(evaluator.eval({"y_true": y, "y_pred": logits})["rmse"], rel=1e-5)
    _, metric, maximize = read_metric("regression", evaluator)
    assert not maximize
    assert metric(logits, y) == pytest.approx(rmse(logits, y), rel=1e-5)


def test_accuracy_of_ogb_takes_the_largest_logit():
    _, metric, maximize = read_metric("multiclass", Evaluator("ogbg-ppa"))
    assert maximize
    logits, y = torch.tensor([[0.1, 0.9, 0.0], [0.8, 0.1, 0.9], [1.0, 0.0, 0.0]]), torch.tensor([1, 2, 1])
    _, own, _ = read_metric("multiclass")
    assert metric(logits, y) == own(logits, y) == pytest.approx(2 / 3)


def test_nothing_to_judge():
    assert math.isnan(mean_auroc(torch.zeros(2, 1), torch.ones(2, 1)))
    assert math.isnan(rmse(torch.zeros(2, 1), torch.full((2, 1), NAN)))
    assert rmse(torch.zeros(2, 2), torch.tensor([[3.0, NAN], [3.0, NAN]])) == 3


def test_own_metric():
    own = lambda logits, y: 1.0  # noqa: E731
    assert read_metric("binary", own) == ("metric", own, True)
    assert read_metric("binary", rmse, maximize=False) == ("rmse", rmse, False)
    assert [read_metric(target)[0] for target in ("multiclass", "binary", "regression")] == [
        "accuracy",
        "rocauc",
        "rmse",
    ]
    assert read_metric("regression")[2] is False
    for arguments, error, message in (
        ({"maximize": True}, ValueError, "'maximize' is for a function"),
        ({"metric": 3}, TypeError, "'metric' must be a function"),
        ({"metric": Evaluator("ogbg-code2")}, ValueError, "'metric' must be an evaluator with one of .*got 'F1'"),
    ):
        with pytest.raises(error, match=message):
            read_metric("binary", **arguments)


def test_weights_of_several_questions():
    """A row counts by its weight, with the mean over its known questions."""
    logits = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([[1.0, NAN, 0.0], [NAN, NAN, NAN], [1.0, 1.0, 1.0], [0.0, NAN, NAN]], dtype=torch.float64)
    weight = torch.tensor([0.5, 3.0, 0.25, 2.0], dtype=torch.float64)
    expected = 0.0
    for z, t, w in zip(logits.tolist(), y.tolist(), weight.tolist(), strict=True):
        terms = [(a - b) ** 2 for a, b in zip(z, t, strict=True) if not math.isnan(b)]
        expected += w * (sum(terms) / len(terms) if terms else 0.0)
    assert float(target_loss(logits, y, "regression", weight)) == pytest.approx(expected, rel=1e-12)
