import pytest

from graphsparse.soups.sparse.knobs import Knobs, turn

BASE = Knobs(100, 0.01, 5e-4)


@pytest.mark.parametrize(
    ("knob", "expected"),
    [
        ("seed", [0, 1, 2]),
        ("epochs", [50, 100, 150]),
        ("lr", [0.005, 0.01, 0.02]),
        ("weight_decay", [2.5e-4, 5e-4, 1e-3]),
    ],
)
def test_one_knob_is_turned(knob, expected):
    found = turn(BASE, knob, 3)
    assert [getattr(copy, knob) for copy in found] == pytest.approx(expected)
    for other in {"seed", "epochs", "lr", "weight_decay"} - {knob}:
        assert {getattr(copy, other) for copy in found} == {getattr(BASE, other)}


def test_one_copy_has_what_was_given():
    for knob in ("epochs", "lr", "weight_decay", "seed"):
        assert turn(BASE, knob, 1) == [BASE]


def test_own_values():
    assert [copy.seed for copy in turn(BASE, "seed", 2, (7, 3))] == [7, 3]
    assert [copy.weight_decay for copy in turn(BASE, "weight_decay", 2, [0, 0.1])] == [0, 0.1]


def test_never_no_epoch():
    assert [copy.epochs for copy in turn(Knobs(1, 0.01, 0.0), "epochs", 3)] == [1, 1, 2]


@pytest.mark.parametrize(
    ("knob", "values", "message"),
    [
        ("dropout", None, "'knob' must be one of"),
        ("seed", [1], "one value for each of 2 copies"),
        ("seed", [1, -1], "'seed' must be between"),
        ("epochs", [1, 0], "at least 1"),
        ("lr", [0.1, 0.0], "positive"),
        ("lr", [0.1, float("nan")], "finite"),
        ("weight_decay", [0.1, -0.1], "not negative"),
        ("weight_decay", [0.1, float("inf")], "finite"),
    ],
)
def test_bad_values(knob, values, message):
    with pytest.raises(ValueError, match=message):
        turn(BASE, knob, 2, values)


@pytest.mark.parametrize(("knob", "value"), [("seed", 0.5), ("epochs", 2.5), ("epochs", True), ("lr", "0.1")])
def test_bad_types(knob, value):
    with pytest.raises(TypeError, match=f"{knob}"):
        turn(BASE, knob, 2, [value, value])


def test_values_must_be_a_list():
    with pytest.raises(TypeError, match=r"'values' must be a list of numbers \(got 3 of type int\)"):
        turn(BASE, "seed", 2, 3)
