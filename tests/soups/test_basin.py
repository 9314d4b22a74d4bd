import math

import pytest
import torch
from models import MODELS
from torch import nn

from graphsparse.soups.basin import loss_barrier, node_loss
from graphsparse.soups.evaluator import Evaluator
from graphsparse.soups.ingredients import Ingredients
from graphsparse.testing import random_graph


class Bent(nn.Module):
    """Logits of two classes, 0 and the product of two weights."""

    def __init__(self, first, second):
        super().__init__()
        self.first, self.second = (nn.Parameter(torch.tensor(float(value))) for value in (first, second))

    def forward(self, x, edge_index):
        return torch.stack([torch.zeros(len(x)), (self.first * self.second).expand(len(x))], dim=1)


def test_barrier_by_hand():
    data = random_graph(num_classes=2)
    data.y = torch.ones_like(data.y)
    evaluator = Evaluator(Bent(0, 0), data)
    # Both ends have the logit 4; halfway both weights are 0.
    first, second = Bent(2, 2).state_dict(), Bent(-2, -2).state_dict()
    expected = math.log(2) - math.log1p(math.exp(-4))
    assert loss_barrier(evaluator, first, second) == pytest.approx(expected, abs=1e-6)
    # A quarter of the way it is 1.
    found = loss_barrier(evaluator, first, second, ratio=0.75)
    assert found == pytest.approx(math.log1p(math.exp(-1)) - math.log1p(math.exp(-4)), abs=1e-6)
    assert loss_barrier(evaluator, first, second, (0.0, 2.0)) == pytest.approx(math.log(2) - 1, abs=1e-6)


def test_loss_of_both_kinds_of_labels():
    logits = torch.tensor([[1.0, -1.0], [0.0, 2.0]])
    by_hand = (math.log1p(math.exp(-2)) + math.log1p(math.exp(2))) / 2
    assert node_loss(logits, torch.tensor([0, 0])) == pytest.approx(by_hand)
    entries = [math.log1p(math.exp(-1)), math.log1p(math.exp(-1)), math.log(2), math.log1p(math.exp(2))]
    assert node_loss(logits, torch.tensor([[1.0, 0.0], [1.0, 0.0]])) == pytest.approx(sum(entries) / 4)


@pytest.mark.parametrize("name", MODELS)
def test_no_barrier_to_itself(name):
    model = MODELS[name]()
    state = Ingredients([model.state_dict()], evaluator := Evaluator(model, random_graph()))[0]
    assert loss_barrier(evaluator, state, state) == pytest.approx(0, abs=1e-12)
