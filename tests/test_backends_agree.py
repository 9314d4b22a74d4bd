import pytest
import torch
from models import MODELS
from torch_geometric.transforms import ToSparseTensor

from graphsparse.testing import random_graph
from graphsparse.tickets import Distillation, find_ticket
from graphsparse.training import Training, predict
from graphsparse.transforms import SparsifyEdges
from graphsparse.typing import has_module


def results(model):
    """What a user gets from a ticket, from its training on, and from the graph in torch's own sparse form."""
    data = random_graph()
    ticket = find_ticket(
        MODELS[model],
        data,
        edge_sparsity=0.4,
        weight_sparsity=0.5,
        training=Training(epochs=5),
        distillation=Distillation(),
    )
    logits = predict(ticket.materialize(MODELS[model]), ticket.sparsify(data))
    adj_t = SparsifyEdges(0.4)(ToSparseTensor(layout=torch.sparse_csr)(data)).adj_t
    return [logits, adj_t.to_dense(), *ticket.state_dict.values()]


@pytest.mark.parametrize("model", MODELS)
def test_results_are_the_same_without_compiled_extensions(model, request):
    if not (has_module("torch_sparse") and has_module("torch_scatter")):
        pytest.skip("compares with torch-sparse and torch-scatter, which are not there")
    expected = results(model)
    request.getfixturevalue("without_extensions")
    assert not has_module("torch_sparse")
    for ours, theirs in zip(results(model), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
