import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import logsumexp

from graphsparse.metrics import accuracy, auroc, energy_score, expected_calibration_error, max_softmax_score


def test_accuracy_equals_numpy():
    generator = torch.Generator().manual_seed(0)
    logits, y = torch.randn(50, 4, generator=generator), torch.randint(4, (50,), generator=generator)
    mask = torch.rand(50, generator=generator) < 0.4
    hits = logits.numpy().argmax(1) == y.numpy()
    assert accuracy(logits, y) == np.mean(hits)
    assert accuracy(logits, y, mask) == np.mean(hits[mask.numpy()])


def test_labels_outside_the_mask_do_not_matter():
    logits, y = torch.eye(3), torch.tensor([0, -100, 2])
    assert accuracy(logits, y, torch.tensor([True, False, True])) == 1.0


def test_first_of_equal_logits_counts():
    assert accuracy(torch.zeros(2, 3), torch.tensor([0, 1])) == 0.5


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.float32])
def test_mask_of_numbers_is_refused(dtype):
    """Zeros and ones would pick the first two nodes, again and again."""
    with pytest.raises(TypeError, match="'mask' must be a bool tensor .got torch"):
        accuracy(torch.eye(3), torch.tensor([0, 1, 2]), torch.tensor([1, 0, 1], dtype=dtype))


@pytest.mark.parametrize(
    ("logits", "y", "mask", "message"),
    [
        (torch.zeros(3), torch.zeros(3), None, r"must be \[N, C\] with C > 0, \[N\] and \[N\]"),
        (torch.zeros(3, 2), torch.zeros(3, 1), None, "must be"),
        (torch.zeros(3, 2), torch.zeros(3), torch.ones(2, dtype=torch.bool), "must be"),
        (torch.zeros(3, 2), torch.zeros(3), torch.zeros(3, dtype=torch.bool), "'mask' marks no node"),
        (torch.zeros(0, 2), torch.zeros(0), None, "marks no node"),
    ],
)
def test_bad_input_of_accuracy(logits, y, mask, message):
    with pytest.raises(ValueError, match=message):
        accuracy(logits, y, mask)


def slow(probs, y, num_bins):
    """One node after the other, one bin after the other, edges as exact fractions rounded once."""
    error = 0.0
    for b in range(num_bins):
        low, high = float(Fraction(b, num_bins)), float(Fraction(b + 1, num_bins))
        members = [(max(p), p.index(max(p)) == c) for p, c in zip(probs, y, strict=True) if low < max(p) <= high]
        if members:
            confidence = sum(m[0] for m in members) / len(members)
            right = sum(m[1] for m in members) / len(members)
            error += len(members) / len(y) * abs(right - confidence)
    return error


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 40), st.integers(2, 6), st.integers(1, 25))
def test_calibration_equals_a_slow_loop(seed, num, num_classes, num_bins):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(num, num_classes, generator=generator, dtype=torch.float64)
    y = torch.randint(num_classes, (num,), generator=generator)
    expected = slow(logits.softmax(1).tolist(), y.tolist(), num_bins)
    got = expected_calibration_error(logits, y, num_bins=num_bins)
    assert got == pytest.approx(expected, rel=1e-10, abs=1e-12)
    probs = expected_calibration_error(logits.log_softmax(1), y, num_bins=num_bins)
    assert probs == pytest.approx(expected, rel=1e-10, abs=1e-12)
    assert 0 <= got <= 1


@pytest.mark.parametrize("num_bins", [1, 2, 3, 5, 10, 15])
def test_exactly_so_many_bins(num_bins):
    """One node in the middle of each bin that can be reached, all wrong: no two may share a bin."""
    middle = [(b + 0.5) / num_bins for b in range(num_bins) if (b + 0.5) / num_bins > 0.5]
    if num_bins == 1:
        middle = [0.75]
    # Confident by +g in one bin and by -g in the other: within one bin they would cancel, in two they add up.
    probs = torch.tensor([[c, 1 - c] for c in middle], dtype=torch.float64)
    y = torch.tensor([i % 2 for i in range(len(middle))])
    gaps = [abs((1 - i % 2) - c) for i, c in enumerate(middle)]
    got = expected_calibration_error(probs.log(), y, num_bins=num_bins)
    assert got == pytest.approx(sum(gaps) / len(gaps), rel=1e-12)


