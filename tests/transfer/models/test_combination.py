import math

import numpy as np
import pytest
import torch
from sklearn.isotonic import IsotonicRegression

from graphsparse.metrics import average_precision
from graphsparse.transfer.models import combination as module
from graphsparse.transfer.models.combination import Combination, cross_fitted


def scores_of(num=600, rules=4, seed=0):
    """Links score 1, 1/2 and 1/3 higher by the first three rules; the last is noise."""
    generator = torch.Generator().manual_seed(seed)
    positive = torch.arange(num) < num // 4
    gain = torch.tensor([1.0, 0.5, 1 / 3] + [0.0] * (rules - 3))
    return gain[:, None] * positive + torch.randn(rules, num, generator=generator), positive


def test_what_any_rule_scores_higher_never_scores_lower():
    scores, positive = scores_of()
    scores[1] = scores[1].exp()  # heavy tails
    scores[2] = scores[2].round()  # ties
    fitted = Combination.fit(scores, positive)
    assert (fitted.weight >= 0).all()
    before = fitted(scores)
    for rule in range(4):
        for step in (0.01, 1.0, 1e6):
            changed = scores.clone()
            changed[rule] += step
            assert (fitted(changed) >= before).all()
    assert before.unique().numel() > 400


def test_the_scale_of_two_values_by_hand():
    """3 of 4 pairs that score 1 are links, and 1 of 6 that score 0; 2 pairs with the share of all are added to each."""
    positive = torch.tensor([True] * 4 + [False] * 6)
    scores = torch.tensor([[1.0, 1, 1, 0, 1, 0, 0, 0, 0, 0]])
    fitted = Combination.fit(scores, positive)
    high, low = (3 + 0.8) / 6, (1 + 0.8) / 8
    assert fitted.knots[0].tolist() == [0.0, 1.0]
    assert fitted.odds[0].tolist() == pytest.approx([math.log(p / (1 - p)) for p in (low, high)])
    expected = fitted.bias + fitted.weight[0] * (fitted.odds[0, 0] + fitted.odds[0, 1]) / 2
    assert float(fitted(torch.tensor([[0.5]]))) == pytest.approx(float(expected))
    assert torch.equal(fitted(torch.tensor([[7.0, 1.0]])).diff(), torch.zeros(1))


def test_many_pairs_are_calibrated_as_isotonic_regression_does():
    generator = torch.Generator().manual_seed(0)
    score = torch.rand(20_000, generator=generator)
    positive = torch.rand(20_000, generator=generator) < 0.1 + 0.8 * (score > 0.5) * (score - 0.5)
    fitted = Combination.fit(score[None], positive)
    reference = IsotonicRegression().fit(score, positive.double())
    middle = np.linspace(0.05, 0.95, 19)
    found = torch.from_numpy(np.interp(middle, fitted.knots[0], fitted.odds[0])).sigmoid()
    assert np.abs(found.numpy() - reference.predict(middle)).max() < 0.04
    assert float(fitted.weight[0]) == pytest.approx(1, abs=0.05)


def test_weights_are_the_best_ones_that_are_not_negative():
    """The conditions of Karush, Kuhn and Tucker, by autograd."""
    scores, positive = scores_of(rules=6)
    scores[4] = scores[0]
    fitted = Combination.fit(scores, positive)
    rows = zip(scores.double(), fitted.knots, fitted.odds, strict=True)
    on_scale = torch.stack([torch.from_numpy(np.interp(row, x, y)) for row, x, y in rows])
    weight, bias = fitted.weight.clone().requires_grad_(), fitted.bias.clone().requires_grad_()
    logits = weight @ on_scale + bias
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, positive.double(), reduction="sum")
    (loss + weight.square().sum() / 2).backward()
    assert abs(float(bias.grad)) < 0.1
    assert (fitted.weight > 0).sum() >= 4
    assert weight.grad[fitted.weight > 0].abs().max() < 0.5
    assert (weight.grad > -0.5).all()
    assert float(fitted.weight[0]) == pytest.approx(float(fitted.weight[4]), abs=0.05)


def test_noise_gains_nothing_when_it_is_cross_fitted():
    generator = torch.Generator().manual_seed(0)
    scores, positive = torch.rand(10, 150, generator=generator), torch.arange(150) < 30
    inside = average_precision(Combination.fit(scores, positive)(scores), positive)
    outside = average_precision(cross_fitted(scores, positive, seed=0), positive)
    assert inside > 0.4
    assert outside < 0.3
    scores, positive = scores_of()
    gain = average_precision(cross_fitted(scores, positive, seed=0), positive) - average_precision(scores[0], positive)
    assert gain > 0.05


def test_blocks_and_rules_without_a_weight(monkeypatch):
    scores, positive = scores_of()
    scores = torch.cat([scores, torch.zeros(1, 600)])
    fitted = Combination.fit(scores, positive)
    assert float(fitted.weight[4]) == 0
    whole = fitted(scores)
    scores[4] = math.nan
    assert torch.equal(fitted(scores), whole)
    used = fitted.weight.nonzero().view(-1)
    assert torch.equal(fitted.only(used)(scores[used]), whole)
    monkeypatch.setattr(module, "CACHED", 7)
    assert torch.equal(fitted(scores), whole)
    monkeypatch.setattr(module, "_MOST", 300)
    assert not torch.equal(Combination.fit(scores[:4], positive).bias, fitted.bias)
