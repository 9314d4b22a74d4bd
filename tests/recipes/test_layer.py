"""The recipe of CONTRIBUTING for a layer: PyG's GraphConv as one sparse product, outside the package."""

import copy
import inspect

import pytest
import torch
from layers import close, largest_tensor, result
from torch_geometric import nn as pyg

from graphsparse.loader.batches import check_sums_weighted_messages
from graphsparse.metrics import count_macs
from graphsparse.nn import FUSED, FusedConv, accelerate
from graphsparse.ops import Adjacency
from graphsparse.testing import random_graph


def recipe():
    class GraphConv(FusedConv, pyg.GraphConv):
        """The layer of Morris et al., arXiv 1810.02244, as one sparse product."""

        replaces = pyg.GraphConv
        reductions = ("sum", "min", "max")  # PyG divides a weighted mean by the number of edges
        near, own = "lin_rel", "lin_root"

        def forward(self, x, edge_index, edge_weight=None, size=None):
            return self.run(x, edge_index, edge_weight, size)

    return GraphConv


@pytest.fixture
def layer():
    yield recipe()
    del FUSED[pyg.GraphConv]


def twins(layer, **options):
    torch.manual_seed(0)
    theirs, ours = pyg.GraphConv(8, 4, **options), layer(8, 4, **options)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    return theirs, ours


def test_it_is_short_and_takes_public_names_only():
    lines = [line for line in inspect.getsource(recipe).splitlines() if line.strip()]
    assert len(lines) <= 40
    assert not any(name.startswith("_") for name in recipe.__code__.co_names)


@pytest.mark.parametrize("aggr", ["sum", "mean", "min", "max"])
@pytest.mark.parametrize("weighted", [False, True])
def test_same_as_pyg(layer, aggr, weighted):
    data = random_graph()
    theirs, ours = twins(layer, aggr=aggr)
    weight = torch.rand(data.num_edges) + 0.1 if weighted else None
    assert ours.is_fused(data.x) == (aggr != "mean")
    for _ in range(3):
        found, expected = (result(conv, data.x, data.edge_index, weight) for conv in (ours, theirs))
        close(found, expected)
    pair = data.x, data.x[:20]
    kept = data.edge_index[1] < 20
    args = pair, data.edge_index[:, kept], None if weight is None else weight[kept]
    close([ours(*args)], [theirs(*args)])


@pytest.mark.parametrize("aggr", ["sum", "mean", "min", "max"])
@pytest.mark.parametrize("hooked", [False, True])
def test_weight_0_is_no_edge(layer, aggr, hooked):
    data = random_graph()
    theirs, ours = twins(layer, aggr=aggr)
    weight = torch.rand(data.num_edges) + 0.1
    kept = torch.rand(data.num_edges) < 0.6
    if hooked:
        ours.register_message_forward_hook(lambda *_: None)
    expected = theirs(data.x, data.edge_index[:, kept], weight[kept])
    close([ours(data.x, data.edge_index, weight * kept)], [expected])
    adj = Adjacency.from_edge_index(data.edge_index, weight * kept, data.num_nodes)
    close([ours(data.x, adj)], [expected])


def test_accelerate_exchanges_it(layer):
    data = random_graph()

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = pyg.GraphConv(8, 16)

        def forward(self, x, edge_index):
            return self.conv(x, edge_index).relu()

    model = Model()
    before = copy.deepcopy(model)
    fast = accelerate(model)
    assert type(fast.conv) is layer
    assert fast.conv.lin_rel.weight is model.conv.lin_rel.weight
    close([fast(data.x, data.edge_index)], [before(data.x, data.edge_index)])
    sizes = [largest_tensor(lambda one=one: one(data.x, data.edge_index)) for one in (fast, model)]
    assert sizes[0] < sizes[1]


def test_cost_and_samplers_ask_it(layer):
    data = random_graph()
    theirs, ours = twins(layer)
    weight = torch.rand(data.num_edges)
    macs = data.num_edges * 8 + 2 * data.num_nodes * 8 * 4
    assert count_macs(ours, data.x, data.edge_index) == count_macs(theirs, data.x, data.edge_index) == macs
    assert count_macs(ours, data.x, data.edge_index, weight) == macs
    check_sums_weighted_messages(ours)
    with pytest.raises(ValueError, match="takes the max"):
        check_sums_weighted_messages(twins(layer, aggr="max")[1])


@torch.no_grad()
def test_blocks_of_rows_are_the_rows(layer):
    data = random_graph()
    ours = twins(layer)[1]
    operator = ours.operator(Adjacency.from_edge_index(data.edge_index, None, data.num_nodes), data.x.dtype)
    sent = ours.transform(data.x)
    blocks = [slice(start, min(start + 25, data.num_nodes)) for start in range(0, data.num_nodes, 25)]
    found = [ours.rows(operator.rows(b.start, b.stop), sent, sent[b], data.x[b]) for b in blocks]
    close([torch.cat(found)], [ours(data.x, data.edge_index)])
