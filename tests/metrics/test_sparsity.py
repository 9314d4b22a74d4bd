import networkx as nx
import pytest
import torch
from models import NormAndTie
from torch_geometric.utils import to_networkx

from graphsparse.edges import sparsify_edge
from graphsparse.metrics import edge_sparsity, weight_sparsity
from graphsparse.testing import random_graph, toy_edge_index


def test_weights_of_a_model():
    model = torch.nn.Linear(5, 4)
    assert weight_sparsity(model) == 0
    with torch.no_grad():
        model.weight[:2] = 0
        model.bias[0] = 0
    assert weight_sparsity(model) == 11 / 24
    assert weight_sparsity([model.weight]) == 10 / 20
    assert weight_sparsity(model.state_dict()) == 11 / 24


def test_a_tied_weight_counts_once():
    model = NormAndTie()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1)
        model.second.lin.weight.zero_()
    total = sum(parameter.numel() for parameter in model.parameters())
    assert weight_sparsity(model) == 256 / total
    # The state dict lists it twice and has the two running statistics; the counter of batches is no weight.
    assert weight_sparsity(model.state_dict()) == (256 + 16) / (total + 32)


def test_negative_zero_is_zero_and_small_is_not():
    assert weight_sparsity([torch.tensor([-0.0, 1e-45, 1.0, 2.0])]) == 0.25


def test_nothing_to_count():
    assert weight_sparsity(torch.nn.ReLU()) == 0
    assert weight_sparsity([]) == 0


def test_something_else_than_tensors_is_refused():
    with pytest.raises(TypeError, match="'model' must be a module, a state dict or tensors .it holds a str."):
        weight_sparsity(["weight"])
    with pytest.raises(TypeError, match="holds a list"):
        weight_sparsity({"weight": [0.0]})


@pytest.mark.parametrize("sparsity", [0.0, 0.25, 0.8])
def test_edges_are_counted_as_networkx_counts_them(sparsity):
    data = random_graph()
    after, _ = sparsify_edge(data.edge_index, sparsity)
    whole = nx.Graph(to_networkx(data))
    rest = data.clone()
    rest.edge_index = after
    expected = 1 - nx.Graph(to_networkx(rest)).number_of_edges() / whole.number_of_edges()
    assert edge_sparsity(data.edge_index, after) == pytest.approx(expected, abs=1e-12)


def test_loops_duplicates_and_directions_do_not_count():
    before = toy_edge_index()
    loops = torch.tensor([[0, 1, 2], [0, 1, 2]])
    one_way = torch.tensor([[0, 1, 0], [1, 0, 2]])
    assert edge_sparsity(torch.cat([before, before, loops], 1), one_way) == 1 - 2 / 5
    assert edge_sparsity(before, torch.cat([one_way, loops], 1)) == 1 - 2 / 5
    assert edge_sparsity(before, loops) == 1
    assert edge_sparsity(loops, loops) == 0


def test_an_edge_from_nowhere_is_refused():
    with pytest.raises(ValueError, match="'after' holds an edge that 'before' does not hold"):
        edge_sparsity(toy_edge_index(), torch.tensor([[1], [4]]))
    with pytest.raises(ValueError, match="index 7"):
        edge_sparsity(toy_edge_index(), torch.tensor([[1], [7]]))
