import argparse
import dataclasses
import enum
import functools
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ingredient_runs import Net, NotedBatches
from torch import nn
from torch_geometric.nn import GAT, GCN, GCNConv, Sequential

from graphsparse.soups.store.key import describe, describe_model, differences, ingredient_key
from graphsparse.testing import random_graph

pytestmark = pytest.mark.once


@dataclasses.dataclass
class Config:
    alpha: object
    steps: list


class Kind(enum.Enum):
    FIRST = 1
    SECOND = 2


class Own(nn.Module):
    def __init__(self, **attributes):
        super().__init__()
        self.inner = nn.Linear(2, 2)
        vars(self).update(attributes)


class Bound:
    def __init__(self, text):
        self.text = text

    def __repr__(self):
        return self.text

    def make(self, data, seed=0):
        return [data]


def changed(first, second):
    return differences(describe_model(first), describe_model(second), most=100)


def gat(**options):
    return GAT(8, 16, 2, 3, **{"heads": 2, "dropout": 0.5, **options})


@pytest.mark.parametrize(
    "other",
    [
        lambda: gat(dropout=0.4),
        lambda: gat(heads=4),
        lambda: gat(add_self_loops=False),
        lambda: gat(act="elu"),
        lambda: gat(act=torch.tanh),
        lambda: gat(v2=True),
        lambda: gat().double(),
        lambda: gat().requires_grad_(False),
        lambda: GAT(8, 16, 3, 3, heads=2, dropout=0.5),
    ],
)
def test_what_changes_the_result_changes_the_description_of_a_model(other):
    assert changed(gat(), gat()) == ""
    assert changed(gat(), other())


def test_own_layers_are_told_apart_by_attributes_buffers_and_tied_weights():
    assert "'_rate': 0.5" in changed(Own(_rate=0.5), Own(_rate=0.6))
    assert changed(Own(cfg=Config(1, [2])), Own(cfg=Config(1, [3])))
    assert changed(Own(other=[nn.Linear(2, 2)]), Own(other=[nn.Linear(2, 2)]))  # weights of its own
    first, second = Own(), Own()
    first.register_buffer("scale", torch.ones(2), persistent=False)
    second.register_buffer("scale", torch.zeros(2), persistent=False)
    assert "buffer 'scale'" in changed(first, second)
    tied, free = (nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)) for _ in range(2))
    tied[1].weight = tied[0].weight
    assert changed(tied, free)
    assert changed(Own(), Own().train(False)) == ""


def test_a_sequential_is_told_apart_by_how_its_layers_are_joined():
    def make(wiring):
        return Sequential("x, edge_index", [(GCNConv(8, 8), wiring), (GCNConv(8, 8), wiring)])

    assert changed(make("x, edge_index -> x"), make("x, edge_index -> x")) == ""
    assert changed(make("x, edge_index -> x"), make("x, edge_index -> y"))


def test_functions_hooked_into_a_model_are_part_of_it():
    hooked = nn.Linear(2, 2)
    hooked.register_forward_hook(len)
    assert "builtins.len" in changed(nn.Linear(2, 2), hooked)
    hooked.register_forward_hook(lambda layer, given, found: found * 2)
    with pytest.raises(TypeError, match="_forward_hooks.*lambda.*give 'tag'"):
        describe_model(hooked)
    assert describe_model(hooked, tag="twice")


