import math
from collections import Counter

import pytest

from graphsparse.soups.workers.jitter import check_jitter, check_option, draw_jitter

GRID = {"lr": [0.1, 0.01, 0.001], "epochs": [10, 20], "dropout": [0.0, 0.5], "weight_decay": [0.0, 1e-3]}


def test_draws_from_the_lists_evenly():
    drawn = [draw_jitter(GRID, 0, index) for index in range(600)]
    for name, values in GRID.items():
        counts = Counter(entry[name] for entry in drawn)
        expected = 600 / len(values)
        assert all(abs(counts[value] - expected) < 4.5 * math.sqrt(expected) for value in values), name


def test_options_do_not_depend_on_each_other():
    for index in range(10):
        assert draw_jitter({"lr": GRID["lr"]}, 3, index)["lr"] == draw_jitter(GRID, 3, index)["lr"]
    pairs = Counter((entry["epochs"], entry["dropout"]) for entry in (draw_jitter(GRID, 0, i) for i in range(400)))
    assert all(abs(count - 100) < 45 for count in pairs.values())
    assert len(pairs) == 4


def test_no_jitter_draws_nothing():
    assert draw_jitter(None, 0, 0) == draw_jitter({}, 0, 0) == {}


@pytest.mark.parametrize(
    ("jitter", "error", "message"),
    [
        ([0.1], TypeError, "'jitter' must map names"),
        ({"momentum": [0.9]}, ValueError, "got 'momentum'"),
        ({"lr": 0.1}, TypeError, r"'jitter\['lr'\]' must be a list"),
        ({"lr": "0.1"}, TypeError, r"'jitter\['lr'\]' must be a list"),
        ({"lr": []}, ValueError, "at least one value"),
        ({"lr": [0.1, 0.0]}, ValueError, "positive"),
        ({"lr": [math.nan]}, ValueError, "positive"),
        ({"weight_decay": [-1]}, ValueError, "at least 0"),
        ({"epochs": [2.5]}, TypeError, "integer"),
        ({"epochs": [0]}, ValueError, "at least 1"),
        ({"dropout": [1.0]}, ValueError, r"in \[0, 1\)"),
        ({"dropout": ["a"]}, TypeError, "number"),
    ],
)
def test_refuses_what_no_training_runs_with(jitter, error, message):
    with pytest.raises(error, match=message):
        check_jitter(jitter)


def test_names_the_argument():
    with pytest.raises(ValueError, match="'lr' must be positive"):
        check_option("lr", -0.1)
