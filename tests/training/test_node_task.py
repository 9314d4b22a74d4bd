"""The parts that are called one by one; what they do together is tested with ``fit``."""

import math

import pytest
import torch
import torch.nn.functional as F
from models import MODELS
from torch_geometric.loader import DataLoader
from torch_geometric.nn import GCN

from graphsparse.metrics import accuracy
from graphsparse.testing import random_graph
from graphsparse.training import build_model, predict
from graphsparse.training.node_task import NodeTask, own_generators


def task(data, **options):
    defaults = {"loader": None, "extra_loss": None, "metric": accuracy, "inference": predict}
    return NodeTask(data, options.pop("eval_data", data), **{**defaults, **options})


def test_loss_evaluation_and_end():
    data, model = random_graph(), build_model(MODELS["GCN"], 0).eval()
    nodes = task(data)
    nodes.check(model)
    (batch,) = nodes.batches()
    assert batch is data
    logits = model(data.x, data.edge_index).detach()
    expected = F.cross_entropy(logits[data.train_mask], data.y[data.train_mask])
    assert torch.equal(nodes.loss(model, batch, 0).detach(), expected)
    found = nodes.evaluate(model.train(), 0)
    assert model.training
    assert torch.equal(found.logits, logits)
    assert found.val == accuracy(logits, data.y, data.val_mask)
    assert found.figures == {"train": accuracy(logits, data.y, data.train_mask)}
    assert nodes.finish(model, found) == (
        found.logits,
        found.figures["train"],
        accuracy(logits, data.y, data.test_mask),
    )


def test_no_training_and_no_test_nodes():
    data, model = random_graph(), GCN(8, 16, 2, 3)
    data.test_mask = data.train_mask = None
    found = task(random_graph(), eval_data=data).evaluate(model, 0)
    _, train, test = task(data).finish(model, found)
    assert math.isnan(train)
    assert test is None


def test_a_batch_without_training_nodes_gives_no_loss():
    data = random_graph()
    data.train_mask = data.train_mask & False
    assert task(data).loss(GCN(8, 16, 2, 3), data, 0) is None
    extra = task(data, extra_loss=lambda logits, *_: logits.square().sum())
    assert extra.loss(GCN(8, 16, 2, 3), data, 0) > 0


def test_logits_that_are_not_numbers():
    with pytest.raises(FloatingPointError, match="a logit is not a number after epoch 3"):
        task(random_graph(), inference=lambda *_: torch.full((60, 3), math.nan)).evaluate(GCN(8, 16, 2, 3), 3)


def test_generators_of_a_loader():
    generator = torch.Generator()
    assert own_generators(None) == []
    assert own_generators([random_graph()]) == []
    assert own_generators(DataLoader([random_graph()], shuffle=True)) == []
    assert own_generators(DataLoader([random_graph()], shuffle=True, generator=generator)) == [generator]
    sampler = torch.utils.data.RandomSampler([1, 2], generator=generator)
    assert own_generators(torch.utils.data.DataLoader([1, 2], sampler=sampler)) == [generator]


def test_weights_of_nodes_in_the_loss():
    data, model = random_graph(), build_model(MODELS["GCN"], 0).eval()
    plain = task(data).loss(model, data, 0).detach()
    logits = model(data.x, data.edge_index).detach()
    weight = torch.rand(60, generator=torch.Generator().manual_seed(0))
    each = F.cross_entropy(logits, data.y, reduction="none")
    data.loss_weight = weight
    expected = sum(float(weight[i] * each[i]) for i in range(60) if data.train_mask[i])
    assert float(task(data).loss(model, data, 0).detach()) == pytest.approx(expected, rel=1e-5)
    data.batch_size = 30
    expected = sum(float(weight[i] * each[i]) for i in range(30) if data.train_mask[i])
    assert float(task(data).loss(model, data, 0).detach()) == pytest.approx(expected, rel=1e-5)
    del data.batch_size
    data.loss_weight = torch.full((60,), 1 / 20)  # of 20 training nodes: their mean
    torch.testing.assert_close(task(data).loss(model, data, 0).detach(), plain)
    for wrong in (torch.ones(59), 3.0):
        data.loss_weight = wrong
        with pytest.raises(ValueError, match=r"'loss_weight' of a batch must hold one weight per node, \[60\]"):
            task(data).loss(model, data, 0)


def test_a_loader_may_ask_for_a_model_that_sums():
    class Weighted(list):
        needs_weighted_sums = True

    data = random_graph()
    with pytest.raises(ValueError, match="normalises the weights again"):
        task(data, loader=Weighted([data])).check(GCN(8, 16, 2, 3))
    task(data, loader=Weighted([data])).check(GCN(8, 16, 2, 3, normalize=False))
