import itertools

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphsparse.transfer.data.pair_space import PairSpace, _triangle_row

MARKS = st.lists(st.booleans(), min_size=0, max_size=9)


def decoded(space):
    pairs = space.decode(torch.arange(space.size))
    assert space.holds(pairs).all()
    return [tuple(pair) for pair in pairs.t().tolist()]


@settings(max_examples=60, deadline=None)
@given(MARKS)
def test_every_pair_with_a_marked_end_has_one_number(marks):
    found = decoded(PairSpace(torch.tensor(marks, dtype=torch.bool)))
    every = itertools.combinations(range(len(marks)), 2)
    assert sorted(found) == sorted((u, v) for u, v in every if marks[u] or marks[v])


@settings(max_examples=60, deadline=None)
@given(MARKS, MARKS)
def test_between_two_types(src, dst):
    found = decoded(PairSpace(torch.tensor(src, dtype=torch.bool), torch.tensor(dst, dtype=torch.bool)))
    every = itertools.product(range(len(src)), range(len(dst)))
    assert sorted(found) == sorted((u, v) for u, v in every if src[u] or dst[v])


def test_rows_of_a_large_triangle():
    # around the first number of a row, where a root that is rounded the wrong way would show
    high = torch.tensor([2, 3, 10**4, 2**24 + 1, 3 * 10**6, 10**8])
    first = high * (high - 1) // 2
    assert torch.equal(_triangle_row(first), high)
    assert torch.equal(_triangle_row(first - 1), high - 1)
    assert torch.equal(_triangle_row(first + high - 1), high)
