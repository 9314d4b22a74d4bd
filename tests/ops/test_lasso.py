"""The lasso on Gram matrices, by its optimality conditions."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphsparse.ops.lasso import lasso, lasso_order


def gram_of(size, rank, seed):
    terms = torch.randn(rank, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return terms.t() @ terms


@settings(deadline=None, max_examples=30)
@given(size=st.integers(1, 12), rank=st.integers(1, 15), seed=st.integers(0, 99), share=st.floats(0.01, 0.9))
def test_no_small_step_is_better(size, rank, seed, share):
    gram = gram_of(size, rank, seed)
    penalty = share * 2 * float(gram.sum(1).abs().max())
    b = lasso(gram, penalty, sweeps=100_000)
    slope = 2 * gram @ (1 - b)  # of the distance, downwards
    scale = 1e-5 * float(gram.abs().max() * size)
    assert (slope.abs() <= penalty + scale).all()
    assert torch.allclose(slope[b != 0], penalty * b[b != 0].sign(), atol=scale)


def test_without_penalty_nothing_is_lost():
    gram = gram_of(5, 9, 0)
    assert torch.allclose(lasso(gram, 0.0), torch.ones(5, dtype=torch.float64), atol=1e-6)


def test_orthogonal_terms_come_by_their_length():
    size = torch.tensor([3.0, 0.0, 9.0, 1.0, 4.0])
    assert lasso_order(torch.diag(size)).tolist() == [2, 4, 0, 3, 1]


def test_a_copy_of_a_term_comes_last():
    """Of two equal terms one does the work of both, although their norms are the largest."""
    terms = torch.eye(4, dtype=torch.float64) * torch.tensor([3.0, 2.0, 1.5, 1.0], dtype=torch.float64)
    terms = torch.cat([terms[:, :1], terms], 1)
    assert sorted(lasso_order(terms.t() @ terms).tolist()[:2]) == [0, 4]


def test_start_does_not_change_the_solution():
    gram = gram_of(6, 9, 3)
    assert torch.allclose(lasso(gram, 2.0), lasso(gram, 2.0, torch.full((6,), 5.0)), atol=1e-7)


@pytest.mark.parametrize("size", [1, 3])
def test_nothing_but_zeros(size):
    assert lasso_order(torch.zeros(size, size)).tolist() == list(range(size))
