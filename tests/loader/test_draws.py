from itertools import combinations

import pytest
import torch

from graphsparse.loader.draws import (
    cumulative,
    distinct_below,
    from_cumulative,
    new_generator,
    start_of_order,
    uniform,
    with_replacement,
    without_replacement,
)

DRAWS = 20_000


def assert_frequencies(found, probability):
    """Every count is within 5 standard deviations of what is expected: less than one failure in 10^5 by chance."""
    assert found.sum() == DRAWS
    error = (found - DRAWS * probability).abs()
    assert (error <= 5 * (DRAWS * probability * (1 - probability)).sqrt()).all(), (found, DRAWS * probability)


def test_the_stream_is_not_that_of_weights_with_the_same_seed():
    weights = torch.rand(4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert not torch.isclose(uniform(4, generator=new_generator(0)), weights).any()
    assert not torch.isclose(uniform(4, generator=new_generator(1)), uniform(4, generator=new_generator(0))).any()


def test_with_replacement_is_in_proportion_and_never_draws_what_weighs_nothing():
    weight = torch.tensor([0.0, 1.0, 0.0, 5.0, 4.0, 0.0])
    found = with_replacement(weight, DRAWS, new_generator(0)).bincount(minlength=6)
    assert_frequencies(found, weight.double() / 10)


def test_cumulative_weights():
    total = cumulative(torch.tensor([0.1, 0.7, 0.1, 0.0]))
    assert total[2] == total[3] == 1
    assert torch.equal(
        from_cumulative(total, 9, new_generator(3)),
        with_replacement(torch.tensor([0.1, 0.7, 0.1, 0.0]), 9, new_generator(3)),
    )
    for nothing in (torch.zeros(3), torch.zeros(0)):
        assert with_replacement(nothing, 5, new_generator(0)).numel() == 0


def test_without_replacement_takes_in_proportion_to_what_is_left():
    weight = torch.tensor([1.0, 2.0, 5.0])
    generator = new_generator(0)
    found = torch.zeros(3)
    pairs = list(combinations(range(3), 2))
    for _ in range(DRAWS):
        found[pairs.index(tuple(without_replacement(weight, 2, generator).tolist()))] += 1
    share = weight.double() / 8
    expected = [share[i] * share[j] / (1 - share[i]) + share[j] * share[i] / (1 - share[j]) for i, j in pairs]
    assert_frequencies(found, torch.stack(expected))


@pytest.mark.parametrize(("limit", "num"), [(5, 2), (5, 3), (4, 4), (6, 1)])
def test_every_set_is_as_likely(limit, num):
    drawn = distinct_below(torch.full((DRAWS,), limit), num, new_generator(0)).sort(1).values
    sets = list(combinations(range(limit), num))
    found = torch.stack([(drawn == torch.tensor(chosen)).all(1).sum() for chosen in sets])
    assert_frequencies(found, torch.full((len(sets),), 1 / len(sets), dtype=torch.float64))


def test_limits_may_differ():
    limit = torch.randint(3, 2**40, (500,), generator=new_generator(0))
    drawn = distinct_below(limit, 3, new_generator(1))
    assert (drawn >= 0).all()
    assert (drawn < limit[:, None]).all()
    assert all(len(set(row)) == 3 for row in drawn.tolist())
    assert distinct_below(torch.empty(0, dtype=torch.int64), 3, new_generator(0)).shape == (0, 3)


def test_every_start_of_an_order_is_as_likely():
    generator = new_generator(0)
    found = torch.zeros(9, 9)
    for _ in range(DRAWS):
        first, second = start_of_order(9, 2, generator).tolist()
        found[first, second] += 1
    assert not found.diagonal().any()
    assert_frequencies(found[~torch.eye(9, dtype=torch.bool)], torch.full((72,), 1 / 72, dtype=torch.float64))


@pytest.mark.parametrize(("total", "num"), [(0, 0), (1, 1), (7, 0), (7, 7), (100, 30), (100, 25), (10**15, 1000)])
def test_starts_of_orders_are_distinct_and_follow_from_the_generator(total, num):
    found = start_of_order(total, num, new_generator(3))
    assert found.shape == (num,) == found.unique().shape
    assert num == 0 or (found.min() >= 0 and found.max() < total)
    assert torch.equal(found, start_of_order(total, num, new_generator(3)))
