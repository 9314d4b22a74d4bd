import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import graphsparse.transfer.data.link_code as module
from graphsparse.transfer.data.link_code import LinkCode, both_ends, sorted_unique

PAIRS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=30)


def as_tensor(pairs):
    return torch.tensor(pairs, dtype=torch.int64).view(-1, 2).t()


@settings(max_examples=60, deadline=None)
@given(PAIRS, PAIRS, st.sampled_from(["undirected", "directed", "between"]), st.permutations(range(7)))
def test_links_are_a_set(first, second, kind, numbers):
    code = LinkCode(7, 7, kind != "between", kind == "directed")
    ids = torch.tensor(numbers)
    found = code.links([(as_tensor(first), None, None), (as_tensor(second), ids, ids)], [(7, 7)] * 2, ["a", "b"])
    pairs = {*first, *((numbers[u], numbers[v]) for u, v in second)}
    if kind != "between":
        pairs = {(u, v) for u, v in pairs if u != v}
    if kind == "undirected":
        pairs = {(min(pair), max(pair)) for pair in pairs}
    assert [tuple(pair) for pair in code.decode(found).t().tolist()] == sorted(pairs)
    assert torch.equal(code.encode(code.decode(found)), found)


def test_blocks(monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 3)
    edges = torch.randint(9, (2, 20), generator=torch.Generator().manual_seed(0))
    found = LinkCode(9, 9).links([(edges, None, None)], [(9, 9)], ["edges"])
    expected = {(min(u, v), max(u, v)) for u, v in edges.t().tolist() if u != v}
    assert found.tolist() == sorted(u * 9 + v for u, v in expected)
    mark = torch.arange(9) % 2 == 0
    ends = both_ends(LinkCode(9, 9), found, mark, mark)
    assert ends.tolist() == [u % 2 == v % 2 == 0 for u, v in sorted(expected)]


def test_directions():
    pairs = torch.tensor([[2, 0], [1, 1]])
    directed = LinkCode(3, 3, directed=True)
    assert directed.encode(pairs).tolist() == [7, 1]
    assert directed.unordered(directed.encode(pairs)).tolist() == [5, 1]
    between = LinkCode(3, 3, square=False)
    assert between.encode(pairs, unordered=True).tolist() == between.unordered(between.encode(pairs)).tolist() == [7, 1]


def test_edge_cases():
    import numpy as np

    assert sorted_unique(np.empty(0, dtype=np.int64)).tolist() == []
    assert sorted_unique(np.array([4])).tolist() == [4]
    with pytest.raises(ValueError, match="'here' holds the index 3"):
        LinkCode(3, 3).links([(torch.tensor([[0], [3]]), None, None)], [(3, 3)], ["here"])
    with pytest.raises(TypeError, match="'here' must be a dense int64 or int32"):
        LinkCode(3, 3).links([(torch.ones(2, 1), None, None)], [(3, 3)], ["here"])
