"""The parts that are called one by one; what they do together is tested with ``fit_graphs``."""

import copy
import math

import pytest
import torch
from graph_models import PoolNet, random_graphs
from torch_geometric.data import Batch

from graphsparse.training.graph_labels import graph_metric
from graphsparse.training.graph_task import GraphTask

GRAPHS = random_graphs()
SPLIT = {"train": torch.arange(24), "val": torch.arange(24, 32), "test": torch.arange(39, 31, -1)}


def task(graphs=GRAPHS, split=SPLIT, **options):
    metric, maximize = graph_metric("binary")
    defaults = {"target": "binary", "metric": metric, "maximize": maximize, "batch_size": 5, "call": None}
    return GraphTask(graphs, split, **{**defaults, "extra_loss": None, **options})


def test_evaluation_and_end_are_those_of_one_large_batch():
    model, graphs = PoolNet().eval(), task()
    graphs.check(model)
    found = graphs.evaluate(model.train(), 0)
    assert model.training
    model.eval()
    whole = Batch.from_data_list(GRAPHS)
    expected = model(whole.x, whole.edge_index, whole.batch).detach()
    torch.testing.assert_close(found.logits, expected[24:32])
    logits, train, test = graphs.finish(model, found)
    torch.testing.assert_close(logits, expected)
    metric, _ = graph_metric("binary")
    y = torch.cat([graph.y for graph in GRAPHS])
    assert (train, test) == (metric(logits[:24], y[:24]), metric(logits[32:], y[32:]))
    assert found.val == metric(logits[24:32], y[24:32])


def test_checks_read_no_test_label():
    graphs = copy.deepcopy(GRAPHS)
    for graph in graphs[32:]:
        graph.y = "secret"
    task(graphs).check(PoolNet())
    graphs[0].y = "secret"
    with pytest.raises(ValueError, match="must hold labels"):
        task(graphs).check(PoolNet())


def test_a_batch_without_labels():
    batch = Batch.from_data_list(copy.deepcopy(GRAPHS[:4]))
    batch.y.fill_(math.nan)
    graphs, extra = task(), task(extra_loss=lambda logits, *_: logits.square().sum())
    for each in (graphs, extra):
        each.check(PoolNet())
    assert graphs.loss(PoolNet(), batch, 0) is None
    assert extra.loss(PoolNet(), batch, 0) > 0


def test_another_signature():
    model, graphs = PoolNet().eval(), task(call=lambda model, batch: -model(batch.x, batch.edge_index, batch.batch))
    graphs.check(model)
    other = task()
    other.check(model)
    assert torch.equal(graphs.evaluate(model, 0).logits, -other.evaluate(model, 0).logits)


def test_logits_that_are_not_numbers():
    graphs = task(call=lambda model, batch: torch.full((batch.num_graphs, 3), math.nan))
    graphs.check(PoolNet())
    with pytest.raises(FloatingPointError, match="a logit is not a number after epoch 2"):
        graphs.evaluate(PoolNet(), 2)


def test_what_the_task_is_known_by():
    def identity(graphs=GRAPHS, **options):
        made = task(graphs, **options)
        made.check(PoolNet())
        return {name: str(value) for name, value in made.identity().items()}

    assert identity() == identity(copy.deepcopy(GRAPHS))
    for other in (
        identity(batch_size=6),
        identity(split={**SPLIT, "val": torch.arange(24, 31)}),
        identity([*GRAPHS[:3], GRAPHS[4], *GRAPHS[4:]]),
    ):
        assert other != identity()
    graphs = copy.deepcopy(GRAPHS)
    graphs[0].x[0, 0] += 1
    assert identity(graphs) != identity()
