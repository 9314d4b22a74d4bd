import pytest
import torch
from torch import nn
from torch_geometric.nn import GCN

from graphsparse.testing import random_graph
from graphsparse.training import fit


class Counted(nn.Module):
    """A model that counts its forward passes, with and without gradients."""

    def __init__(self, **options):
        super().__init__()
        torch.manual_seed(0)
        self.gnn, self.calls, self.says = GCN(8, 16, 2, 3, **options), [], lambda: False

    @property
    def trains_as_it_evaluates(self):
        return self.says()

    def forward(self, x, edge_index):
        self.calls.append(torch.is_grad_enabled())
        return self.gnn(x, edge_index)


def train(says=lambda: False, epochs=10, **options):
    model = Counted(**options)
    model.says = says
    return model, fit(model, random_graph(), epochs=epochs, lr=0.05)


def same(first, second):
    assert first.history == second.history
    assert torch.equal(first.logits, second.logits)
    for name, tensor in first.state_dict.items():
        assert torch.equal(tensor, second.state_dict[name])
    assert first.test == second.test


def test_one_pass_serves_both_and_nothing_changes():
    plain, expected = train(lambda: False)
    shared, found = train(lambda: True)
    same(found, expected)
    assert len(plain.calls) == 1 + 2 * 10  # one to check the model
    # Both passes of the first epoch and the training pass of the second are run, to compare the last two.
    assert len(shared.calls) == 1 + 3 + 9
    assert not found.logits.requires_grad


def test_it_may_begin_later():
    epochs = iter(range(100))
    shared, found = train(lambda: next(epochs) >= 5)
    same(found, train(lambda: False)[1])
    assert len(shared.calls) == 1 + 2 * 6 + 1 + 4


@pytest.mark.parametrize("options", [{"dropout": 0.5}, {"norm": "batch_norm"}])
def test_models_that_compute_something_else_in_training_are_found_out(options):
    plain, expected = train(lambda: False, **options)
    shared, found = train(lambda: True, **options)
    same(found, expected)
    assert len(shared.calls) == len(plain.calls)


def test_batches_and_other_graphs_are_evaluated_by_themselves():
    data = random_graph()
    for options in (
        {"loader": [data]},
        {"eval_data": random_graph()},
        {"inference": lambda m, d: m(d.x, d.edge_index)},
    ):
        model = Counted()
        model.says = lambda: True
        fit(model, data, epochs=5, **options)
        assert sum(model.calls) == 5
