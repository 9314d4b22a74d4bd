import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from intersecting import expected, key_of_node, random_pair

import graphsparse.transfer.data.derived as module
from graphsparse.transfer.data.derived import drop_links, write_edges
from graphsparse.transfer.data.link_code import LinkCode
from graphsparse.transfer.data.pair import SharedNodePair
from graphsparse.transfer.data.roles import GRAPHS


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.booleans(), st.integers(1, 3), st.booleans())
def test_equals_sets(seed, strings, num_sources, directed):
    sources, target = random_pair(seed, strings=strings, num_sources=num_sources)
    pair = SharedNodePair(sources, target, directed=directed)
    key = key_of_node(pair)
    for name, (nodes, links) in expected(sources, target, directed).items():
        graph = pair.graph(name)
        assert {key[i] for i in graph.n_id.tolist()} == nodes
        ids = [key[i] for i in graph.n_id.tolist()]
        found = {
            (ids[u], ids[v]): origin
            for (u, v), origin in zip(graph.edge_index.t().tolist(), graph.edge_origin.tolist(), strict=True)
        }
        assert len(found) == graph.num_edges  # each once
        if directed:
            assert found == links
        else:
            assert found == {**links, **{(v, u): origin for (u, v), origin in links.items()}}


@pytest.mark.parametrize("directed", [False, True])
@pytest.mark.parametrize("name", GRAPHS)
def test_blocks_do_not_matter(name, directed, monkeypatch):
    sources, target = random_pair(3)
    whole = SharedNodePair(sources, target, directed=directed).graph(name, without=torch.tensor([[0, 1], [1, 2]]))
    monkeypatch.setattr(module, "BLOCK", 4)
    blocks = SharedNodePair(sources, target, directed=directed).graph(name, without=torch.tensor([[0, 1], [1, 2]]))
    assert torch.equal(whole.edge_index, blocks.edge_index)
    assert torch.equal(whole.edge_origin, blocks.edge_origin)


def test_drop_in_both_directions():
    code = LinkCode(4, 4, directed=True)
    links = code.encode(torch.tensor([[0, 1, 2, 3], [1, 0, 3, 0]]))
    kept, origin = drop_links(code, links, torch.tensor([1, 2, 3, 1], dtype=torch.int8), torch.tensor([[1], [0]]))
    assert code.decode(kept).tolist() == [[2, 3], [3, 0]]
    assert origin.tolist() == [3, 1]


def test_written_edges_by_hand():
    code = LinkCode(5, 5)
    links = code.encode(torch.tensor([[1, 1], [3, 4]]))
    ids = torch.tensor([1, 3, 4])
    edges, origin = write_edges(code, links, torch.tensor([2, 3], dtype=torch.int8), (ids, ids))
    assert edges.tolist() == [[0, 0, 1, 2], [1, 2, 0, 0]]
    assert origin.tolist() == [2, 3, 2, 3]
