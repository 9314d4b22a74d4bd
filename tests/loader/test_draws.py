from itertools import combinations

import pytest
import torch

from graphsparse.loader.in_graph import (
    cumulative,
    distinct_below,
    from_cumulative,
    new_generator,
    start_of_order,
    uniform,
)

DRAWS = 20_000


def assert_frequencies(found, probability, draws=DRAWS):
    """Every count is within 5 standard deviations of what is expected: less than one failure in 10^5 by chance."""
    assert found.sum() == draws
    error = (found - draws * probability).abs()
    assert (error <= 5 * (draws * probability * (1 - probability)).sqrt()).all(), (found, draws * probability)


def test_the_stream_is_not_that_of_weights_with_the_same_seed():
    weights = torch.rand(4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert not torch.isclose(uniform(4, generator=new_generator(0)), weights).any()
    assert not torch.isclose(uniform(4, generator=new_generator(1)), uniform(4, generator=new_generator(0))).any()


def test_draws_are_in_proportion_and_never_draws_what_weighs_nothing():
    weight = torch.tensor([0.0, 1.0, 0.0, 5.0, 4.0, 0.0])
    found = from_cumulative(cumulative(weight), DRAWS, new_generator(0)).bincount(minlength=6)
    assert_frequencies(found, weight.double() / 10)


def test_cumulative_weights():
    total = cumulative(torch.tensor([0.1, 0.7, 0.1, 0.0]))
    assert total[2] == total[3] == 1
    for nothing in (torch.zeros(3), torch.zeros(0)):
        assert from_cumulative(cumulative(nothing), 5, new_generator(0)).numel() == 0


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
    for _ in range(3000):
        first, second = start_of_order(9, 2, generator).tolist()
        found[first, second] += 1
    assert not found.diagonal().any()
    assert_frequencies(found[~torch.eye(9, dtype=torch.bool)], torch.full((72,), 1 / 72, dtype=torch.float64), 3000)


@pytest.mark.parametrize(("total", "num"), [(0, 0), (1, 1), (7, 0), (7, 7), (100, 30), (100, 25), (10**15, 1000)])
def test_starts_of_orders_are_distinct_and_follow_from_the_generator(total, num):
    found = start_of_order(total, num, new_generator(3))
    assert found.shape == (num,) == found.unique().shape
    assert num == 0 or (found.min() >= 0 and found.max() < total)
    assert torch.equal(found, start_of_order(total, num, new_generator(3)))
