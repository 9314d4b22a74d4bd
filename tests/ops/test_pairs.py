import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphsparse.ops import pairs as sorted_keys
from graphsparse.ops.pairs import find_sorted, is_among, pair_keys


def test_keys_of_pairs():
    pairs = torch.tensor([[3, 1], [1, 3]])
    assert pair_keys(pairs, 10).tolist() == [13, 13]
    assert pair_keys(pairs, 10, directed=True).tolist() == [31, 13]


@settings(max_examples=60, deadline=None)
@given(
    known=st.lists(st.integers(0, 40), unique=True, max_size=30),
    keys=st.lists(st.integers(0, 40), max_size=50),
    few=st.sampled_from([0, 10, 1 << 16]),
    step=st.sampled_from([1, 7, 1 << 20]),
)
def test_places_are_those_of_a_list(known, keys, few, step):
    known = sorted(known)
    before = sorted_keys._FEW, sorted_keys._LOOK_UP
    sorted_keys._FEW, sorted_keys._LOOK_UP = few, step
    try:
        asked, among = torch.tensor(keys, dtype=torch.int64), torch.tensor(known, dtype=torch.int64)
        place, found = find_sorted(asked, among), is_among(asked, among)
    finally:
        sorted_keys._FEW, sorted_keys._LOOK_UP = before
    assert place.tolist() == [known.index(key) if key in known else -1 for key in keys]
    assert found.tolist() == [key in known for key in keys]
