import math
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from graphsparse.ops.ratios import kept_counts

SHAPES = st.lists(st.lists(st.integers(0, 6), max_size=3).map(tuple), min_size=1, max_size=6)


def one_by_one(sizes, weights, total):
    """Give what is kept away one after another, to the tensor with the largest claim."""
    kept = [0] * len(sizes)
    for _ in range(total):
        able = [i for i, size in enumerate(sizes) if kept[i] < size]
        kept[max(able, key=lambda i: (Fraction(weights[i], 2 * kept[i] + 1), -i))] += 1
    return kept


@settings(max_examples=100, deadline=None)
@given(shapes=SHAPES, part=st.integers(0, 63))
def test_counts_are_exact(shapes, part):
    sizes = [math.prod(shape) for shape in shapes]
    total = sum(sizes) - part * sum(sizes) // 64  # a sparsity without rounding error
    for ratio, weights in (("uniform", sizes), ("erk", [max(sum(shape), 1) for shape in shapes])):
        kept = kept_counts(shapes, part / 64, ratio)
        assert sum(kept) == total
        assert kept == one_by_one(sizes, weights, total)
        more = kept_counts(shapes, max(part - 1, 0) / 64, ratio)
        assert all(count <= other for count, other in zip(kept, more, strict=True))


def test_one_tensor_has_one_density():
    assert kept_counts([(30, 20)], 0.98, "erk") == kept_counts([(30, 20)], 0.98, "uniform") == [12]


def test_equal_tensors_share_what_is_left_over_from_the_first_on():
    assert kept_counts([(4, 5)] * 3, 0.5 + 1e-9, "erk") == [10, 10, 10]
    assert kept_counts([(4, 5)] * 3, 0.48, "erk") == [11, 11, 10]  # 60 - floor(28.8)
