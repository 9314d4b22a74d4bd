import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.nn import GraphSAGE

from graphsparse.nn import accelerate
from graphsparse.utils.call_model import call_model


def returns(*args):
    return args


def graph(**more):
    return Data(x=torch.ones(2, 3), **more)


def test_passes_features_and_edges():
    data = graph(edge_index=torch.tensor([[0], [1]]))
    assert [id(item) for item in call_model(returns, data)] == [id(data.x), id(data.edge_index)]


def test_passes_the_matrix_where_there_is_no_edge_list():
    data = graph(adj_t=torch.eye(2).to_sparse_csr())
    assert call_model(returns, data)[1] is data.adj_t


def test_passes_edge_weights():
    data = graph(edge_index=torch.tensor([[0], [1]]), edge_weight=torch.tensor([0.5]))
    assert call_model(returns, data)[2] is data.edge_weight


def test_never_drops_edge_weights_silently():
    data = graph(edge_index=torch.tensor([[0], [1]]), edge_weight=torch.tensor([0.0]))
    model = GraphSAGE(3, 4, 2, 2)
    with pytest.raises(ValueError, match="edge_weight"):
        call_model(model, data)
    without = graph(edge_index=torch.empty(2, 0, dtype=torch.int64))
    fast = accelerate(model)
    torch.testing.assert_close(call_model(fast, data), call_model(fast, without))
