import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphsparse.edges.inclusion import (
    ONE,
    draws_for,
    expected_count,
    inclusion_probability,
    pivotal,
    poisson,
    replacement,
    systematic,
)

RULES = {"pivotal": pivotal, "systematic": systematic, "poisson": poisson}

#: Draws of one small list of edges.
REPEATS = 20_000
#: Sixteen probabilities that the tournament keeps together: copies of the list do not play against each other.
P = torch.tensor([1.0, 2, 3, 4, 5, 6, 7, 8, 0.5, 0.25, 9, 3, 3, 1, 2, 0.1], dtype=torch.float64)


def water_filling(p, k, core):
    """Float reference: cap the largest one by one."""
    pi = np.zeros(len(p))
    pi[core] = 1
    positive = (p > 0) & ~core
    if k - core.sum() >= positive.sum():
        pi[positive] = 1
        rest = ~core & ~positive
        pi[rest] = (k - pi.sum()) / max(rest.sum(), 1)
        return pi
    order = [e for e in np.argsort(-p) if positive[e]]
    left = k - core.sum()
    while order and p[order[0]] * left >= p[order].sum():
        pi[order.pop(0)] = 1
        left -= 1
    if order:
        pi[order] = p[order] * left / p[order].sum()
    return pi


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 1e-6, 0.3, 1.0, 2.0, 1e3]) | st.floats(0, 10), st.booleans()), max_size=40
    ),
    st.floats(0, 1),
)
def test_probabilities_equal_water_filling_one_by_one(items, share):
    p = torch.tensor([value for value, _ in items], dtype=torch.float64)
    core = torch.tensor([flag for _, flag in items], dtype=torch.bool)
    least = int(core.sum())
    k = least + round(share * (len(items) - least))
    pi = inclusion_probability(p, k, core)
    assert int(pi.sum()) == k * ONE
    assert all(0 <= value <= ONE for value in pi.tolist())
    assert bool((pi[core] == ONE).all())
    if k > least:
        assert bool((pi[p > 0] > 0).all())
    expected = water_filling(p.numpy(), k, core.numpy())
    assert np.abs(pi.numpy() / ONE - expected).max(initial=0) < 1e-6
    for name in ("pivotal", "systematic"):
        for seed in range(2):
            keep = RULES[name](pi, seed, 0)
            assert int(keep.sum()) == k
            assert bool(keep[pi == ONE].all())
            assert not bool(keep[pi == 0].any())


def test_weights_of_any_size_are_spread():
    p = torch.tensor([1e308] * 3 + [1e-308] * 500 + [5e-324] * 500, dtype=torch.float64)
    pi = inclusion_probability(p, 100)
    assert int(pi.sum()) == 100 * ONE
    assert int(pi.min()) > 0
    p = 2.0 ** -torch.arange(900, dtype=torch.float64)
    assert int(inclusion_probability(p, 450).sum()) == 450 * ONE


def test_integers_and_float32_are_weights_too():
    weights = [1, 5, 2, 2, 9]
    expected = inclusion_probability(torch.tensor(weights, dtype=torch.float64), 3)
    for dtype in (torch.float32, torch.int64):
        p = torch.tensor(weights, dtype=dtype)
        assert torch.equal(inclusion_probability(p, 3), expected)
        assert p.tolist() == weights


def test_more_edges_than_a_block():
    p = torch.rand(200_001, generator=torch.Generator().manual_seed(0)).pow(4)
    pi = inclusion_probability(p, 77_777)
    assert int(pi.sum()) == 77_777 * ONE
    expected = water_filling_sorted(p.double().numpy(), 77_777)
    assert np.abs(pi.numpy() / ONE - expected).max() < 1e-8
    for name, draw in RULES.items():
        count = int(draw(pi, 5, 0).sum())
        assert abs(count - 77_777) <= (4 * math.sqrt(77_777) if name == "poisson" else 0)


def water_filling_sorted(p, k):
    """Float reference for many edges: all numbers of capped edges at once."""
    order = np.argsort(-p)
    tail = np.cumsum(p[order][::-1])[::-1]
    num = next(c for c in range(len(p)) if p[order[c]] * (k - c) < tail[c])
    pi = p * (k - num) / tail[num]
    pi[order[:num]] = 1
    return pi


