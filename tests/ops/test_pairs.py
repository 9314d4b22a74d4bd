import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pairs_reference import pair_sets, some_pairs

from graphsparse.ops import pairs as module
from graphsparse.ops.blocks import blocks
from graphsparse.ops.pairs import (
    PairTable,
    both_ways,
    collect_keys,
    find_sorted,
    hide_pairs,
    is_among,
    key_blocks,
    key_pairs,
    pair_keys,
    unique_keys,
    unique_with_places,
)

PAIRS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=30)


def as_tensor(pairs):
    return torch.tensor(pairs, dtype=torch.int64).view(-1, 2).t()


def test_keys_of_pairs():
    pairs = torch.tensor([[3, 1], [1, 3]])
    assert pair_keys(pairs, 10).tolist() == [13, 13]
    assert pair_keys(pairs, 10, directed=True).tolist() == [31, 13]
    assert pair_keys((pairs[0].int(), pairs[1].int()), 10).tolist() == [13, 13]
    many = 2**31 + 5
    assert pair_keys(torch.tensor([[many - 1], [2]]), many).tolist() == [2 * many + many - 1]


@settings(max_examples=60, deadline=None)
@given(PAIRS, PAIRS, PAIRS, st.booleans(), st.sampled_from([1, 3, 1 << 20]))
def test_sets_of_pairs_are_pythons(first, second, hidden, directed, step):
    def unordered(pairs):
        return set(pairs) if directed else {(min(pair), max(pair)) for pair in pairs}

    def keys(pairs):
        return pair_keys(as_tensor(pairs), 7, directed=directed)

    before, module.CACHED = (module.CACHED, blocks.__defaults__), step
    blocks.__defaults__ = (step,)
    try:
        found = collect_keys((keys(part) for part in (first, second)), len(first) + len(second))
        expected = sorted(unordered(first) | unordered(second))
        assert [tuple(pair) for pair in key_pairs(found, 7).t().tolist()] == expected
        assert torch.equal(keys(expected), found)
        assert [
            pair for _, u, v in key_blocks(found, 7) for pair in zip(u.tolist(), v.tolist(), strict=True)
        ] == expected
        assert torch.equal(unique_keys(keys(first + second)), found)
        stays = hide_pairs(found, as_tensor(hidden), 7, directed=directed)
        assert stays.tolist() == [pair not in unordered(hidden) for pair in expected]
        both = key_pairs(both_ways(found, 7), 7).t().tolist()
        assert both == sorted([list(pair) for pair in expected] + [list(pair[::-1]) for pair in expected])
    finally:
        module.CACHED, blocks.__defaults__ = before


def test_no_memory_is_held_for_keys_that_came_twice():
    keys = collect_keys([torch.ones(50_000, dtype=torch.int64)] * 2, 100_000)
    assert keys.tolist() == [1]
    assert keys.untyped_storage().nbytes() == 8


@settings(max_examples=60, deadline=None)
@given(
    known=st.lists(st.integers(0, 40), unique=True, max_size=30),
    keys=st.lists(st.integers(0, 40), max_size=50),
    few=st.sampled_from([0, 10, 1 << 16]),
    step=st.sampled_from([1, 7, 1 << 20]),
)
def test_places_are_those_of_a_list(known, keys, few, step):
    known = sorted(known)
    before = module._FEW, blocks.__defaults__
    module._FEW, blocks.__defaults__ = few, (step,)
    try:
        asked, among = torch.tensor(keys, dtype=torch.int64), torch.tensor(known, dtype=torch.int64)
        place, found = find_sorted(asked, among), is_among(asked, among)
    finally:
        module._FEW, blocks.__defaults__ = before
    assert place.tolist() == [known.index(key) if key in known else -1 for key in keys]
    assert found.tolist() == [key in known for key in keys]


@settings(max_examples=80, deadline=None)
@given(pair_sets())
def test_canonical_order_and_back(case):
    pairs, num_nodes = case
    table = PairTable(pairs, num_nodes)
    expected = sorted(sorted(pair) for pair in pairs.t().tolist())
    assert torch.stack([table.low, table.high]).t().tolist() == expected
    numbers = torch.arange(pairs.size(1))
    assert torch.equal(table.unsorted(table.sorted(numbers)), numbers)
    for place, number in enumerate(table.sorted(numbers).tolist()):
        assert sorted(pairs[:, number].tolist()) == expected[place]


