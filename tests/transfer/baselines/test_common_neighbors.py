import math

import networkx as nx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphsparse.transfer.baselines import common_neighbors
from graphsparse.transfer.baselines.common_neighbors import (
    CommonNeighbors,
    adamic_adar_weight,
    blocks_by_size,
    count_weight,
    resource_allocation_weight,
)


def graph(n, share, seed):
    found = nx.gnp_random_graph(n, share, seed=seed)
    edges = torch.tensor([*found.edges], dtype=torch.int64).view(-1, 2).t()
    return found, torch.cat([edges, edges.flip(0)], 1)


def adamic_adar(found, u, v):  # that of networkx divides by 0 for a node of degree 1, which has no two neighbours
    return sum(1 / math.log(found.degree(w)) for w in nx.common_neighbors(found, u, v))


REFERENCES = {
    count_weight: lambda found, u, v: len(list(nx.common_neighbors(found, u, v))),
    adamic_adar_weight: adamic_adar,
    resource_allocation_weight: lambda found, u, v: next(nx.resource_allocation_index(found, [(u, v)]))[2],
}


@pytest.mark.parametrize("weight", REFERENCES)
@settings(max_examples=25, deadline=None)
@given(n=st.integers(2, 25), share=st.floats(0, 1), seed=st.integers(0, 999), limit=st.integers(1, 50))
def test_equals_networkx_in_blocks_of_any_size(weight, n, share, seed, limit):
    found, edge_index = graph(n, share, seed)
    pairs = torch.randint(n, (2, 40), generator=torch.Generator().manual_seed(seed))
    pairs = pairs[:, pairs[0] != pairs[1]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(common_neighbors, "_BLOCK", limit)
        scores = CommonNeighbors(edge_index, n, weight).score(pairs)
    expected = [REFERENCES[weight](found, u, v) for u, v in pairs.t().tolist()]
    assert torch.allclose(scores, torch.tensor(expected, dtype=torch.float32), atol=1e-6)


def test_adamic_adar_equals_that_of_networkx():
    found, edge_index = graph(30, 0.3, 0)
    pairs = torch.tensor([*nx.non_edges(found)]).t()
    expected = [value for _, _, value in nx.adamic_adar_index(found, pairs.t().tolist())]
    assert torch.allclose(CommonNeighbors(edge_index, 30, adamic_adar_weight).score(pairs), torch.tensor(expected))


def test_self_loops_and_repeated_edges_do_not_count():
    _, edge_index = graph(12, 0.4, 1)
    pairs = torch.combinations(torch.arange(12)).t()
    messy = torch.cat([edge_index, edge_index[:, :7], torch.arange(12).repeat(2, 1)], 1)
    for weight in REFERENCES:
        expected = CommonNeighbors(edge_index, 12, weight).score(pairs)
        assert torch.equal(CommonNeighbors(messy, 12, weight).score(pairs), expected)


@pytest.mark.parametrize(("end", "message"), [(2, "'pairs' holds the index 2"), (0, "'pairs' must hold no self-loops")])
def test_what_is_refused(end, message):
    with pytest.raises(ValueError, match=message):
        CommonNeighbors(torch.tensor([[0], [1]]), 2).score(torch.tensor([[0], [end]]))


@given(sizes=st.lists(st.integers(0, 20), max_size=30), limit=st.integers(1, 40))
def test_blocks_cover_everything_once_and_keep_to_the_limit(sizes, limit):
    blocks = blocks_by_size(torch.tensor(sizes, dtype=torch.int64), limit)
    covered = [i for block in blocks for i in range(block.start, block.stop)]
    assert covered == list(range(len(sizes)))
    for block in blocks:
        part = sizes[block]
        assert len(part) == 1 or sum(part) + len(part) <= limit
