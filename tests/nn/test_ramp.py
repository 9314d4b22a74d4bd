import pytest

from graphsparse.nn.ramp import ramp_factor


def test_linear_values():
    # The sparsity s t / (T / 2) up to half of the training, then s.
    assert [ramp_factor(t, 10) for t in range(11)] == [0.0, 0.2, 0.4, 0.6, 0.8, 1, 1, 1, 1, 1, 1]
    assert [ramp_factor(t, 5) for t in range(5)] == [0.0, 0.4, 0.8, 1.0, 1.0]
    assert ramp_factor(100, 400) == 0.5
    assert ramp_factor(99, 100, end=1.0) == 0.99


def test_cubic_values():
    assert [ramp_factor(t, 8, "cubic") for t in range(6)] == [0.0, 1 - 27 / 64, 1 - 8 / 64, 1 - 1 / 64, 1.0, 1.0]


@pytest.mark.parametrize("ramp", ["linear", "cubic"])
def test_grows_and_ends(ramp):
    values = [ramp_factor(t, 37, ramp, end=0.3) for t in range(60)]
    assert values == sorted(values)
    assert values[0] == 0
    assert values[12:] == [1.0] * 48
    assert values[11] < 1


def test_none_is_no_ramp():
    assert ramp_factor(0, 10, None) == 1
    assert ramp_factor(0, None) == 1


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0, 10, "square"), ValueError, "'ramp' must be one of .*'cubic'.* or None .*'square'"),
        ((-1, 10), ValueError, "'step' must be at least 0 .got -1."),
        ((1.5, 10), TypeError, "'step' must be an integer"),
        ((0, 0), ValueError, "'total_steps' must be at least 1 .got 0."),
        ((0, True), TypeError, "'total_steps' must be an integer"),
        ((0, 2.5), TypeError, "'total_steps' must be an integer"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        ramp_factor(*arguments)


@pytest.mark.parametrize(("end", "error"), [(0, ValueError), (1.5, ValueError), (float("nan"), ValueError)])
def test_bad_end(end, error):
    with pytest.raises(error, match="'end' must be in"):
        ramp_factor(0, 10, end=end)
    with pytest.raises(TypeError, match="'end' must be a number"):
        ramp_factor(0, 10, end="1")