def largest_z(drawn, pi):
    """How many standard deviations the worst share of draws ``[R, m]`` is away from its probability."""
    sure = (pi == 0) | (pi == ONE)
    assert bool((drawn.double() * ONE == pi)[:, sure].all())
    mean, chance = drawn.double().mean(0)[~sure], pi[~sure] / ONE
    return float(((mean - chance) / (chance * (1 - chance) / len(drawn)).sqrt()).abs().max())


@pytest.mark.parametrize("k", [2, 6])
def test_tournaments_of_copies_have_exact_counts_and_probabilities(k):
    pi = inclusion_probability(P, k)
    assert int(pi.max()) < ONE  # so that all sixteen play, and copies side by side do not meet
    drawn = pivotal(pi.repeat(REPEATS), 3).view(REPEATS, 16)
    assert bool((drawn.sum(1) == k).all())
    assert largest_z(drawn, pi) < 5


@pytest.mark.parametrize("name", sorted(RULES))
@pytest.mark.parametrize("k", [5, 11])
def test_every_edge_is_drawn_with_its_probability_over_seeds_and_epochs(name, k):
    core = torch.zeros(16, dtype=torch.bool)
    core[[3, 15]] = True
    pi = inclusion_probability(P, k, core)
    times = 150 if name == "pivotal" else 500
    drawn = torch.stack([RULES[name](pi, seed, seed % 7) for seed in range(times)])
    assert largest_z(drawn, pi) < 5
    if name != "poisson":
        assert bool((drawn.sum(1) == k).all())


