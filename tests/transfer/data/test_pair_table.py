import pytest
import torch
from hypothesis import given, settings
from pairs_reference import pair_sets, some_pairs

from graphsparse.ops import pairs as sorted_keys
from graphsparse.ops.blocks import blocks
from graphsparse.transfer.data import pair_table
from graphsparse.transfer.data.pair_table import PairTable


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
    monkeypatch.setattr(pair_table, "CACHED", 3)
    monkeypatch.setattr(sorted_keys, "_FEW", 3)  # so that queries are sorted before they are looked up
    table = PairTable(pairs, 40)
    assert torch.equal(table.low, whole.low)
    assert torch.equal(table.high, whole.high)
    assert torch.equal(table.find(queries), expected)
    assert torch.cat([low for _, low, _ in table.blocks()]).tolist() == whole.low.tolist()


def test_a_pair_twice_is_seen_across_blocks(monkeypatch):
    monkeypatch.setattr(pair_table, "CACHED", 2)
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
