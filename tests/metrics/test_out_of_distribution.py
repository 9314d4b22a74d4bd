import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import logsumexp

from graphsparse.metrics import auroc, energy_score, max_softmax_score

logits = arrays(
    np.float64, st.tuples(st.integers(1, 6), st.integers(1, 5)), elements=st.floats(-30, 30, allow_subnormal=False)
)


@settings(max_examples=100, deadline=None)
@given(logits)
def test_max_softmax_is_one_minus_the_probability(z):
    score = max_softmax_score(torch.from_numpy(z))
    expected = 1 - torch.from_numpy(z).softmax(1).amax(1)
    torch.testing.assert_close(score, expected, rtol=0, atol=1e-14)
    assert (score >= 0).all()
    assert (score <= 1 - 1 / z.shape[1] + 1e-14).all()


@settings(max_examples=100, deadline=None)
@given(logits, st.sampled_from([0.1, 1.0, 2.5]), st.floats(-100, 100))
def test_energy_is_minus_the_free_energy(z, temperature, shift):
    score = energy_score(torch.from_numpy(z), temperature)
    np.testing.assert_allclose(score, -temperature * logsumexp(z / temperature, axis=1), rtol=1e-12, atol=1e-11)
    moved = energy_score(torch.from_numpy(z + shift), temperature)
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


def test_hand_values():
    even = torch.zeros(1, 4)
    assert max_softmax_score(even).item() == pytest.approx(0.75)
    assert energy_score(even).item() == pytest.approx(-math.log(4))
    assert energy_score(even, 2.0).item() == pytest.approx(-2 * math.log(4))
    assert max_softmax_score(torch.zeros(2, 1)).tolist() == [0, 0]
    assert max_softmax_score(torch.zeros(0, 3)).shape == (0,)
    assert energy_score(torch.zeros(0, 3)).shape == (0,)


@pytest.mark.parametrize("size", [1e4, 3e38])
def test_large_logits_do_not_overflow(size):
    z = torch.tensor([[size, size, 0.0], [-size, -size, -size]])
    torch.testing.assert_close(max_softmax_score(z), torch.tensor([0.5, 2 / 3]))
    torch.testing.assert_close(energy_score(z), torch.tensor([-size, size]), rtol=1e-3, atol=0)
    assert energy_score(z, 0.01).isfinite().all()


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


def test_bad_temperature():
    for temperature in (0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="'temperature' must be above 0 and finite"):
            energy_score(torch.ones(1, 2), temperature)
    with pytest.raises(TypeError, match="'temperature' must be a number .got True"):
        energy_score(torch.ones(1, 2), True)
