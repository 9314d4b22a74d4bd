import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from graphsparse.ops import num_removed, smallest_k_mask
from graphsparse.ops.select import kth_smallest

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8]


def slow_mask(score, k):
    """The definition: Python's sort is stable, so equal scores stay in the order of their index."""
    chosen = set(sorted(range(len(score)), key=lambda i: score[i])[:k])
    return [i in chosen for i in range(len(score))]


# Few distinct values, so that ties are the rule.
tied = hnp.arrays(np.float32, st.integers(0, 40), elements=st.sampled_from([-np.inf, -1.5, -0.0, 0.0, 2.0, np.inf]))


@given(tied, st.data())
def test_equals_stable_sort(score, data):
    k = data.draw(st.integers(0, len(score)))
    assert smallest_k_mask(torch.from_numpy(score), k).tolist() == slow_mask(score.tolist(), k)


@given(hnp.arrays(np.float64, st.integers(1, 60), elements=st.floats(allow_nan=False)), st.data())
def test_masks_are_nested(score, data):
    small, large = sorted(data.draw(st.tuples(*[st.integers(0, len(score))] * 2)))
    first, second = (smallest_k_mask(torch.from_numpy(score), k) for k in (small, large))
    assert first.sum() == small
    assert not (first & ~second).any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype(dtype):
    score = torch.tensor([5, 3, 3, 9, 0, 3], dtype=dtype)
    before = score.clone()
    assert smallest_k_mask(score, 3).tolist() == [False, True, True, False, True, False]
    assert torch.equal(score, before)


def test_bool_scores():
    assert smallest_k_mask(torch.tensor([True, False, True]), 2).tolist() == [True, True, False]


def test_score_that_is_a_view_or_needs_gradients():
    base = torch.arange(10.0, requires_grad=True)
    assert smallest_k_mask(base[::2], 2).tolist() == [True, True, False, False, False]


@pytest.mark.parametrize("k", [1, 500_000, 999_999, 1_000_000])
def test_all_equal_at_size(k):
    mask = smallest_k_mask(torch.ones(1_000_000), k)
    assert mask[:k].all()
    assert not mask[k:].any()


def test_kth_smallest_agrees_with_torch():
    values = torch.randn(10_001, generator=torch.Generator().manual_seed(0))
    for k in (1, 17, 5_000, 10_001):
        assert kth_smallest(values, k) == values.kthvalue(k).values


@pytest.mark.cuda
def test_cuda_agrees_with_cpu(device):
    score = torch.randint(50, (100_000,)).float()
    assert torch.equal(smallest_k_mask(score.to(device), 33_333).cpu(), smallest_k_mask(score, 33_333))


BAD = {
    "a list": ([1.0], 0, TypeError, "'score' must be a real-valued tensor"),
    "complex": (torch.zeros(2, dtype=torch.complex64), 0, TypeError, "complex64"),
    "two dimensions": (torch.zeros(2, 2), 0, ValueError, r"got shape \[2, 2\]"),
    "NaN": (torch.tensor([0.0, torch.nan]), 1, ValueError, "NaN"),
    "k negative": (torch.zeros(2), -1, ValueError, "between 0 and .* 2"),
    "k too large": (torch.zeros(2), 3, ValueError, "got 3"),
    "k a float": (torch.zeros(2), 1.0, TypeError, "'k' must be an integer"),
    "k a bool": (torch.zeros(2), True, TypeError, "'k' must be an integer"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    score, k, error, message = BAD[case]
    with pytest.raises(error, match=message):
        smallest_k_mask(score, k)


def test_num_removed():
    assert [num_removed(s, 10) for s in (0.0, 0.09, 0.1, 0.55, 0.9999)] == [0, 0, 1, 5, 9]
    assert num_removed(0.5, 0) == 0
    with pytest.raises(ValueError, match="fraction removed"):
        num_removed(1.0, 10)
