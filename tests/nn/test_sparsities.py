import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphsparse.nn import coat_sparsities
from graphsparse.nn.sparsities import ramp_factor


def test_uniform_by_hand():
    assert coat_sparsities(0.55, 3) == pytest.approx((0.55, 0.70, 0.85))
    assert coat_sparsities(0.0, 4) == (0.0, 0.25, 0.5, 0.75)
    assert coat_sparsities(0.9, 1) == (0.9,)


def test_linear_by_hand():
    # Normalised: 0.1, 0.2, ..., 1.0, standard deviation 0.28723. The 0.3-quantile keeps 7: t_1 = 0.4.
    # t_2 = 0.4 + 3 * 0.28723 / 3 = 0.687, below which are 6 of 10; t_3 = 0.974, below which are 9.
    scores = torch.tensor([-3.0, 1, -2, 5, -4, 10, 7, -6, 9, -8])
    assert coat_sparsities(0.3, 3, "linear", scores=scores) == (0.3, 0.6, 0.9)
    # Two coats: t_2 = 0.4 + 3 * 0.28723 / 2 = 0.83.
    assert coat_sparsities(0.3, 2, "linear", scores=scores) == (0.3, 0.8)
    # From a high start on, the further thresholds lie above every score: 0.9 + 0.287 and 0.9 + 0.574.
    assert coat_sparsities(0.8, 3, "linear", scores=scores) == (0.8, 1.0, 1.0)
    assert coat_sparsities(0.8, 3, "adaptive_linear", scores=scores) == (0.8,)
    assert coat_sparsities(0.3, 3, "adaptive_linear", scores=scores) == (0.3, 0.6, 0.9)


def test_coats_above_nearly_every_score_are_left_out():
    scores = torch.cat([torch.full((50,), 0.2), torch.full((50,), 1.0)])
    # sigma = 0.4; t_1 = 1 at a sparsity of one half, so the first coat stays though it is not below 0.9996.
    assert coat_sparsities(0.5, 5, "adaptive_linear", scores=scores) == (0.5,)
    assert coat_sparsities(0.5, 5, "linear", scores=scores) == (0.5, 1.0, 1.0, 1.0, 1.0)


@settings(max_examples=60)
@given(
    st.integers(0, 10**6),
    st.floats(0, 0.99),
    st.integers(1, 6),
    st.sampled_from(["uniform", "linear", "adaptive_linear"]),
)
def test_against_numpy(seed, sparsity, coats, spacing):
    scores = np.random.default_rng(seed).normal(size=200)
    got = coat_sparsities(sparsity, coats, spacing, scores=torch.from_numpy(scores))
    assert got[0] == sparsity
    assert list(got) == sorted(got)
    assert len(got) == coats or spacing == "adaptive_linear"
    if spacing == "uniform":
        assert got == pytest.approx(tuple(np.linspace(sparsity, 1, coats + 1)[:-1]))
        return
    size = np.abs(scores) / np.abs(scores).max()
    start = np.sort(size)[math.floor(sparsity * 200)]
    thresholds = [start + 3 * size.std() * n / coats for n in range(coats)]
    valid = [t for n, t in enumerate(thresholds) if spacing == "linear" or n == 0 or t < 0.9996]
    assert got[1:] == pytest.approx(tuple((size < t).mean() for t in valid[1:]))


def test_scores_of_any_shape_and_type():
    scores = torch.randn(10, 30, generator=torch.Generator().manual_seed(0))
    expected = coat_sparsities(0.4, 3, "linear", scores=scores.reshape(-1))
    assert coat_sparsities(0.4, 3, "linear", scores=scores.requires_grad_()) == expected
    assert coat_sparsities(0.4, 3, "linear", scores=-7 * scores) == expected


BAD = [
    ({"sparsity": 1.0}, ValueError, r"'sparsity' is the fraction removed and must be in \[0, 1\)"),
    ({"coats": 0}, ValueError, r"'coats' must be at least 1 \(got 0\)"),
    ({"coats": 2.0}, TypeError, "'coats' must be an integer"),
    ({"coats": True}, TypeError, "'coats' must be an integer"),
    ({"spacing": "log"}, ValueError, "'spacing' must be one of .*'adaptive_linear'.*got 'log'"),
    ({"spacing": "linear"}, ValueError, "'scores' is needed for the spacing 'linear'"),
    ({"spacing": "linear", "scores": torch.arange(3)}, TypeError, "'scores' must be a floating point tensor"),
    ({"spacing": "linear", "scores": [1.0]}, TypeError, "'scores' must be a floating point tensor"),
    ({"spacing": "linear", "scores": torch.empty(0)}, ValueError, "'scores' must not be empty"),
    ({"spacing": "linear", "scores": torch.zeros(3)}, ValueError, "not all 0"),
    ({"spacing": "linear", "scores": torch.tensor([1.0, torch.inf])}, ValueError, "'scores' must be finite"),
    ({"spacing": "linear", "scores": torch.tensor([1.0, torch.nan])}, ValueError, "'scores' must be finite"),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD)
def test_bad_arguments(change, error, message):
    with pytest.raises(error, match=message):
        coat_sparsities(**({"sparsity": 0.5, "coats": 3} | change))


def test_linear_ramp():
    # The sparsity s t / (T / 2) up to half of the training, then s.
    assert [ramp_factor(t, 10) for t in range(11)] == [0.0, 0.2, 0.4, 0.6, 0.8, 1, 1, 1, 1, 1, 1]
    assert [ramp_factor(t, 5) for t in range(5)] == [0.0, 0.4, 0.8, 1.0, 1.0]
    assert ramp_factor(100, 400) == 0.5


def test_cubic_ramp():
    assert [ramp_factor(t, 8, "cubic") for t in range(6)] == [0.0, 1 - 27 / 64, 1 - 8 / 64, 1 - 1 / 64, 1.0, 1.0]


@pytest.mark.parametrize("ramp", ["linear", "cubic"])
def test_a_ramp_grows_and_ends(ramp):
    values = [ramp_factor(t, 37, ramp) for t in range(60)]
    assert values == sorted(values)
    assert values[0] == 0
    assert values[19:] == [1.0] * 41
    assert values[18] < 1


def test_no_ramp():
    assert ramp_factor(0, 10, None) == 1
    assert ramp_factor(0, None) == 1
