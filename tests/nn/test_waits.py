"""How often the host waits for a device in a training step of our layers."""

import pytest
import torch
import torch_geometric.nn as pyg
from simulated_device import count_syncs

from graphsparse.nn import accelerate
from graphsparse.ops import Adjacency, constant
from graphsparse.testing import random_graph
from graphsparse.training import Training, fit
from graphsparse.training.node_task import NodeTask

pytestmark = pytest.mark.cuda

MODELS = {
    "GCN": lambda: pyg.GCN(8, 16, 2, 3, dropout=0.5),
    "GAT": lambda: pyg.GAT(8, 16, 2, 3, heads=2),
    "GraphSAGE": lambda: pyg.GraphSAGE(8, 16, 2, 3),
    "GraphSAGE max": lambda: pyg.GraphSAGE(8, 16, 2, 3, aggr="max"),
    "GIN": lambda: pyg.GIN(8, 16, 2, 3),
    "GIN, learned epsilon": lambda: pyg.GIN(8, 16, 2, 3, train_eps=True),
    "GCNII": lambda: GCN2(),
}


class GCN2(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.conv = torch.nn.Linear(8, 4), pyg.GCN2Conv(4, 0.1)

    def forward(self, x, edge_index, edge_weight=None):
        x = self.first(x)
        return self.conv(x, x, edge_index, edge_weight)


#: Waits of a step with a graph that came anew: for the bounds of its indices, whether it is sorted and whether it is
#: symmetric, and in the second layer whether it is still the same; GCN also for the number of its self-loops and the
#: symmetry of its values, GAT for whether there are loops, while an extremum needs no transpose.
FOR_A_NEW_GRAPH = {"GCN": 6, "GCNII": 5, "GAT": 5, "GraphSAGE max": 3}


def waits_of(step):
    for _ in range(3):
        step()
    with count_syncs() as waits:
        step()
    return waits


@pytest.mark.parametrize("name", MODELS)
def test_a_steady_step_does_not_wait(name, device, without_extensions):
    data = random_graph().to(device)
    model = accelerate(MODELS[name]()).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    weight = torch.rand(data.num_edges, device=device)
    adj = Adjacency.from_edge_index(data.edge_index, None, data.num_nodes)

    def step(edge_index=data.edge_index, edge_weight=None):
        optimizer.zero_grad()
        model(data.x, edge_index, edge_weight=edge_weight).square().mean().backward()
        optimizer.step()

    learned = weight.clone().requires_grad_()
    with constant(data, weight):
        assert waits_of(step) == []
        assert waits_of(lambda: step(adj)) == []
        assert waits_of(lambda: step(edge_weight=weight)) == []
        # Which of the learned weights are 0 must be known for an extremum.
        assert len(waits_of(lambda: step(edge_weight=learned))) == (2 if name == "GraphSAGE max" else 0)
        assert len(waits_of(lambda: step(data.edge_index.clone()))) <= FOR_A_NEW_GRAPH.get(name, 4)
    plain = waits_of(step)  # once for each tensor that might have changed, in each layer that keeps something of it
    assert 1 <= len(plain) <= 3, plain


def test_a_broken_promise_is_seen_on_a_device(device):
    data = random_graph().to(device)
    model, theirs = accelerate(pyg.GCN(8, 16, 2, 3)).to(device), pyg.GCN(8, 16, 2, 3).to(device)
    theirs.load_state_dict(model.state_dict())
    for _ in range(3):
        for _ in range(3):
            found = model(data.x, data.edge_index)
        torch.testing.assert_close(found.detach().cpu(), theirs(data.x.clone(), data.edge_index).detach().cpu())
        data.x.data.neg_()
    with pytest.raises(RuntimeError, match="'x' changed in a block"), constant(data):  # noqa: PT012
        for _ in range(3):
            model(data.x, data.edge_index)
        data.x.data.neg_()
    inside = Training(epochs=4, log=lambda entry: data.x.data.mul_(2))
    with pytest.raises(RuntimeError, match="'x' changed in a block"):
        fit(model, NodeTask(data), inside)


def test_checksums_do_not_depend_on_the_device(device):
    from graphsparse.ops.remember import _checksum

    for x in (torch.randn(5000), torch.randn(33, 100).double().t(), torch.arange(4096), torch.rand(7) > 0.5):
        assert torch.equal(_checksum(x), _checksum(x.to(device)).cpu())