@pytest.mark.parametrize(
    "model",
    [nn.LSTM(2, 3), nn.MultiheadAttention(4, 2), nn.TransformerEncoderLayer(4, 2)],
)
def test_layers_of_torch_can_be_described(model):
    assert "0x" not in str(describe_model(model))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (np.int64(2), np.int64(6)),
        (np.longdouble(0.5), np.longdouble(0.25)),
        (np.datetime64("2020"), np.datetime64("2021")),
        (np.array([1, 2]), np.array([2, 1])),
        (np.zeros(4), np.zeros((2, 2))),
        (torch.zeros(3), torch.ones(3)),
        (torch.full((10**4,), 1.0), torch.full((10**4,), 1.0 + 1e-7)),
        (Config(0.1, [1]), Config(0.1, [2])),
        (Config(torch.tensor(0.1), []), Config(torch.tensor(0.1 + 1e-7), [])),
        (SimpleNamespace(alpha=0.1), SimpleNamespace(alpha=0.2)),
        (argparse.Namespace(alpha=0.1), argparse.Namespace(alpha=0.2)),
        (Kind.FIRST, Kind.SECOND),
        (slice(1), slice(2)),
        (range(3), range(4)),
        (b"a", b"b"),
        (Path("a"), Path("b")),
        ([[[1]]], [[[2]]]),
        ({(1, 2): 0}, {(1, 3): 0}),
        ({1, 2}, {1, 3}),
        (torch.float32, torch.float64),
        (random_graph(), random_graph(seed=1)),
        (len, max),
        (nn.ReLU, nn.ELU),
        (torch.relu, torch.tanh),
        (functools.partial(torch.add, alpha=1), functools.partial(torch.add, alpha=2)),
        (Bound("a").make, Bound("b").make),
        (Bound("a"), Bound("b")),
        ("a".join, "b".join),
        (NotedBatches, Net),
        (nn.Dropout(0.1), nn.Dropout(0.2)),
        ("lambda", "<locals>"),
    ],
)
def test_values_are_told_apart_by_their_content(first, second):
    assert describe(first, "name") == describe(first, "name") != describe(second, "name")
    assert describe({"a": [first]}, "name") != describe({"a": [second]}, "name")
    assert "0x" not in describe(first, "name")


def test_numbers_of_numpy_and_orders_that_mean_nothing_make_no_difference():
    assert describe([np.int64(2), np.float64(0.5), np.bool_(True)], "name") == describe((2, 0.5, True), "name")
    assert describe({"a": 1, "b": {2, 1}}, "name") == describe({"b": {1, 2}, "a": 1}, "name")
    assert describe([1, 2], "name") != describe([2, 1], "name")


def local(data, seed=0):
    def inner():
        return data

    return inner


class Rounded:
    def __repr__(self):
        return f"Rounded({torch.ones(3)})"


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (object(), "<object object at 0x"),
        ([object()], "<object object at 0x"),
        (Config(0.1, [object()]), "<object object at 0x"),
        (lambda data, seed: [data], "<lambda>"),
        ({"a": functools.partial(lambda: 3)}, "<lambda>"),
        (local(1), "local.<locals>.inner"),
        (type("Inner", (), {"__qualname__": "make.<locals>.Inner"}), "<locals>"),
        (type("Inner", (), {"__qualname__": "make.<locals>.Inner"})(), "<locals>"),
        (NotedBatches.__init__.__get__(object()), "<object object at 0x"),
        (torch.Generator(), "<torch._C.Generator object at 0x"),
        (threading.Lock(), "lock object at 0x"),
        (Rounded(), "Rounded\\(tensor\\("),
        (np.array([object()]), "<object object at 0x"),
    ],
)
def test_what_has_neither_a_name_nor_a_text_needs_a_tag(value, told):
    with pytest.raises(TypeError, match=f"^option must be told from others by its name or its text, .*{told}"):
        describe(value, "option")
    text = describe(value, "option", tag="first")
    assert text == describe(value, "option", tag="second")  # the tag itself is a part of the key
    assert "0x" not in text


def test_an_attribute_without_a_text_is_refused_by_its_name():
    with pytest.raises(TypeError, match="^'file' of layer '0' of the model must be told from others"):
        describe_model(nn.Sequential(Own(file=threading.Lock())))
    with pytest.raises(TypeError, match="^'act' of layer '' of the model must .*lambda"):
        describe_model(GCN(8, 16, 2, 3, act=lambda x: x))


def test_key_follows_from_content_alone():
    assert ingredient_key({"a": 1, "b": 2.0}) == ingredient_key({"b": 2.0, "a": 1})
    assert ingredient_key({"a": 1}) != ingredient_key({"a": 1.5}) != ingredient_key({"b": 1.5})
    assert len(ingredient_key({})) == 20


def test_differences_are_named():
    told = differences({"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 0, "d": 4}, most=2)
    assert told == "b was 2 and is now 0; c was 3 and is now missing; and 1 more"
    assert differences({"a": None}, {}) != ""
