import math
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphsparse.metrics import recall_at_ratio

LEVELS = st.integers(-3, 3)


def slow_recall(pos, neg, size, require_positive_logit):
    """One list of all candidates, sorted with non-links before links of the same score."""
    ranked = [(score, False) for score in neg] + [(s, True) for s in pos if s > 0 or not require_positive_logit]
    ranked.sort(key=lambda entry: (-entry[0], entry[1]))
    return sum(link for _, link in ranked[:size]) / len(pos)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(LEVELS, min_size=1, max_size=20),
    st.lists(LEVELS, max_size=20),
    st.sampled_from([(0.8, 4, 5), (1.0, 1, 1), (1.25, 5, 4), (3.0, 3, 1), (0.29, 29, 100)]),
    st.booleans(),
)
def test_equals_a_sorted_list(pos, neg, ratio, cut):
    ratio, above, below = ratio
    size = len(pos) * above // below
    ours = recall_at_ratio(torch.tensor(pos).float(), torch.tensor(neg).float(), ratio, require_positive_logit=cut)
    assert ours == slow_recall(pos, neg, size, cut)


@settings(max_examples=60, deadline=None)
@given(st.lists(LEVELS, min_size=1, max_size=20), st.lists(LEVELS, min_size=1, max_size=20), st.integers(0, 9))
def test_random_ties_lie_between_and_do_not_see_the_order(pos, neg, seed):
    pos, neg = torch.tensor(pos), torch.tensor(neg)
    drawn = recall_at_ratio(pos, neg, 1.0, ties="random", seed=seed)
    # Optimistic: links are raised by less than a level.
    assert recall_at_ratio(pos, neg, 1.0) <= drawn <= recall_at_ratio(4 * pos + 1, 4 * neg, 1.0)
    turned = recall_at_ratio(pos.flip(0), neg.flip(0), 1.0, ties="random", seed=seed)
    assert turned == drawn == recall_at_ratio(pos, neg, 1.0, ties="random", seed=seed)


def test_random_ties_are_drawn_evenly():
    """All scores equal: of the 30 taken, a quarter are links in the mean."""
    pos, neg = torch.zeros(30), torch.zeros(90)
    found = [recall_at_ratio(pos, neg, 1.0, ties="random", seed=seed) for seed in range(400)]
    # Standard error of the mean of 400 draws: 0.0034.
    assert statistics.mean(found) == pytest.approx(0.25, abs=0.015)
    assert len(set(found)) > 5
    assert recall_at_ratio(pos, neg, 1.0) == 0


def test_random_scores():
    generator = torch.Generator().manual_seed(0)
    pos, neg = torch.rand(20_000, generator=generator), torch.rand(60_000, generator=generator)
    for ratio in (0.8, 1.0, 1.25):
        assert recall_at_ratio(pos, neg, ratio) == pytest.approx(ratio / 4, abs=0.015)


def test_hand_values():
    pos, neg = torch.tensor([3.0, 2.0, 0.5, -1.0]), torch.tensor([2.0, 1.0, 0.0, -2.0])
    assert recall_at_ratio(pos, neg, 1.0) == 2 / 4  # 3, 2, 2, 1
    assert recall_at_ratio(pos, neg, 0.5) == 1 / 4  # 3, and the non-link with 2
    assert recall_at_ratio(pos, neg, 1.75) == 4 / 4  # all but -2
    assert recall_at_ratio(pos, neg, 1.75, require_positive_logit=True) == 3 / 4  # -1 is not in the ranking
    assert recall_at_ratio(pos, neg, 0) == 3 / 4
    assert recall_at_ratio(pos, neg, 0.2) == 0
    assert recall_at_ratio(pos, neg, 6) == 3 / 4  # a number: 3, 2, 2, 1, 0.5, 0
    assert recall_at_ratio(pos, neg, 7.9) == 4 / 4
    assert recall_at_ratio(pos, neg, 5.0) == recall_at_ratio(pos, neg, 1000) == 1


def test_negatives_that_are_positives_give_half_the_ratio():
    """The defect of the released splits: both classes come from one distribution."""
    score = torch.rand(40_000, generator=torch.Generator().manual_seed(1))
    assert recall_at_ratio(score[:20_000], score[20_000:], 1.25) == pytest.approx(0.625, abs=0.01)


@pytest.mark.parametrize("ratio", [-1, math.nan, math.inf])
def test_bad_ratio(ratio):
    with pytest.raises(ValueError, match="'ratio' must be finite and not negative"):
        recall_at_ratio(torch.ones(2), torch.ones(2), ratio)


def test_bad_input():
    with pytest.raises(TypeError, match="'ratio' must be a number"):
        recall_at_ratio(torch.ones(2), torch.ones(2), "1.25")
    with pytest.raises(ValueError, match="'ties' must be one of"):
        recall_at_ratio(torch.ones(2), torch.ones(2), ties="optimistic")
    with pytest.raises(ValueError, match="'seed' must be between 0 and"):
        recall_at_ratio(torch.ones(2), torch.ones(2), ties="random", seed=-1)
    with pytest.raises(ValueError, match="'pos' must not hold NaN"):
        recall_at_ratio(torch.tensor([math.nan]), torch.ones(2))