@settings(max_examples=60, deadline=None)
@given(pair_sets())
def test_find_is_a_dictionary(case):
    pairs, num_nodes = case
    table = PairTable(pairs, num_nodes)
    place = {tuple(pair): i for i, pair in enumerate(torch.stack([table.low, table.high]).t().tolist())}
    every = torch.cartesian_prod(torch.arange(num_nodes), torch.arange(num_nodes)).t()
    assert table.find(every).tolist() == [place.get(tuple(sorted(pair)), -1) for pair in every.t().tolist()]


def test_blocks_change_nothing(monkeypatch):
    pairs = some_pairs(40, 200)
    queries = torch.randint(40, (2, 500), generator=torch.Generator().manual_seed(1))
    whole = PairTable(pairs, 40)
    expected = whole.find(queries)
    assert (expected >= 0).sum() > 20
    monkeypatch.setattr(blocks, "__defaults__", (7,))
    monkeypatch.setattr(module, "CACHED", 3)
    monkeypatch.setattr(module, "_FEW", 3)  # so that queries are sorted before they are looked up
    table = PairTable(pairs, 40)
    assert torch.equal(table.low, whole.low)
    assert torch.equal(table.high, whole.high)
    assert torch.equal(table.find(queries), expected)
    assert torch.cat([low for _, low, _ in table.blocks()]).tolist() == whole.low.tolist()


def test_a_pair_twice_is_seen_across_blocks(monkeypatch):
    monkeypatch.setattr(module, "CACHED", 2)
    for num in range(1, 6):
        pairs = torch.stack([torch.zeros(num + 1), torch.tensor([*range(1, num + 1), num])]).long()
        with pytest.raises(ValueError, match=rf"'anchors' must hold each undirected pair once .got \[0, {num}\] twice"):
            PairTable(pairs, 9, "anchors")


def test_sorted_pairs_need_no_order():
    assert PairTable(torch.tensor([[0, 0, 1], [1, 2, 2]]), 3).order is None
    assert PairTable(torch.empty(2, 0, dtype=torch.int64), 0).find(torch.empty(2, 0, dtype=torch.int64)).numel() == 0
    assert PairTable(torch.empty(2, 0, dtype=torch.int64), 3).find(torch.tensor([[0], [1]])).tolist() == [-1]


def test_many_nodes_do_not_overflow():
    last = 2**31 + 5
    table = PairTable(torch.tensor([[last, 3], [7, last - 1]]), last + 1)
    assert table.low.tolist() == [3, 7]
    assert table.find(torch.tensor([[7, 3], [last, last]])).tolist() == [1, -1]


@pytest.mark.parametrize(
    ("error", "match", "pairs"),
    [
        (TypeError, "'p' must be a dense int64 or int32", torch.rand(2, 3)),
        (ValueError, r"'p' must have shape \[2, E\]", torch.zeros(3, 2, dtype=torch.int64)),
        (ValueError, "'p' holds the index 4", torch.tensor([[0], [4]])),
        (ValueError, "'p' must not hold negative", torch.tensor([[0], [-1]])),
        (ValueError, r"'p' must not hold self-loops .got the pair \[2, 2\]", torch.tensor([[0, 2], [1, 2]])),
        (ValueError, r"each undirected pair once .got \[0, 1\] twice", torch.tensor([[0, 2, 1], [1, 0, 0]])),
    ],
)
def test_bad_pairs(error, match, pairs):
    with pytest.raises(error, match=match):
        PairTable(pairs, 4, "p")


@given(
    keys=st.lists(st.integers(0, 2**40), max_size=60),
    bits=st.sampled_from([41, 58, 62]),  # in one part, in two, in 32
    cut=st.integers(0, 60),
    most=st.sampled_from([1, 1 << 16]),
)
def test_distinct_keys_and_their_places_are_those_of_numpy(keys, bits, cut, most):
    """However large keys may be, that is into however many parts they are dealt out, or too many."""
    given = torch.tensor(keys, dtype=torch.int64)
    given[::3] <<= bits - 41  # some of them near the bound
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_MOST_BUCKETS", most)
        found, place = unique_with_places(lambda: [given[:cut], given[cut:]], len(keys), 2**bits)
    expected, inverse = np.unique(given.numpy(), return_inverse=True)
    assert found.tolist() == expected.tolist()
    assert place.tolist() == inverse.tolist()
    assert place.dtype == torch.int32
