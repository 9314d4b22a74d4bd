import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphsparse.metrics import accuracy, expected_calibration_error


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
def test_equals_a_slow_loop(seed, num, num_classes, num_bins):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(num, num_classes, generator=generator, dtype=torch.float64)
    y = torch.randint(num_classes, (num,), generator=generator)
    expected = slow(logits.softmax(1).tolist(), y.tolist(), num_bins)
    got = expected_calibration_error(logits, y, num_bins=num_bins)
    assert got == pytest.approx(expected, rel=1e-10, abs=1e-12)
    probs = expected_calibration_error(logits.softmax(1), y, num_bins=num_bins, probabilities=True)
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
    got = expected_calibration_error(probs, y, num_bins=num_bins, probabilities=True)
    assert got == pytest.approx(sum(gaps) / len(gaps), rel=1e-12)


@pytest.mark.parametrize("num_bins", [2, 4, 5, 10, 15, 20])
def test_upper_edges_are_inside(num_bins):
    """A confidence on an edge is in the bin below it, with the one a little lower and not with the one above."""
    for b in range(math.ceil(num_bins / 2), num_bins):
        edge = b / num_bins
        pair = [[edge, 1 - edge]]
        for other, together in ((edge - 0.2 / num_bins, True), (np.nextafter(edge, 2), False)):
            probs = torch.tensor([*pair, [other, 1 - other]], dtype=torch.float64)
            if probs[1].argmax() != 0 or probs[0].argmax() != 0:
                continue
            got = expected_calibration_error(probs, torch.tensor([0, 1]), num_bins=num_bins, probabilities=True)
            right, wrong = 1 - edge, -other
            expected = abs(right + wrong) / 2 if together else (abs(right) + abs(wrong)) / 2
            assert got == pytest.approx(expected, rel=1e-12)


def test_hand_values():
    probs = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert expected_calibration_error(probs, torch.tensor([0, 0]), probabilities=True) == 0
    assert expected_calibration_error(probs, torch.tensor([1, 1]), probabilities=True) == 1
    assert expected_calibration_error(probs, torch.tensor([0, 1]), probabilities=True) == 0.5
    even = torch.zeros(4, 2)  # of equal logits the first counts
    assert expected_calibration_error(even, torch.tensor([0, 0, 1, 1])) == 0
    assert expected_calibration_error(torch.tensor([[1000.0, 0.0]]), torch.tensor([0])) == 0


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


def test_mask():
    generator = torch.Generator().manual_seed(2)
    logits, y = torch.randn(50, 3, generator=generator), torch.randint(3, (50,), generator=generator)
    mask = torch.arange(50) % 3 == 0
    y[~mask] = -1
    assert expected_calibration_error(logits, y, mask) == expected_calibration_error(logits[mask], y[mask])


def test_float32_probabilities_that_miss_1_by_a_rounding():
    probs = torch.randn(100, 7, generator=torch.Generator().manual_seed(0)).softmax(1)
    y = probs.argmax(1)
    expected = slow(probs.double().tolist(), y.tolist(), 15)
    assert expected_calibration_error(probs, y, probabilities=True) == pytest.approx(expected, rel=1e-12)
    above = torch.tensor([[1.0 + 1e-6, 0.0]])
    assert expected_calibration_error(above, torch.tensor([0]), probabilities=True) == pytest.approx(0, abs=2e-6)


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
        (ValueError, "rows that add up to 0 to 0", (X, Y), {"probabilities": True}),
        (ValueError, "must hold probabilities", (torch.tensor([[1.5, -0.5]]), Y[:1]), {"probabilities": True}),
    ],
)
def test_bad_input(error, match, args, kwargs):
    with pytest.raises(error, match=match):
        expected_calibration_error(*args, **kwargs)