def test_upper_edges_are_inside():
    """Equal logits give exactly 1/2, an edge of two bins: with a lower confidence in one bin, not with a higher one."""
    logits = torch.zeros(2, 4, dtype=torch.float64)
    logits[0, 2:] = -torch.inf
    low = -1.0  # 1 / (1 + 3 e^-1), a little below 1/2
    logits = torch.tensor([[0.0, 0.0, -800.0, -800.0], [0.0, low, low, low]], dtype=torch.float64)
    confidence = logits.softmax(1).amax(1).tolist()
    assert confidence[0] == 0.5
    assert confidence[1] < 0.5
    y = torch.tensor([0, 1])
    together = abs(1 - confidence[0] - confidence[1]) / 2
    assert expected_calibration_error(logits, y, num_bins=2) == pytest.approx(together, rel=1e-12)
    logits[1, 1:] = -1.2  # a little above
    above = float(logits[1].softmax(0).max())
    assert above > 0.5
    assert expected_calibration_error(logits, y, num_bins=2) == pytest.approx((0.5 + above) / 2, rel=1e-12)


def test_calibration_of_hand_values():
    sure = torch.tensor([[1000.0, 0.0], [1000.0, 0.0]])
    assert expected_calibration_error(sure, torch.tensor([0, 0])) == 0
    assert expected_calibration_error(sure, torch.tensor([1, 1])) == 1
    assert expected_calibration_error(sure, torch.tensor([0, 1])) == 0.5
    even = torch.zeros(4, 2)  # of equal logits the first counts
    assert expected_calibration_error(even, torch.tensor([0, 0, 1, 1])) == 0


def test_one_bin_is_the_gap_of_the_means():
    generator = torch.Generator().manual_seed(0)
    logits, y = torch.randn(200, 5, generator=generator), torch.randint(5, (200,), generator=generator)
    gap = abs(accuracy(logits, y) - float(logits.double().softmax(1).amax(1).mean()))
    assert expected_calibration_error(logits, y, num_bins=1) == pytest.approx(gap, rel=1e-12)


def test_labels_drawn_from_the_probabilities_are_calibrated():
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(50_000, 4, generator=generator)
    y = torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)
    # About 3300 nodes per bin, whose accuracy is known to 0.009 at most.
    assert expected_calibration_error(logits, y) < 0.009
    assert expected_calibration_error(3 * logits, y) > 0.1


def test_shifted_logits_and_log_probabilities_are_the_same():
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(60, 3, generator=generator, dtype=torch.float64)
    y = torch.randint(3, (60,), generator=generator)
    expected = expected_calibration_error(logits, y)
    assert expected_calibration_error(logits.log_softmax(1), y) == pytest.approx(expected, rel=1e-10)


def test_calibration_within_a_mask():
    generator = torch.Generator().manual_seed(2)
    logits, y = torch.randn(50, 3, generator=generator), torch.randint(3, (50,), generator=generator)
    mask = torch.arange(50) % 3 == 0
    y[~mask] = -1
    assert expected_calibration_error(logits, y, mask) == expected_calibration_error(logits[mask], y[mask])


X, Y = torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64)


@pytest.mark.parametrize(
    ("error", "match", "args", "kwargs"),
    [
        (TypeError, "'num_bins' must be an integer .got 5.0", (X, Y), {"num_bins": 5.0}),
        (TypeError, "'num_bins' must be an integer .got True", (X, Y), {"num_bins": True}),
        (ValueError, "'num_bins' must be at least 1 .got 0", (X, Y), {"num_bins": 0}),
        (TypeError, "'logits' must be a floating point tensor .got torch.int64", (X.long(), Y), {}),
        (TypeError, "'mask' must be a bool tensor .got torch.int64", (X, Y, Y), {}),
        (ValueError, r"must be \[N, C\]", (X, Y[:2]), {}),
        (ValueError, r"must be \[N, C\]", (torch.zeros(3, 0), Y), {}),
        (ValueError, "'mask' marks no node", (X, Y, Y.bool()), {}),
        (ValueError, "'logits' holds NaN or infinity", (X / 0, Y), {}),
    ],
)
def test_bad_input_of_calibration(error, match, args, kwargs):
    with pytest.raises(error, match=match):
        expected_calibration_error(*args, **kwargs)


