import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from intersecting import expected, key_of_node, random_pair
from torch_geometric.data import Data

from graphsparse.ops.blocks import blocks
from graphsparse.transfer.data.keys import GRAPHS
from graphsparse.transfer.data.pair import SharedNodePair


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
    monkeypatch.setattr(blocks, "__defaults__", (4,))
    parts = SharedNodePair(sources, target, directed=directed).graph(name, without=torch.tensor([[0, 1], [1, 2]]))
    assert torch.equal(whole.edge_index, parts.edge_index)
    assert torch.equal(whole.edge_origin, parts.edge_origin)


def test_hidden_in_both_directions_of_a_directed_graph():
    edges = torch.tensor([[0, 1, 2, 3], [1, 0, 3, 0]])
    target = Data(edge_index=edges[:, ::2], key=torch.arange(4), num_nodes=4)
    pair = SharedNodePair(Data(edge_index=edges, key=torch.arange(4), num_nodes=4), target, directed=True)
    graph = pair.union(without=torch.tensor([[1], [0]]))
    assert graph.edge_index.tolist() == [[2, 3], [3, 0]]
    assert graph.edge_origin.tolist() == [3, 2]


def test_degrees_of_the_written_graphs():
    sources, target = random_pair(2)
    pair = SharedNodePair(sources, target)
    for name, found in pair.summary().items():
        graph = pair.graph(name)
        degree = np.bincount(graph.edge_index[0].numpy(), minlength=graph.num_nodes)
        assert found == {
            "num_nodes": graph.num_nodes,
            "num_links": graph.num_edges // 2,
            "mean_degree": degree.mean(),
            "median_degree": np.median(degree),
        }
