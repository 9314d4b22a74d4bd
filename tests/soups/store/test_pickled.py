import copyreg
import functools
import random
import types
from dataclasses import dataclass

import numpy as np
import pytest
from torch_geometric.data import Data

from graphsparse.soups.store.pickled import held, own_attributes, reduced, split_state, vars_of


class Point:
    __slots__ = ("__dict__", "x")

    def __init__(self, x, **others):
        self.x = x
        vars(self).update(others)

    @functools.cached_property
    def double(self):
        return 2 * self.x


class Listed(list):
    pass


@dataclass
class Pair:
    first: int
    second: int = 2


def test_attributes_and_slots():
    assert own_attributes(Point(1, y=2)) == {"x": 1, "y": 2}
    assert vars_of(Point(1, y=2)) == {"y": 2}
    assert vars_of(3) == {}


def test_what_known_classes_are_made_of():
    assert held(np.array([1, None], dtype=object)) == [1, None]
    assert held(slice(1, 5, 2)) == [1, 5, 2]
    assert held(types.SimpleNamespace(a=1)) == {"a": 1}
    assert held(Pair(1)) == {"first": 1, "second": 2}
    assert held(Data(num_nodes=3)) == {"num_nodes": 3}
    assert held(Point(1)) is None
    assert held(Pair) is None


def test_state_is_split_into_attributes_and_the_rest():
    point = Point(1, y=2)
    assert point.double == 2  # a cache, of what the others say
    assert split_state(Point, reduced(point, "p")) == ({"x": 1, "y": 2}, [])
    listed = Listed([1, 2])
    listed.name = "a"
    assert split_state(Listed, reduced(listed, "l")) == ({"name": "a"}, [[1, 2]])
    attributes, others = split_state(random.Random, reduced(random.Random(0), "r"))
    assert attributes == {}
    assert others[-1] == random.Random(0).getstate()


def test_a_reducer_of_the_user_counts(monkeypatch):
    monkeypatch.setitem(copyreg.dispatch_table, Point, lambda point: (Point, (point.x,)))
    assert split_state(Point, reduced(Point(5), "p")) == ({}, [Point, 5])


def test_what_cannot_be_pickled_is_refused():
    with pytest.raises(TypeError, match="^here is a builtins.generator, whose content cannot be read"):
        reduced((i for i in range(3)), "here")
