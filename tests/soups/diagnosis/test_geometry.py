import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from soup_helpers import CountedStates

from graphsparse.soups.diagnosis.geometry import angle, geometry


def vectors(count, size, scale, seed):
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(size, generator=generator, dtype=torch.float64)
    return base + scale * torch.randn(count, size, generator=generator, dtype=torch.float64)


def degrees(first, second):
    """Angle in extended precision: that of unit vectors by the lengths of their sum and difference."""
    first, second = first / first.norm(), second / second.norm()
    return 2 * math.atan2(float((first - second).norm()), float((first + second).norm())) * 180 / math.pi


@given(st.integers(1, 6), st.integers(1, 8), st.sampled_from([1.0, 1e-3, 1e-6]), st.integers(0, 10**6))
def test_distances_and_angles_are_those_of_the_vectors(count, size, scale, seed):
    rows = vectors(count, size, scale, seed)
    mean = rows.mean(dim=0)
    cut = size // 2
    states = [{"a": row[:cut], "b": row[cut:].view(1, -1), "buffer": torch.full((2,), float(seed))} for row in rows]
    found = geometry(states, ["a", "b"])
    # Squares are rounded to about 2^-52 of the largest, and a length is the root of one.
    rounding = math.sqrt(64 * 2**-52)
    far = float((rows - rows[0]).norm(dim=1).max())
    close = {"rtol": 1e-6, "atol": rounding * far}
    torch.testing.assert_close(found.distances, (rows - mean).norm(dim=1), **close)
    torch.testing.assert_close(found.pair_distances, (rows.unsqueeze(1) - rows).norm(dim=2), **close)
    long = float(rows.norm(dim=1).max())
    for i, row in enumerate(rows):
        for other, turned in [(mean, found.angles[i]), *zip(rows, found.pair_angles[i], strict=True)]:
            within = math.degrees(rounding) * long / min(float(row.norm()), float(other.norm()))
            assert float(turned) == pytest.approx(degrees(row, other), rel=1e-6, abs=within)


def test_equal_states_are_in_one_place():
    state = {"w": torch.randn(50, generator=torch.Generator().manual_seed(0))}
    found = geometry([state] * 4, ["w"])
    for values in (found.distances, found.angles, found.pair_distances, found.pair_angles):
        assert not values.any()


def test_half_precision_is_added_up_in_float64():
    state = {"w": torch.ones(3000, dtype=torch.float16)}
    found = geometry([state, {"w": 2 * state["w"]}], ["w"])
    assert float(found.pair_distances[0, 1]) == pytest.approx(math.sqrt(3000), rel=1e-12)
    assert float(found.pair_angles[0, 1]) == pytest.approx(0, abs=1e-6)


def test_no_more_than_three_states_at_once():
    states = [{"v": torch.full((40, 7), float(i)), "w": torch.full((29, 11), float(i))} for i in range(5)]
    with CountedStates(states) as counted:
        del states
        geometry(counted, ["v", "w"])
    assert counted.reads == 1 + 4 + 3 + 2 + 1
    assert counted.most <= 3


@given(st.floats(0.5, 2), st.floats(0.5, 2), st.floats(0, 179))
def test_angle_of_a_triangle(first, second, wanted):
    # The law of cosines, in the form that does not cancel.
    opposite = math.sqrt((first - second) ** 2 + 4 * first * second * math.sin(math.radians(wanted) / 2) ** 2)
    sides = torch.tensor([first, second, opposite], dtype=torch.float64)
    assert float(angle(*sides)) == pytest.approx(wanted, abs=1e-5)


def test_no_angle_to_nothing():
    assert angle(*torch.tensor([[0.0], [1.0], [1.0]])).isnan().all()
