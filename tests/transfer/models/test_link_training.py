import math

import pytest
import torch
from torch import nn

from graphsparse.training.loop import Evaluation
from graphsparse.transfer.models.link_training import LinkTraining


class Slope(nn.Module):
    """A loss of a constant gradient."""

    def __init__(self):
        super().__init__()
        self.weight, self.other = nn.Parameter(torch.zeros(4)), nn.Parameter(torch.zeros(1))


class SlopeTask:
    unit, metric, maximize, generators = "link", "slope", True, ()

    def check(self, model):
        pass

    def identity(self):
        return self.described

    def __init__(self):
        self.seen = []

    def batches(self):
        return [None]

    def loss(self, model, batch, extra):
        return 100 * model.weight.sum() + model.other.sum()

    def evaluate(self, model, epoch):
        self.seen.append((model.weight.grad.norm().item(), model.weight.detach().clone(), model.other.item()))
        return Evaluation(-abs(epoch - 3), torch.zeros(1))

    def finish(self, model, best):
        return best.logits, math.nan, None


def test_gradients_are_clipped_together():
    task, model = SlopeTask(), Slope()
    LinkTraining(epochs=2, eval_every=1).run(model, task, seed=0)
    assert task.seen[0][0] == pytest.approx(2.0, abs=1e-3)
    task = SlopeTask()
    LinkTraining(epochs=2, eval_every=1, clip=None).run(Slope(), task, seed=0)
    assert task.seen[0][0] == pytest.approx(200)


def test_best_epoch_is_kept_and_the_model_is_in_evaluation_mode():
    task, model = SlopeTask(), Slope()
    result = LinkTraining(epochs=8, eval_every=1).run(model, task, seed=0)
    assert result.best_epoch == 3
    assert torch.equal(model.weight, task.seen[3][1])
    assert not model.training
    assert model.weight.grad is None


def test_some_parameters_only():
    model = Slope()
    LinkTraining(epochs=4, eval_every=1).run(model, SlopeTask(), seed=0, parameters=[model.weight])
    assert model.other.item() == 0
    assert model.weight.abs().min() > 0


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"epochs": 0}, ValueError, "'epochs' must be at least 1"),
        ({"lr": 0}, ValueError, "'lr' must be a finite number above 0"),
        ({"lr": "fast"}, TypeError, "'lr' must be a number"),
        ({"weight_decay": -1.0}, ValueError, "'weight_decay'"),
        ({"clip": 0.0}, ValueError, "'clip'"),
        ({"metric": "ap"}, TypeError, "'metric' must be a function"),
        ({"patience": 0}, ValueError, "'patience'"),
    ],
)
def test_bad_settings(options, error, message):
    with pytest.raises(error, match=message):
        LinkTraining(**options)
