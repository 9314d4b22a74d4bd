import pytest
import torch
import torch_geometric.nn as pyg
from layers import close, twins, unsorted_graph

from graphsparse.nn import GINConv


def network():
    return torch.nn.Sequential(torch.nn.Linear(5, 6), torch.nn.Tanh(), torch.nn.Linear(6, 3))


def test_first_value_of_epsilon():
    edge_index, _, x = unsorted_graph()
    theirs, ours = twins("GINConv", network(), eps=0.5)
    for change in (
        lambda layer: layer.eps.fill_(2),
        lambda layer: layer.eps.data.fill_(3),
        lambda layer: layer.load_state_dict(layer.state_dict() | {"eps": torch.tensor([4.0])}),
        lambda layer: [torch.manual_seed(0), layer.reset_parameters()],
        lambda layer: setattr(layer, "eps", torch.tensor([5.0])),
    ):
        for layer in (theirs, ours):
            for _ in range(2):
                layer(x, edge_index)
            change(layer)
        close([ours(x, edge_index)], [theirs(x, edge_index)])
    other = {"eps": torch.tensor([7.0])}
    found, expected = (torch.func.functional_call(layer, other, (x, edge_index)) for layer in (ours, theirs))
    close([found], [expected])


def test_any_function():
    edge_index, weight, x = unsorted_graph()
    for function in (torch.sin, lambda x: x.view(-1, 1, 5)):
        close([GINConv(function)(x, edge_index)], [pyg.GINConv(function)(x, edge_index)])
    with pytest.raises(ValueError, match="GINConv takes no 'edge_weight' with aggr='median'"):
        GINConv(network(), aggr="median")(x, edge_index, edge_weight=weight)
