import itertools
import math
from collections import Counter

import numpy as np
import pytest
import torch

from graphsparse.soups.workers.recipe import STREAMS, check_jitter, draw_jitter, stream_seed

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
        ({"lr": [0.1, 0.0]}, ValueError, "above 0"),
        ({"lr": [math.nan]}, ValueError, "above 0"),
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


def test_streams_differ_and_repeat():
    places = list(itertools.product((0, 1), STREAMS, range(50), (0, 1)))
    seeds = [stream_seed(*place) for place in places]
    assert len(set(seeds)) == len(seeds)
    assert [stream_seed(*place) for place in places] == seeds


def test_seeds_are_those_that_numpy_spawns():
    children = np.random.SeedSequence(7).spawn(2)[1].spawn(4)[3].spawn(1)[0]
    assert stream_seed(7, "data", 3) == int(children.generate_state(1, np.uint64)[0]) >> 1


def test_seeds_do_for_every_generator():
    for index in range(20):
        seed = stream_seed(2**70, "dropout", index)
        assert 0 <= seed < 2**63
        torch.Generator().manual_seed(seed)
        np.random.default_rng(seed)
    assert stream_seed(np.int64(3), "data") == stream_seed(3, "data")
