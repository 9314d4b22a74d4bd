import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import graphsparse.datasets.similar_nodes as module
from graphsparse.datasets.similar_nodes import common_neighbor_pairs, nearest_pairs


@pytest.mark.parametrize("block", [1 << 24, 100])
def test_nearest_against_all_similarities(block, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK", block)
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(0)).double()
    x[7] = 0
    expected = set()
    for u in range(40):
        like = torch.cosine_similarity(x[u : u + 1], x).tolist()
        near = sorted((v for v in range(40) if v != u and like[v] > 0), key=lambda v: -like[v])[:5]
        expected |= {(min(u, v), max(u, v)) for v in near}
    assert not any(7 in pair for pair in expected)
    found = nearest_pairs(x, 5)
    assert [tuple(pair) for pair in found.t().tolist()] == sorted(expected)


@settings(max_examples=40, deadline=None)
@given(st.sets(st.frozensets(st.integers(0, 9), min_size=2, max_size=2), max_size=20), st.sets(st.integers(0, 9)))
def test_common_neighbours_against_sets(links, among):
    pairs = torch.tensor([sorted(link) for link in links], dtype=torch.int64).view(-1, 2).t()
    near = {u: {v for link in links if u in link for v in link - {u}} for u in range(10)}
    expected = sorted((u, v) for u in among for v in among if u < v and near[u] & near[v])
    mark = torch.zeros(10, dtype=torch.bool)
    mark[sorted(among)] = True
    assert [tuple(pair) for pair in common_neighbor_pairs(pairs, mark).t().tolist()] == expected


def test_bad_arguments():
    with pytest.raises(ValueError, match="'num_neighbors' must be at least 1"):
        nearest_pairs(torch.ones(3, 2), 0)
    with pytest.raises(TypeError, match="'num_neighbors' must be an integer"):
        nearest_pairs(torch.ones(3, 2), 1.5)
    assert nearest_pairs(torch.ones(1, 2), 3).shape == (2, 0)
