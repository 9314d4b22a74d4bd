import pytest
import torch
from soup_models import CACHED, TREACHEROUS
from torch import nn
from torch_geometric.nn import GCNConv
from torch_geometric.transforms import ToSparseTensor

from graphsparse.soups.evaluation.evaluator import Evaluator
from graphsparse.soups.evaluation.self_check import check_cached, small_graph, writes_into
from graphsparse.testing import random_graph
from graphsparse.utils.call_model import call_model


def test_a_small_graph_has_what_the_large_one_has():
    data = random_graph(400)
    data.edge_weight, data.name = torch.rand(data.num_edges), "large"
    before = data.clone()
    small = small_graph(data)
    assert small.name == "large"
    assert (small.num_nodes, small.num_edges) == (32, 128)
    assert sorted(small.keys()) == sorted([*data.keys(), "num_nodes"])
    assert small.is_undirected() is False
    assert {tuple(row) for row in small.x.tolist()} <= {tuple(row) for row in data.x.tolist()}
    assert set(small.edge_weight.tolist()) <= set(data.edge_weight.tolist())
    assert int(small.edge_index.max()) < 32
    assert all(torch.equal(data[name], before[name]) for name in ("x", "y", "edge_index", "edge_weight"))


@pytest.mark.parametrize("name", CACHED)
def test_models_that_can_be_cached_pass(name):
    check_cached(CACHED[name]().eval(), random_graph(100), call_model)


def test_a_part_that_starts_at_zero_is_seen():
    """A bias adds nothing yet, and does once it is trained."""

    class Adapted(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = GCNConv(8, 8), GCNConv(8, 3)

        def forward(self, x, edge_index):
            h = self.first(x, edge_index) + self.first.bias
            return self.last(h.relu(), edge_index)

    with pytest.raises(ValueError, match="on a small graph the parts of the model do not make up"):
        check_cached(Adapted().eval(), random_graph(100), call_model)


def test_who_writes_into_the_features():
    data = random_graph(400)
    before = data.x.clone()
    assert writes_into(TREACHEROUS["writes into x"](), data, call_model)
    assert not writes_into(CACHED["SAGE 2"](), data, call_model)
    assert not writes_into(TREACHEROUS["median"](), data, call_model)
    assert writes_into(TREACHEROUS["row per node"](), data, call_model)  # nobody knows: it needs 400 rows
    assert torch.equal(data.x, before)
    matrix = ToSparseTensor(layout=torch.sparse_csr)(random_graph())
    assert writes_into(CACHED["SAGE 2"](), matrix, call_model)  # not tried: features are copied, and edges never
    evaluator = Evaluator(model := CACHED["SAGE 2"](), matrix)
    assert evaluator.score(model.state_dict()) == Evaluator(model, random_graph()).score(model.state_dict())
