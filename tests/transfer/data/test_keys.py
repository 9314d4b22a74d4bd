import numpy as np
import pandas  # which OGB brings along
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Data

from graphsparse.transfer.data.keys import GRAPHS, join_keys, match_nodes, read_keys

KEYS = st.lists(st.integers(-(2**63), 2**63 - 1), unique=True, max_size=12)


def slow(target, sources):
    number = {key: i for i, key in enumerate(target)}
    return [[number.setdefault(key, len(number)) for key in keys] for keys in sources], number


@settings(max_examples=100, deadline=None)
@given(KEYS, st.lists(KEYS, max_size=3), st.booleans())
def test_equals_a_dictionary(target, sources, strings):
    if strings:
        ids, total = join_keys([str(key) for key in target], [[str(key) for key in keys] for keys in sources])
    else:
        tensors = [torch.tensor(keys, dtype=torch.int64) for keys in (target, *sources)]
        ids, total = join_keys(tensors[0], tensors[1:])
    expected, number = slow(target, sources)
    assert [numbers.tolist() for numbers in ids] == expected
    assert total == len(number)


class Colliding(str):
    """A string of which half of all have the same hash."""

    __slots__ = ()
    __eq__ = str.__eq__

    def __hash__(self):
        return len(self) % 2


@settings(max_examples=50, deadline=None)
@given(KEYS, st.lists(KEYS, max_size=3))
def test_strings_of_equal_hashes(target, sources):
    ids, total = join_keys([Colliding(key) for key in target], [[Colliding(key) for key in keys] for keys in sources])
    expected, number = slow(target, sources)
    assert [numbers.tolist() for numbers in ids] == expected
    assert total == len(number)


def test_integers_and_strings_do_not_mix():
    with pytest.raises(TypeError, match="integers in all graphs, or strings in all graphs"):
        join_keys(torch.tensor([1]), [["1"]])


@pytest.mark.parametrize(
    "keys",
    [
        torch.tensor([3, 1, 2], dtype=torch.int32),
        torch.tensor([[3], [1], [2]]),
        np.array([3, 1, 2], dtype=np.uint8),
        [3, 1, 2],
        [np.int64(3), 1, np.uint8(2)],
        (3, 1, 2),
        np.array([3, 1, 2], dtype=np.uint64),
        np.array([3, 1, 2], dtype=object),
        torch.tensor([3, 1, 2], dtype=torch.uint8),
        torch.tensor([3, 1, 2]).to(torch.uint64),
        pandas.Series([3, 1, 2]),
        pandas.Series([3, 1, 2], dtype="Int64"),
        pandas.Index([3, 1, 2]),
        pandas.Categorical([3, 1, 2]),
        pandas.DataFrame({"key": [3, 1, 2]}),
        "id",
    ],
    ids=repr,
)
def test_forms_of_integers(keys):
    found = read_keys(keys, Data(id=torch.tensor([3, 1, 2])), 3, "target_key")
    assert found.dtype == torch.int64
    assert found.tolist() == [3, 1, 2]


class ArrowColumn:
    """What an array of Arrow has and NumPy has not."""

    def to_pylist(self):
        return ["b", "a"]


@pytest.mark.parametrize(
    "keys",
    [
        ["b", "a"],
        ("b", "a"),
        np.array(["b", "a"]),
        np.array(["b", "a"], object),
        np.array([["b"], ["a"]]),
        np.array([b"b", b"a"]),
        [b"b", b"a"],
        pandas.Series(["b", "a"]),
        pandas.Series(["b", "a"], dtype="string"),
        pandas.Series(["b", "a"], dtype="category"),
        pandas.Index(["b", "a"]),
        ArrowColumn(),
        "id",
    ],
    ids=lambda keys: f"{type(keys).__name__} {getattr(keys, 'dtype', '')}",
)
def test_forms_of_strings(keys):
    assert read_keys(keys, Data(id=["b", "a"]), 2, "target_key") == ["b", "a"]


