import math

import pytest
import torch
from models import MODELS
from torch import nn

from graphsparse.soups.diagnosis.basin import evaluator_loss, loss_barrier
from graphsparse.soups.evaluation.evaluator import Evaluator
from graphsparse.soups.recipes.ingredients import Ingredients
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
    """The logits are 0 and 4 everywhere; a label that is not known does not count."""
    data = random_graph(num_classes=2)
    data.y, state = torch.ones_like(data.y), Bent(2, 2).state_dict()
    assert evaluator_loss(Evaluator(Bent(0, 0), data), state) == pytest.approx(math.log1p(math.exp(-4)))
    data.y = torch.tensor([[1.0, 0.0]]).repeat(data.num_nodes, 1)
    data.y[data.val_mask.nonzero()[0], 1] = torch.nan
    count = int(data.val_mask.sum())
    expected = (count * math.log(2) + (count - 1) * math.log1p(math.exp(4))) / (2 * count - 1)
    several = Evaluator(Bent(0, 0), data, metric=lambda logits, y: 0.0)
    assert evaluator_loss(several, state) == pytest.approx(expected)
    assert loss_barrier(several, state, state) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("name", MODELS)
def test_no_barrier_to_itself(name):
    model = MODELS[name]()
    state = Ingredients([model.state_dict()], evaluator := Evaluator(model, random_graph()))[0]
    assert loss_barrier(evaluator, state, state) == pytest.approx(0, abs=1e-12)
