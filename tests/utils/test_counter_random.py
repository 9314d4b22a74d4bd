import math
import statistics

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphsparse.ops.blocks import CACHED
from graphsparse.utils.counter_random import GAMMA, CounterRandom, _inverse_normal, _log, mix64


def splitmix64(state, num):
    """The published generator, number by number, in Python's integers."""
    mask, out = 2**64 - 1, []
    for _ in range(num):
        state = (state + 0x9E3779B97F4A7C15) & mask
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        out.append(z ^ (z >> 31))
    return out


def test_mixing_function_gives_the_published_numbers():
    # The first outputs of splitmix64 for the seed 1234567, as listed with many implementations of it.
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    state = torch.arange(1, 5) * GAMMA + 1234567
    assert [int(z) % 2**64 for z in mix64(state)] == published
    assert splitmix64(1234567, 4) == published


@settings(max_examples=50)
@given(st.integers(0, 2**64 - 1))
def test_mixing_function_on_any_number(number):
    signed = number - 2**64 if number >= 2**63 else number
    expected = splitmix64((number - 0x9E3779B97F4A7C15) % 2**64, 1)[0]
    assert int(mix64(torch.tensor([signed]))) % 2**64 == expected


def test_known_words():
    # Written down once: they must never change, or no ticket could be read again.
    assert CounterRandom(0, "conv.weight").words(4).tolist() == [3678170538, 2931483655, 3717813406, 531619658]
    assert CounterRandom(2**63 - 1, "ä").words(3).tolist() == [2689707182, 145148169, 546580219]
    assert CounterRandom(7, "").words(2).tolist() == [894783484, 3234561894]


@settings(max_examples=20)
@given(st.integers(0, 2**63 - 1), st.text(max_size=8), st.integers(0, 40))
def test_words_are_the_high_halves_of_splitmix64(seed, name, num):
    stream = CounterRandom(seed, name)
    assert stream.words(num).tolist() == [z >> 32 for z in splitmix64(stream.key % 2**64, num)]


@pytest.mark.parametrize("law", ["words", "signs", "uniform", "normal", "exponential"])
def test_blocks_do_not_show(law):
    stream = CounterRandom(3, "x")
    long = getattr(stream, law)(2 * CACHED + 17)
    for num in (0, 1, CACHED - 1, CACHED, CACHED + 1):
        assert torch.equal(getattr(stream, law)(num), long[:num])
    far = splitmix64((stream.key + 2 * CACHED * GAMMA) % 2**64, 3)
    assert [z >> 32 for z in far] == stream.words(2 * CACHED + 3)[-3:].tolist()


def test_laws_of_the_words():
    stream = CounterRandom(11, "weight")
    words = stream.words(200).tolist()
    assert stream.signs(200).tolist() == [-1.0 if word >= 2**31 else 1.0 for word in words]
    assert stream.uniform(200).tolist() == [(word >> 8) / 2**24 for word in words]
    normal = statistics.NormalDist()
    expected = np.array([normal.inv_cdf((word + 0.5) / 2**32) for word in words], dtype=np.float32)
    assert np.array_equal(stream.normal(200).numpy(), expected)
    waits = [-math.log((word + 0.5) / 2**32) for word in words]
    assert np.allclose(stream.exponential(200).numpy(), waits, rtol=1e-14, atol=1e-15)


def test_ends_of_the_laws():
    words = torch.tensor([0, 1, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1])
    got = _inverse_normal(words)
    expected = [statistics.NormalDist().inv_cdf((int(word) + 0.5) / 2**32) for word in words]
    assert np.allclose(got.numpy(), expected, rtol=1e-13, atol=0)
    assert torch.equal(got, -got.flip(0))
    assert 6.3 < float(got.max()) < 6.4


def test_logarithm_is_exact_to_the_last_bits():
    x = torch.cat([torch.rand(2000, dtype=torch.float64), torch.tensor([2.0**-33, 0.5, 1.0, 0.75, 2**-0.5])])
    expected = np.array([math.log(v) for v in x.tolist()])
    assert np.allclose(_log(x).numpy(), expected, rtol=1e-15, atol=3e-16)


def test_statistics():
    num = 400_000
    uniform, normal = (getattr(CounterRandom(1, law), law)(num).double() for law in ("uniform", "normal"))
    signs = CounterRandom(1, "signs").signs(num).double()
    assert 0 <= uniform.min() < uniform.max() < 1
    for draw, mean, variance, fourth in ((uniform, 0.5, 1 / 12, 1 / 80), (normal, 0, 1, 3), (signs, 0, 1, 1)):
        centred = draw - mean
        assert abs(float(centred.mean())) < 5 * (variance / num) ** 0.5
        spread = max(fourth - variance**2, 1e-6)
        assert abs(float(centred.square().mean()) - variance) < 5 * (spread / num) ** 0.5
        # Neighbours in the stream are independent.
        assert abs(float((centred[1:] * centred[:-1]).mean())) < 5 * variance / num**0.5


def test_streams_are_unrelated():
    base = CounterRandom(0, "a").uniform(100_000).double() - 0.5
    for seed, name in ((1, "a"), (0, "b"), (0, "aa"), (256, "a")):
        other = CounterRandom(seed, name).uniform(100_000).double() - 0.5
        assert abs(float((base * other).mean())) < 5 / 12 / 100_000**0.5
    # The border between seed and name is fixed.
    keys = {CounterRandom(seed, name).key for seed in range(40) for name in ("", "0", "1", "\0", "\0\0")}
    assert len(keys) == 200


def test_global_generator_is_not_touched():
    before = torch.random.get_rng_state()
    CounterRandom(0, "a").normal(10)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.cuda
def test_bits_on_cuda(device):
    for law in ("words", "signs", "uniform", "normal", "exponential"):
        here, there = (getattr(CounterRandom(5, law), law)(100_000, device=device) for device in ("cpu", device))
        assert torch.equal(here, there.cpu())


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_seed_out_of_range(seed):
    with pytest.raises(ValueError, match=r"'seed' must be between 0 and 2\*\*63 - 1 \(got"):
        CounterRandom(seed, "a")


@pytest.mark.parametrize("seed", [None, 1.0, True, "1"])
def test_seed_of_the_wrong_type(seed):
    with pytest.raises(TypeError, match="'seed' must be an integer"):
        CounterRandom(seed, "a")


def test_bad_name_and_number():
    with pytest.raises(TypeError, match="'name' must be a string"):
        CounterRandom(0, 3)
    with pytest.raises(TypeError, match="'num' must be an integer"):
        CounterRandom(0, "a").words(2.0)
    with pytest.raises(ValueError, match="'num' must be at least 0"):
        CounterRandom(0, "a").words(-1)
