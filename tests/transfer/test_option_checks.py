import numpy as np
import pytest

from graphsparse.transfer.option_checks import check_count, check_share


def test_good_ones():
    assert [check_share(value, "a") for value in (0, 1, 0.5, np.float32(0.25))] == [0, 1, 0.5, 0.25]
    assert type(check_share(1, "a")) is float
    assert check_count(np.int64(3), "n", 3) == 3


@pytest.mark.parametrize("value", [-0.1, 1.01, float("nan"), float("inf")])
def test_no_share(value):
    with pytest.raises(ValueError, match=r"'a' must be in \[0, 1\]"):
        check_share(value, "a")


@pytest.mark.parametrize("value", [True, "1", None, 1j])
def test_no_number(value):
    with pytest.raises(TypeError, match="'a' must be a number .* of type"):
        check_share(value, "a")
    with pytest.raises(TypeError, match="'n' must be an integer .* of type"):
        check_count(value, "n")


def test_too_small():
    with pytest.raises(ValueError, match="'n' must be at least 2 .got 1"):
        check_count(1, "n", 2)
    with pytest.raises(TypeError, match="'n' must be an integer .got 2.0"):
        check_count(2.0, "n")
