import pytest
import torch
from torch_geometric import EdgeIndex
from torch_geometric.data import Data
from torch_geometric.utils import to_edge_index, to_torch_csr_tensor

from graphsparse.edges.mask import mask_data_edges, mask_edges
from graphsparse.testing import random_graph, toy_edge_index


def test_equals_edge_subgraph_of_pyg():
    data = random_graph()
    data.edge_attr = torch.arange(data.num_edges)
    mask = torch.arange(data.num_edges) % 3 == 0
    ours, theirs = mask_data_edges(data, mask), data.edge_subgraph(mask)
    assert torch.equal(ours.edge_index, theirs.edge_index)
    assert torch.equal(ours.edge_attr, theirs.edge_attr)
    assert data.num_edges == mask.numel()


def test_nodes_are_counted_before_the_edges_go():
    data = Data(edge_index=toy_edge_index())
    with pytest.warns(UserWarning, match="num_nodes"):
        out = mask_data_edges(data, torch.zeros(10, dtype=torch.bool))
    assert out.num_nodes == 5
    assert "num_nodes" not in data


def test_undirected_flag_survives_and_the_cache_is_not_stale():
    edge_index = EdgeIndex(toy_edge_index(), sparse_size=(5, 5), sort_order="row", is_undirected=True).fill_cache_()
    mask = toy_edge_index().sum(0) != 1
    kept = mask_edges(edge_index, mask)
    assert kept.is_undirected
    kept.validate()
    dense = torch.zeros(5, 5)
    dense[tuple(kept.as_tensor())] = 1
    torch.testing.assert_close(kept.matmul(torch.eye(5)), dense)
    again, _ = to_edge_index(to_torch_csr_tensor(kept.as_tensor(), size=(5, 5)))
    assert torch.equal(again, kept.as_tensor())
