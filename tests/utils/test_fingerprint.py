import pytest
import torch
from torch_geometric import EdgeIndex

from graphsparse.ops.digest import graph_fingerprint
from graphsparse.testing import toy_edge_index


def test_equal_graphs_have_equal_fingerprints():
    edge_index = toy_edge_index()
    name = graph_fingerprint(edge_index, 5)
    assert graph_fingerprint(edge_index.clone(), 5) == name
    assert graph_fingerprint(edge_index.int(), 5) == name
    assert graph_fingerprint(edge_index.t().contiguous().t(), 5) == name
    assert graph_fingerprint(EdgeIndex(edge_index), 5) == name
    assert graph_fingerprint(edge_index) == name


def test_every_difference_shows():
    edge_index = toy_edge_index()
    changed = edge_index.clone()
    changed[1, 3] = 4
    others = [changed, edge_index.flip(1), edge_index.flip(0), edge_index[:, :-1], edge_index[:, :0]]
    names = {graph_fingerprint(e, 5) for e in [edge_index, *others]} | {graph_fingerprint(edge_index, 6)}
    assert len(names) == 7


def test_bad_edges():
    with pytest.raises(TypeError, match="edge_index"):
        graph_fingerprint(torch.zeros(2, 3))