LOGITS = arrays(
    np.float64, st.tuples(st.integers(1, 6), st.integers(1, 5)), elements=st.floats(-30, 30, allow_subnormal=False)
).filter(lambda z: (abs(z.sum(1) - 1) > 0.01).any())  # rows that all have a sum of 1 are refused as probabilities


@settings(max_examples=100, deadline=None)
@given(LOGITS)
def test_max_softmax_is_one_minus_the_probability(z):
    score = max_softmax_score(torch.from_numpy(z))
    expected = 1 - torch.from_numpy(z).softmax(1).amax(1)
    torch.testing.assert_close(score, expected, rtol=0, atol=1e-14)
    assert (score >= 0).all()
    assert (score <= 1 - 1 / z.shape[1] + 1e-14).all()


@settings(max_examples=100, deadline=None)
@given(LOGITS, st.floats(-100, 100))
def test_energy_is_minus_the_free_energy(z, shift):
    assume((abs((z + shift).sum(1) - 1) > 0.01).any())
    score = energy_score(torch.from_numpy(z))
    np.testing.assert_allclose(score, -logsumexp(z, axis=1), rtol=1e-12, atol=1e-11)
    moved = energy_score(torch.from_numpy(z + shift))
    np.testing.assert_allclose(moved, score - shift, rtol=1e-12, atol=1e-11)


def test_higher_means_more_out_of_distribution():
    known, unknown = torch.tensor([[5.0, 0.0, 0.0]]), torch.tensor([[0.5, 0.4, 0.3]])
    for score in (max_softmax_score, energy_score):
        assert score(unknown) > score(known)
        assert auroc(score(torch.cat([known, unknown])), torch.tensor([False, True])) == 1


def test_ranks_as_the_largest_probability():
    z = 3 * torch.randn(500, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    positive = torch.arange(500) % 3 == 0
    assert auroc(max_softmax_score(z), positive) == auroc(-z.softmax(1).amax(1), positive)


def test_confident_predictions_stay_apart():
    z = torch.tensor([[20.0, 0.0], [40.0, 0.0], [60.0, 0.0]])
    assert (z.softmax(1).amax(1) == 1).sum() >= 2
    expected = torch.tensor([math.exp(-20.0), math.exp(-40.0), math.exp(-60.0)])
    torch.testing.assert_close(max_softmax_score(z), expected, rtol=1e-5, atol=0)


def test_scores_of_hand_values():
    even = torch.zeros(1, 4)
    assert max_softmax_score(even).item() == pytest.approx(0.75)
    assert energy_score(even).item() == pytest.approx(-math.log(4))
    assert max_softmax_score(torch.zeros(2, 1)).tolist() == [0, 0]
    assert max_softmax_score(torch.zeros(0, 3)).shape == (0,)
    assert energy_score(torch.zeros(0, 3)).shape == (0,)


@pytest.mark.parametrize("size", [1e4, 3e38])
def test_large_logits_do_not_overflow(size):
    z = torch.tensor([[size, size, 0.0], [-size, -size, -size]])
    torch.testing.assert_close(max_softmax_score(z), torch.tensor([0.5, 2 / 3]))
    torch.testing.assert_close(energy_score(z), torch.tensor([-size, size]), rtol=1e-3, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    z = torch.randn(9, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    for score in (max_softmax_score, energy_score):
        assert torch.equal(score(z), score(z.float()))


def test_input_is_not_changed():
    z = torch.randn(5, 3, requires_grad=True)
    before = z.detach().clone()
    assert not max_softmax_score(z).requires_grad
    assert not energy_score(z).requires_grad
    assert torch.equal(z, before)


@pytest.mark.parametrize("score", [max_softmax_score, energy_score])
def test_bad_logits(score):
    with pytest.raises(TypeError, match="'logits' must be a floating point tensor .got torch.int64"):
        score(torch.ones(2, 2).long())
    with pytest.raises(TypeError, match="'logits' must be a floating point tensor .got list"):
        score([[1.0]])
    for shape in ((3,), (3, 0), (2, 2, 2)):
        with pytest.raises(ValueError, match=r"'logits' must be \[N, C\]"):
            score(torch.ones(shape))
    for value in ("nan", "inf"):
        with pytest.raises(ValueError, match="'logits' holds NaN or infinity"):
            score(torch.tensor([[float(value), 0.0]]))