@pytest.mark.parametrize(
    ("error", "match", "keys"),
    [
        (ValueError, "'source_key' names the attribute 'other'", "other"),
        (ValueError, "one key per node .got 2 keys for 3 nodes", torch.tensor([1, 2])),
        (ValueError, "every key once .got 5 more than once", torch.tensor([5, 2, 5])),
        (ValueError, "every key once .got 'b' more than once", ["b", "b", "a"]),
        (ValueError, "must have one dimension .got shape .3, 2.", torch.ones(3, 2, dtype=torch.int64)),
        (TypeError, "integers or strings .got float32.: give integers of at most 64 bits", torch.ones(3)),
        (TypeError, "got torch.bfloat16", torch.ones(3, dtype=torch.bfloat16)),
        (TypeError, "got bool", torch.ones(3, dtype=torch.bool)),
        (TypeError, "got float64.: .* or write each key as a string", np.ones(3)),
        (TypeError, "got datetime64", pandas.date_range("2020", periods=3)),
        (TypeError, "one kind only .got tuple.: .* or write each key as a string", [("u", 1), ("u", 2), ("i", 1)]),
        (TypeError, "one kind only .got bytes, str", [b"a", "b", "c"]),
        (TypeError, "or name an attribute .got bytes", b"abc"),
        (TypeError, "or name an attribute .got set", {"a", "b", "c"}),
        (ValueError, "holds -1180591620717411303424, which is more than 64 bits with sign: give", [1, -(2**70)]),
        (ValueError, "holds 9223372036854775808, which is more than 64 bits", np.array([1, 2**63, 2], np.uint64)),
        (ValueError, "holds missing keys .NaN.", pandas.Series(["a", None, "b"])),
        (ValueError, "holds missing keys .NAType.", pandas.Series(["a", pandas.NA, "b"], dtype="string")),
        (ValueError, "holds missing keys", pandas.Series([1, pandas.NA, 2], dtype="Int64")),
        (ValueError, "holds missing keys .NaN.", pandas.Series([1, None, 2])),
        (ValueError, "holds missing keys .NoneType.", np.array(["a", None, "b"], object)),
        (ValueError, "holds bytes that are no UTF-8", [b"a", b"\xff", b"b"]),
        (ValueError, "every key once .got 'a' more than once", pandas.Index(["a", "a", "b"])),
        (TypeError, "got bool, int", [True, 3, 2]),
        (TypeError, "one kind only .got int, str", ["a", 1, "b"]),
        (ValueError, "holds missing keys .NoneType.", [None, None, None]),
        (TypeError, "integers or strings, or name an attribute .got dict", {}),
    ],
)
def test_bad_keys(error, match, keys):
    with pytest.raises(error, match=match):
        read_keys(keys, Data(), 3, "source_key")


def test_millions_of_keys_take_seconds():
    import time

    size = 1_000_000
    keys = [torch.randperm(size * 3 // 2)[:size] for _ in range(2)]
    start = time.process_time()
    ids, _ = join_keys(keys[0], [keys[1]])
    assert time.process_time() - start < 5
    shared = int((ids[0] < size).count_nonzero())
    assert shared == len(np.intersect1d(keys[0].numpy(), keys[1].numpy()))


def test_nodes_and_roles_by_hand():
    match = match_nodes(["a", "b", "c"], [["x", "c"], ["y", "x", "a"]])
    assert (match.num_target, match.num_nodes) == (3, 5)
    assert [ids.tolist() for ids in match.source_ids] == [[3, 2], [4, 3, 0]]
    assert match.shared.tolist() == [True, False, True]
    nodes = {name: match.nodes(name).tolist() for name in GRAPHS}
    assert nodes == {
        "target": [0, 1, 2],
        "intersection": [0, 2],
        "enriched_intersection": [0, 2],
        "enriched_target": [0, 1, 2],
        "union": [0, 1, 2, 3, 4],
        "source": [0, 2, 3, 4],
    }
    role = match.role(torch.arange(5))
    assert role.dtype == torch.int8
    assert role.tolist() == [2, 1, 2, 0, 0]


def test_nothing_shared():
    match = match_nodes(torch.tensor([1, 2]), [torch.tensor([3])])
    assert match.nodes("intersection").numel() == 0
    assert match.role(match.nodes("union")).tolist() == [1, 1, 0]
