import sys

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from graphsparse.metrics import mean_average_distance
from graphsparse.ops.blocks import blocks


def pairwise(x):
    """The definition, pair by pair: a distance counts if the directions differ, which integers tell exactly."""
    x = np.asarray(x, dtype=np.float64)
    num = len(x)
    norm = np.linalg.norm(x, axis=1)
    scale = np.where(norm == 0, 1, norm)
    distance = 1 - x @ x.T / np.outer(scale, scale)
    for i in range(num):
        for j in range(num):
            if i == j or (norm[i] and norm[j] and same_direction(x[i], x[j])):
                distance[i, j] = 0
    per_node = [row[row != 0].mean() for row in distance if (row != 0).any()]
    return float(np.mean(per_node)) if per_node else 0.0


def same_direction(a, b):
    # Integers below 2^20: the products are exact.
    return np.array_equal(a * (b @ b), b * (a @ b)) and a @ b > 0


def released_form(x):
    """The closed form for rows that are not zero and all point elsewhere."""
    unit = torch.nn.functional.normalize(x.double(), dim=1)
    num = len(x)
    return float((num**2 - unit.sum(0).square().sum()) / (num * (num - 1)))


small = arrays(np.int64, st.tuples(st.integers(1, 8), st.integers(1, 4)), elements=st.integers(-2, 2))


@settings(max_examples=150, deadline=None)
@given(small)
def test_equals_the_definition_with_duplicates_and_zeros(x):
    """Entries from -2 to 2 make equal, parallel, opposite and zero rows common."""
    got = mean_average_distance(torch.from_numpy(x).float())
    assert got == pytest.approx(pairwise(x), rel=1e-12, abs=1e-14)
    assert 0 <= got <= 2


@settings(max_examples=50, deadline=None)
@given(small, st.lists(st.sampled_from([0.001, 3.0, 7.0, 1e20]), min_size=8, max_size=8))
def test_lengths_do_not_matter(x, lengths):
    """Rows that are equal but for their length still count as one direction."""
    rows = torch.from_numpy(x).double()
    scaled = rows * torch.tensor(lengths[: len(x)], dtype=torch.float64).unsqueeze(1)
    assert mean_average_distance(scaled) == pytest.approx(mean_average_distance(rows), rel=1e-12, abs=1e-14)


def test_random_rows_with_copies_and_zeros():
    x = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
    x[:7], x[7:9] = x[7], 0
    assert mean_average_distance(x) == pytest.approx(pairwise_random(x), rel=1e-12)


def pairwise_random(x):
    """The definition for random rows, whose repetitions are exact copies."""
    unit = torch.nn.functional.normalize(x.double(), dim=1)
    distance = 1 - unit @ unit.t()
    distance[(x.unsqueeze(0) == x.unsqueeze(1)).all(2) & x.any(1)] = 0
    distance.fill_diagonal_(0)
    return float((distance.sum(1) / distance.count_nonzero(1)).mean())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_the_short_form_where_directions_differ(dtype):
    x = torch.randn(500, 16, generator=torch.Generator().manual_seed(1), dtype=dtype) + 0.5
    assert mean_average_distance(x) == pytest.approx(released_form(x), rel=1e-12)
    x[3] = x[4]  # and the short form differs from the definition as soon as two are equal
    assert mean_average_distance(x) != pytest.approx(released_form(x), rel=1e-7)
    assert mean_average_distance(x) == pytest.approx(pairwise_random(x), rel=1e-12)


def test_hand_values():
    right, up, left = [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]
    assert mean_average_distance(torch.tensor([right, left])) == 2
    assert mean_average_distance(torch.tensor([right, right, right])) == 0
    assert mean_average_distance(torch.tensor([right])) == 0
    # Each sees the other cluster only: with the zeros counted it would be 2/3.
    assert mean_average_distance(torch.tensor([right, right, up, up])) == pytest.approx(1, rel=1e-12)
    # 'right' sees 1 and 2, 'up' sees 1 and 1, 'left' sees 2 and 1.
    assert mean_average_distance(torch.tensor([right, up, left])) == pytest.approx(4 / 3, rel=1e-12)


