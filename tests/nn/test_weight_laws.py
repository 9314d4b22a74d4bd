import hashlib
import math

import numpy as np
import pytest
import torch

from graphsparse.nn import SupermaskLaw
from graphsparse.nn.weight_laws import SCORE_LAWS, WEIGHT_LAWS, draw_scores, draw_weight, fan_in
from graphsparse.utils.counter_random import CounterRandom

SHAPES = [(256, 1433), (7, 256), (1, 8, 32), (4, 4, 4), (9,)]


@pytest.mark.parametrize("shape", SHAPES)
def test_fan_in_is_that_of_torch(shape):
    if len(shape) > 1:
        assert fan_in(shape) == torch.nn.init._calculate_fan_in_and_fan_out(torch.empty(shape))[0]
    assert fan_in(torch.Size(shape)) == math.prod(shape[1:]) or shape == (9,)
    assert fan_in((9,)) == 9


@pytest.mark.parametrize("mean_square", [1.0, 0.25, 3.0])
@pytest.mark.parametrize("shape", [(300, 200), (1, 30, 400)])
@pytest.mark.parametrize("law", WEIGHT_LAWS)
def test_spread_of_the_weights(law, shape, mean_square):
    weight = draw_weight(shape, law, seed=1, name="w", mean_square=mean_square)
    assert weight.shape == shape
    assert weight.dtype == torch.float32
    variance = 2 / fan_in(shape) / mean_square
    fourth = {"kaiming_uniform": 1.8, "kaiming_normal": 3.0, "signed_constant": 1.0}[law]
    num = weight.numel()
    assert abs(float(weight.double().mean())) < 5 * (variance / num) ** 0.5
    error = abs(float(weight.double().square().mean()) - variance)
    assert error <= 5 * variance * ((fourth - 1) / num) ** 0.5 + 1e-6 * variance
    if law == "kaiming_uniform":
        bound = math.sqrt(3 * variance)
        assert 0.99 * bound < float(weight.abs().max()) <= np.float32(bound)
    if law == "signed_constant":
        assert weight.abs().unique().tolist() == [float(np.float32(math.sqrt(variance)))]


@pytest.mark.parametrize("shape", [(300, 200), (1, 30, 400)])
@pytest.mark.parametrize("law", SCORE_LAWS)
def test_spread_of_the_scores(law, shape):
    scores = draw_scores(shape, law, seed=1, name="w").double()
    inputs, _ = torch.nn.init._calculate_fan_in_and_fan_out(torch.empty(shape))
    variance = {"kaiming_uniform": 2, "edge_popup": 1 / 3}[law] / inputs
    assert scores.shape == shape
    assert abs(float(scores.square().mean()) / variance - 1) < 5 * (2 / scores.numel()) ** 0.5
    bound = math.sqrt(3 * variance)
    assert 0.99 * bound < float(scores.abs().max()) <= bound * (1 + 1e-7)


def test_uniform_weights_from_the_words():
    weight = draw_weight((3, 50), seed=4, name="lin")
    bound = np.float32(math.sqrt(6 / 50))
    words = CounterRandom(4, "weight:lin").words(150).numpy()
    expected = (2 * ((words >> 8) / 2**24) - 1).astype(np.float32) * bound
    assert np.array_equal(weight.numpy().ravel(), expected)


KNOWN = {
    "kaiming_uniform": "51a6d237c302bb17",
    "kaiming_normal": "85873f1c048c1648",
    "signed_constant": "432662824789e094",
}


@pytest.mark.parametrize("law", WEIGHT_LAWS)
def test_known_bits(law):
    # Written down once: they must never change, or no ticket could be read again.
    weight = draw_weight((40, 30), law, seed=42, name="convs.0.lin.weight", mean_square=1 - 0.9)
    assert hashlib.sha256(weight.numpy().astype("<f4").tobytes()).hexdigest()[:16] == KNOWN[law]


def test_seed_name_and_kind_make_the_stream():
    first = draw_weight((20, 20), seed=0, name="a")
    assert torch.equal(first, draw_weight((20, 20), seed=0, name="a"))
    for other in (
        draw_weight((20, 20), seed=1, name="a"),
        draw_weight((20, 20), seed=0, name="b"),
        draw_scores((20, 20), seed=0, name="a"),
    ):
        assert abs(float(torch.corrcoef(torch.stack([first.ravel(), other.ravel()]))[0, 1])) < 0.25


def test_bad_laws():
    for name in ("weights", "scores"):
        with pytest.raises(ValueError, match=f"law of '{name}' must be one of .*'kaiming_uniform'.*got 'xavier'"):
            SupermaskLaw(**{name: "xavier"})
    with pytest.raises(ValueError, match="law of 'weights' must be one of"):
        SupermaskLaw("edge_popup")
    with pytest.raises(TypeError, match="'scaled' must be a bool or 'first'"):
        SupermaskLaw(scaled=1)