def test_pairs_of_the_tournament_follow_its_law():
    pi = torch.tensor([ONE // 4, ONE // 2, ONE // 8, ONE // 8])  # first pair: sum 3/4; second: 1/4; final: sum 1
    drawn = pivotal(pi.repeat(REPEATS), 0).view(REPEATS, 4)
    share = drawn.double().mean(0)
    assert torch.allclose(share, pi.double() / ONE, atol=0.02)
    pi = torch.tensor([ONE // 2, ONE // 2])  # one of the two, never both
    assert bool((pivotal(pi.repeat(REPEATS), 0).view(REPEATS, 2).sum(1) == 1).all())
    pi = torch.tensor([3 * ONE // 4, 3 * ONE // 4, ONE // 4, ONE // 4])  # one of the first two is in for sure
    drawn = pivotal(pi.repeat(REPEATS), 0).view(REPEATS, 4)
    assert int(drawn[:, :2].sum(1).min()) == 1


def test_copies_with_sure_and_impossible_edges():
    pi = inclusion_probability(torch.tensor([9.0, 0, 1, 1, 2, 0, 1, 2, 3]), 4)
    assert ONE in pi.tolist()
    assert 0 in pi.tolist()
    for draw in (pivotal, poisson):
        assert largest_z(draw(pi.repeat(REPEATS), 1, 2).view(REPEATS, 9), pi) < 5


@pytest.mark.parametrize("draw", [*RULES.values(), lambda pi, *names: replacement(pi, 300, *names)])
def test_draws_follow_from_seed_and_epoch(draw):
    pi = inclusion_probability(torch.rand(500, generator=torch.Generator().manual_seed(0)), 200)
    first = draw(pi, 1, 0)
    torch.rand(3)
    assert torch.equal(draw(pi, 1, 0), first)
    others = [draw(pi, 1, 1), draw(pi, 2, 0)]
    assert not torch.equal(others[0], first)
    assert not torch.equal(others[1], first)
    assert not torch.equal(others[0], others[1])


@pytest.mark.parametrize("draw", [*RULES.values(), lambda pi, *names: replacement(pi, 0, *names)])
@pytest.mark.parametrize("m", [0, 1, 7])
def test_nothing_and_everything(draw, m):
    p = torch.arange(1.0, m + 1)
    none = inclusion_probability(p, 0)
    assert int(draw(none, 0, 0).sum()) == 0
    assert draw(none, 0, 0).shape == (m,)
    core = torch.ones(m, dtype=torch.bool)
    for pi in (inclusion_probability(p, m), inclusion_probability(p, m, core), inclusion_probability(p * 0, m)):
        assert pi.tolist() == [ONE] * m
        assert int(draw(pi, 0, 0).sum()) in (m, 0 if draw(none, 0, 0).dtype == torch.int64 else m)


def test_counts_with_replacement_are_multinomial():
    p, draws, times = P.clone(), 30, 500
    p[4] = 0
    share = p / p.sum()
    counts = torch.stack([replacement(p, draws, 7, epoch) for epoch in range(times)]).double()
    assert bool((counts.sum(1) == draws).all())
    assert float(counts[:, 4].sum()) == 0
    mean, covariance = draws * share, draws * (share.diag() - share.outer(share))
    assert torch.allclose(expected_count(p, draws), mean, rtol=1e-9)
    z = (counts.mean(0) - mean) / (covariance.diag() / times).sqrt().clamp(min=1e-9)
    assert float(z.abs().max()) < 5
    found = counts.t().cov()
    # Standard error of a sample covariance, from the data themselves.
    centred = counts - mean
    products = centred.unsqueeze(2) * centred.unsqueeze(1)
    error = products.std(0) / times**0.5
    assert float(((found - covariance).abs() / error.clamp(min=1e-3)).max()) < 5


def test_many_draws_with_replacement_equal_those_by_sorted_uniforms_in_law():
    p = torch.rand(1 << 17, generator=torch.Generator().manual_seed(0), dtype=torch.float64).pow(-0.5)
    draws = draws_for(p, 1 << 16)
    missed = (1 - p / p.sum()) ** draws
    assert abs(float((1 - missed).sum()) - (1 << 16)) < 1
    count = replacement(p, draws, 0)
    assert int(count.sum()) == draws
    # The number of different edges; its variance is below that of independent ones.
    assert abs(int((count > 0).sum()) - (1 << 16)) < 5 * float((missed * (1 - missed)).sum().sqrt())
    heavy = p.argsort()[-2000:]
    expected = expected_count(p, draws)[heavy]
    assert float(((count[heavy] - expected) ** 2 / expected).mean()) == pytest.approx(1, abs=5 * (2 / 2000) ** 0.5)


@settings(max_examples=30)
@given(st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=30), st.floats(0.01, 0.99))
def test_number_of_draws_reaches_the_wanted_number_on_average(values, share):
    p = torch.tensor(values, dtype=torch.float64)
    k = int(share * len(values))
    draws = draws_for(p, k)

    def reached(times):
        return float((1 - (1 - p / p.sum()) ** times).sum())

    assert reached(draws - 0.51) <= k <= reached(draws + 0.51)


def test_no_number_of_draws_reaches_all():
    with pytest.raises(ValueError, match="below the 2 edges with p > 0"):
        draws_for(torch.tensor([1.0, 0.0, 2.0]), 2)


def test_golden_draws():
    """Draws are part of published figures: they must not change between releases."""
    pi = inclusion_probability(torch.arange(1, 13), 6)
    found = {name: draw(pi, 11, 4).nonzero().squeeze(1).tolist() for name, draw in RULES.items()}
    found["replacement"] = replacement(torch.arange(1, 13), 6, 11, 4).tolist()
    assert found == {
        "pivotal": [4, 6, 8, 9, 10, 11],
        "systematic": [3, 5, 7, 9, 10, 11],
        "poisson": [4, 5, 7, 9, 10, 11],
        "replacement": [0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 2, 2],
    }


@pytest.mark.cuda
def test_same_draws_on_a_device(device):
    p = torch.rand(100_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64).pow(3)
    pi = inclusion_probability(p, 40_000)
    assert torch.equal(inclusion_probability(p.to(device), 40_000).cpu(), pi)
    for draw in RULES.values():
        assert torch.equal(draw(pi.to(device), 1, 2).cpu(), draw(pi, 1, 2))
    assert torch.equal(replacement(p.to(device), 50_000, 1, 2).cpu(), replacement(p, 50_000, 1, 2))
    assert draws_for(p.to(device), 40_000) == draws_for(p, 40_000)
