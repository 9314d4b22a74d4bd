import pytest
import torch
from models import NormAndTie
from torch_geometric.nn import GCN, GIN
from torch_geometric.transforms import ToSparseTensor

from graphsparse.testing import random_graph
from graphsparse.training import predict


def test_is_the_forward_pass_in_evaluation_mode_without_gradient():
    data, model = random_graph(), GCN(8, 16, 2, 3, dropout=0.9)
    logits = predict(model, data)
    assert not logits.requires_grad
    assert torch.equal(predict(model, data), logits)  # no dropout
    model.eval()
    assert torch.equal(model(data.x, data.edge_index), logits)


def test_modes_and_running_statistics_stay():
    data, model = random_graph(), NormAndTie()
    model.first.eval()
    before = [module.training for module in model.modules()]
    mean = model.norm.running_mean.clone()
    predict(model, data)
    assert [module.training for module in model.modules()] == before
    assert torch.equal(model.norm.running_mean, mean)


def test_adj_t_gives_what_edge_index_gives():
    data, model = random_graph(), GCN(8, 16, 2, 3)
    sparse = ToSparseTensor(layout=torch.sparse_csr)(data.clone())
    assert "edge_index" not in sparse
    torch.testing.assert_close(predict(model, sparse), predict(model, data))


def test_edge_weight_is_passed_on():
    data, model = random_graph(), GCN(8, 16, 2, 3)
    keep = torch.arange(data.num_edges) % 3 > 0
    weighted, fewer = data.clone(), data.clone()
    weighted.edge_weight = keep.float()
    fewer.edge_index = data.edge_index[:, keep]
    torch.testing.assert_close(predict(model, weighted), predict(model, fewer))
    assert not torch.allclose(predict(model, weighted), predict(model, data))


def test_edge_weight_that_the_model_would_drop_is_refused():
    data = random_graph()
    data.edge_weight = torch.ones(data.num_edges)
    with pytest.raises(ValueError, match="'data.edge_weight' is given, but GIN does not take edge weights"):
        predict(GIN(8, 16, 2, 3), data)