def test_rows_of_zeros_are_far_from_everything():
    zero = torch.zeros(3, 4)
    assert mean_average_distance(zero) == 1
    zero[0] = -0.0
    assert mean_average_distance(zero) == 1
    assert mean_average_distance(torch.tensor([[0.0, 0.0], [3.0, 4.0], [3.0, 4.0]])) == 1


def test_negative_zero_is_zero():
    assert mean_average_distance(torch.tensor([[1.0, 0.0], [1.0, -0.0], [0.0, 1.0]])) == 1


@pytest.mark.parametrize("angle", [1e-2, 1e-4, 1e-6])
def test_nearly_parallel_rows_keep_their_digits(angle):
    """The difference of two large numbers would leave nothing of a distance of 1e-12."""
    turn = torch.arange(3, dtype=torch.float64) * angle
    x = torch.stack([turn.cos(), turn.sin()], dim=1)
    near, far = 2 * np.sin(angle / 2) ** 2, 2 * np.sin(angle) ** 2
    assert mean_average_distance(x) == pytest.approx((2 * (near + far) / 2 + near) / 3, rel=1e-9)


def test_directions_that_round_to_one_are_one():
    x = torch.tensor([[1.0, 0.3], [1.0, 0.3 + 1e-12], [0.0, 1.0]], dtype=torch.float64)
    expected = pairwise_random(x[[0, 0, 2]])
    assert mean_average_distance(x) == pytest.approx(expected, rel=1e-10)


def test_smoothing_brings_nodes_together():
    graph = nx.karate_club_graph()
    mean = torch.from_numpy(nx.to_numpy_array(graph, weight=None) + np.eye(34)).float()
    mean /= mean.sum(1, keepdim=True)
    x = torch.randn(34, 16, generator=torch.Generator().manual_seed(0))
    values = []
    for _ in range(6):
        values.append(mean_average_distance(x))
        x = mean @ x
    assert sorted(values, reverse=True) == values
    assert values[0] > 0.9


def test_blocks_do_not_matter(monkeypatch):
    x = torch.randn(101, 7, generator=torch.Generator().manual_seed(3))
    x[50:60] = x[20]
    whole = mean_average_distance(x)
    module = sys.modules[mean_average_distance.__module__]
    monkeypatch.setattr(module, "row_blocks", lambda rows, width: blocks(rows, 10))
    assert mean_average_distance(x) == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_measured_in_double(dtype):
    x = torch.randn(30, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert mean_average_distance(x) == mean_average_distance(x.double())


@pytest.mark.parametrize("scale", [1e-310, 1e300])
def test_extreme_lengths(scale):
    x = torch.tensor([[1.0, 1.0], [1.0, -1.0], [1.0, 2.0]], dtype=torch.float64)
    assert mean_average_distance(x * scale) == pytest.approx(mean_average_distance(x), rel=1e-9)


def test_needs_no_gradient():
    x = torch.randn(5, 3, requires_grad=True)
    assert isinstance(mean_average_distance(x), float)


@pytest.mark.parametrize(
    ("error", "match", "x"),
    [
        (TypeError, "'x' must be a dense floating point tensor .got torch.int64", torch.ones(3, 2).long()),
        (TypeError, "'x' must be a dense floating .*sparse_coo", torch.eye(3).to_sparse()),
        (TypeError, "'x' must be a dense floating point tensor .got list", [[1.0]]),
        (ValueError, r"'x' must be \[N, d\].*got \[3\]", torch.ones(3)),
        (ValueError, r"'x' must be \[N, d\].*got \[0, 3\]", torch.ones(0, 3)),
        (ValueError, r"'x' must be \[N, d\].*got \[3, 0\]", torch.ones(3, 0)),
        (ValueError, "'x' holds NaN or infinity", torch.tensor([[float("inf")]])),
    ],
)
def test_bad_input(error, match, x):
    with pytest.raises(error, match=match):
        mean_average_distance(x)
