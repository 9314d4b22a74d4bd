import functools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from descriptions import Config, Kind, changed, own_layer
from ingredient_runs import Net
from torch_geometric.nn import GAT

from graphsparse.soups.store.description import content_key, describe, describe_function, differences
from graphsparse.testing import random_graph

pytestmark = pytest.mark.once

HERE = Path(__file__).parents[2] / "helpers"


def test_equal_models_have_equal_descriptions_whatever_their_weights():
    assert changed(Net(), Net()) == ""


@pytest.mark.parametrize(
    "other",
    [
        lambda: GAT(8, 16, 2, 3, heads=2, dropout=0.4),
        lambda: GAT(8, 16, 2, 3, heads=4, dropout=0.5),
        lambda: GAT(8, 16, 2, 3, heads=2, dropout=0.5, add_self_loops=False),
        lambda: GAT(8, 16, 2, 3, heads=2, dropout=0.5, act="elu"),
        lambda: GAT(8, 16, 3, 3, heads=2, dropout=0.5),
        lambda: GAT(8, 16, 2, 3, heads=2, dropout=0.5, v2=True),
        lambda: GAT(8, 16, 2, 3, heads=2, dropout=0.5).double(),
        lambda: GAT(8, 16, 2, 3, heads=2, dropout=0.5).requires_grad_(False),
    ],
)
def test_whatever_changes_the_result_changes_the_description(other):
    assert changed(GAT(8, 16, 2, 3, heads=2, dropout=0.5), other())


def test_own_layers_are_told_apart_by_code_and_attributes():
    def forward(self, x):
        return x * 2

    def other(self, x):
        return x * 3

    def documented(self, x):
        """Doubles."""
        # and nothing else
        return x * 2

    assert "code of Own.forward" in changed(own_layer(forward), own_layer(other))
    assert changed(own_layer(forward), own_layer(documented)) == ""
    assert "_rate=0.5" in changed(own_layer(forward, _rate=0.5), own_layer(forward, _rate=0.6))
    first, second = own_layer(forward), own_layer(forward)
    first.register_buffer("scale", torch.ones(2), persistent=False)
    second.register_buffer("scale", torch.zeros(2), persistent=False)
    assert "buffer 'scale'" in changed(first, second)


def test_functions_are_told_apart_by_code_closure_and_defaults():
    def make(power):
        return lambda x: x**power

    assert describe_function(make(2)) == describe_function(make(2)) != describe_function(make(3))
    assert describe_function(lambda x=1: x) != describe_function(lambda x=2: x)
    assert describe_function(lambda: "a") != describe_function(lambda: "b")
    partial = [functools.partial(torch.add, alpha=alpha) for alpha in (1, 1, 2)]
    assert describe(partial[0]) == describe(partial[1]) != describe(partial[2])


def test_no_address_in_a_description():
    for value in (object(), [object()], lambda: object(), torch.nn.ReLU(), {"a": object}):
        assert "0x" not in describe(value)


def test_options_of_any_order_and_depth():
    assert describe({"a": 1, "b": {2, 1}}) == describe({"b": {1, 2}, "a": 1})
    assert describe(torch.zeros(3)) != describe(torch.ones(3))
    assert describe((1, 2)) == describe([1, 2]) != describe([2, 1])
    deep: list = []
    deep.append(deep)
    assert len(describe(deep)) < 100


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (np.int64(2), np.int64(6)),
        (np.float32(0.5), np.float32(0.25)),
        (np.longdouble(0.5), np.longdouble(0.25)),
        (np.datetime64("2020"), np.datetime64("2021")),
        (np.array([1, 2]), np.array([2, 1])),
        (np.array([1, "a"], dtype=object), np.array([1, "b"], dtype=object)),
        (np.zeros(4), np.zeros((2, 2))),
        (Config(0.1, [1]), Config(0.1, [2])),
        (SimpleNamespace(alpha=0.1), SimpleNamespace(alpha=0.2)),
        (Kind.FIRST, Kind.SECOND),
        (slice(1), slice(2)),
        (range(3), range(4)),
        (b"a", b"b"),
        (1j, 2j),
        (Path("a"), Path("b")),
        ([[[[[[1]]]]]], [[[[[[2]]]]]]),
        ({(1, 2): 0}, {(1, 3): 0}),
        (random_graph(), random_graph(seed=1)),
    ],
)
def test_values_are_told_apart_by_their_content(first, second):
    assert describe(first, "name") == describe(first, "name") != describe(second, "name")
    assert describe({"a": [first]}) != describe({"a": [second]})
    assert "0x" not in describe(first)


def test_numbers_of_numpy_are_numbers():
    assert describe([np.int64(2), np.float64(0.5), np.bool_(True)]) == describe([2, 0.5, True])


def test_a_named_option_must_be_told_apart():
    for wrong in (object(), [object()], {"a": Config(0.1, [object()])}):
        with pytest.raises(TypeError, match=r"'option' must be made of numbers.*\(got builtins.object\)"):
            describe(wrong, "option")


def test_a_function_that_calls_itself():
    def make(base):
        def count(n):
            return count(n - 1) if n else base

        return count

    assert describe(make(1)) == describe(make(1)) != describe(make(2))


def test_key_follows_from_content_alone():
    assert content_key({"a": 1, "b": 2.0}) == content_key({"b": 2.0, "a": 1})
    assert content_key({"a": 1}) != content_key({"a": 1.5}) != content_key({"b": 1.5})
    assert len(content_key({})) == 20


def test_differences_are_named():
    told = differences({"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 0, "d": 4}, most=2)
    assert told == "b was 2 and is now 0; c was 3 and is now missing; and 1 more"
    assert differences({"a": None}, {}) != ""
