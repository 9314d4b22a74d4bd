import pytest
import torch
from graph_models import PoolNet, random_graphs
from torch import nn
from torch_geometric.data import Batch

from graphsparse.nn import Supermask
from graphsparse.training.graph_call import graph_call

BATCH = Batch.from_data_list(random_graphs(5))


class Recording(nn.Module):
    """Keeps what it was called with; the forward is put in by a test."""

    def __init__(self, forward):
        super().__init__()
        self.forward = forward


def all_arguments(x, edge_index, edge_attr=None, edge_weight=None, batch=None, batch_size=None, pos=None, z=None):
    return x, edge_index, edge_attr, edge_weight, batch, batch_size, pos, z


def test_what_a_model_takes_comes_by_name():
    x, edge_index, edge_attr, edge_weight, batch, batch_size, pos, z = graph_call(Recording(all_arguments), BATCH)(
        Recording(all_arguments), BATCH
    )
    assert x is BATCH.x
    assert edge_index is BATCH.edge_index
    assert edge_attr is BATCH.edge_attr
    assert batch is BATCH.batch
    assert batch_size == 5
    assert edge_weight is pos is z is None


def test_weights_and_places_where_there_are_any():
    graphs = random_graphs(3)
    for graph in graphs:
        graph.edge_weight, graph.pos = torch.rand(graph.num_edges), torch.rand(graph.num_nodes, 3)
    batch = Batch.from_data_list(graphs)
    found = graph_call(Recording(all_arguments), batch)(Recording(all_arguments), batch)
    assert found[3] is batch.edge_weight
    assert found[6] is batch.pos


def test_what_it_does_not_take_does_not_come():
    assert len(graph_call(Recording(lambda x, edge_index, *, batch: (x, edge_index, batch)), BATCH)(
        Recording(lambda x, edge_index, *, batch: (x, edge_index, batch)), BATCH
    )) == 3  # fmt: skip


class Wrapper(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, *args, **kwargs):
        return self.module(*args, **kwargs)


@pytest.mark.parametrize("wrap", [Supermask, Wrapper, torch.compile, lambda model, *_: Wrapper(Wrapper(model))])
def test_the_model_inside_a_wrapper_says_what_it_takes(wrap):
    inner = PoolNet().eval()
    model = wrap(inner, 0.5) if wrap is Supermask else wrap(inner)
    if wrap is torch.compile:
        graph_call(model, BATCH)  # compiling takes longer than it is worth here
    else:
        assert graph_call(model, BATCH)(model, BATCH).shape == (5, 3)


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (lambda x, edge_index, graph: x, r"must take an argument named 'batch'.*takes \['x', 'edge_index', 'graph'\]"),
        (lambda *args, **kwargs: None, "must take an argument named 'batch'"),
        (lambda x, edge_index, edge_weight, batch: x, r"must be given \['edge_weight'\], which the graphs do not have"),
        (lambda x, edge_index, batch, *, depth: x, r"must be given \['depth'\]"),
    ],
)
def test_what_cannot_be_called(forward, message):
    with pytest.raises(ValueError, match=message + ".*(?s:.*)give 'call'"):
        graph_call(Recording(forward), BATCH)
