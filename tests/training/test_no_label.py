"""Nodes and graphs without a label have no part in loss or metric: all is as if they were in no part of the split."""

import copy
import math

import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.nn import GCN, global_add_pool

from graphsparse.datasets.split import stratified_split
from graphsparse.loader import make_loader
from graphsparse.metrics import accuracy, expected_calibration_error
from graphsparse.soups import Evaluator, diagnose, ensemble, learned_soup
from graphsparse.testing import random_graph
from graphsparse.tickets import Distillation, Untrained, find_ticket
from graphsparse.training import GraphTask, NodeTask, Training, build_model, fit

PARTS = ("train_mask", "val_mask", "test_mask")


def gone():
    return torch.arange(60) % 7 < 2  # in every part


def two_graphs(none):
    """A graph with unlabelled nodes, and one in which these are in no part."""
    first, second = random_graph(), random_graph()
    if math.isnan(none):
        for data in (first, second):
            data.y = torch.stack([data.y == 0, data.y == 1], 1).float()
    first.y[gone()] = none
    for key in PARTS:
        second[key] = second[key] & ~gone()
    return first, second


def gcn(width=3):
    return build_model(lambda: GCN(8, 16, 2, width, dropout=0.3), 0)


def same(first, second):
    assert first.history == second.history
    assert (first.val, first.test, first.train) == (second.val, second.test, second.train)
    assert torch.equal(first.logits, second.logits)


OPTIONS = {
    "classes, OGB": (-1, {}),
    "classes, PyTorch": (-100, {}),
    "questions": (math.nan, {"target": "binary"}),
    "numbers": (math.nan, {"target": "regression"}),
    "own metric": (-1, {"metric": lambda logits, y: float((logits.argmax(1) == y).double().mean())}),
    "batches": (-1, {"loader": "list"}),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_nodes(name):
    none, options = OPTIONS[name]
    results = []
    for data in two_graphs(none):
        given = {**options, "loader": [data, random_graph(seed=1)]} if "loader" in options else options
        results.append(fit(gcn(2 if math.isnan(none) else 3), NodeTask(data, **given), epochs=4))
    same(*results)


def test_inductive_nodes_are_hidden_with_and_without_a_label():
    data, _ = two_graphs(-1)
    task = NodeTask(data, inductive=True)
    assert task.data.num_nodes == 20
    result = fit(gcn(), task, epochs=3)
    assert result.test == accuracy(result.logits, data.y, data.test_mask & ~gone())


def test_the_weights_of_a_sampler_are_those_of_labelled_nodes():
    batches = [
        list(make_loader("saint_rw", data, seed=0, roots=20, walk_length=2))
        for data in two_graphs(-1)
        if data.update({"edge_weight": torch.ones(data.num_edges)}) is None or True
    ]
    for ours, theirs in zip(*batches, strict=True):
        assert torch.equal(ours.loss_weight, theirs.loss_weight)


@pytest.mark.parametrize("none", [-1.0, -100.0, math.nan])
@pytest.mark.parametrize("two_columns", [False, True])
def test_graphs(none, two_columns):
    graphs, index = [], torch.arange(30)
    for i in range(30):
        x = torch.randn(5, 4, generator=torch.Generator().manual_seed(i))
        y = torch.tensor([[float(i % 3)]]) if two_columns else torch.tensor([float(i % 3)])
        graphs.append(Data(x=x + i % 3, edge_index=torch.tensor([[0, 1], [1, 0]]), y=y))
    bad = copy.deepcopy(graphs)
    for i in range(0, 30, 5):
        bad[i].y.fill_(none)

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = GCN(4, 8, 1, 3)

        def forward(self, x, edge_index, batch):
            return global_add_pool(self.conv(x, edge_index), batch)

    results = []
    for given, keep in ((bad, index < 30), (graphs, index % 5 > 0)):
        split = {
            "train": index[(index < 10) & (keep | (given is graphs))],
            "val": index[(index >= 10) & (index < 20) & keep],
            "test": index[(index >= 20) & keep],
        }
        model = build_model(Net, 0)
        results.append(
            fit(model, GraphTask(given, split=split, target="multiclass"), epochs=1, lr=0.0, weight_decay=0.0)
        )
    assert (results[0].val, results[0].test) == (results[1].val, results[1].test)
    task = GraphTask(bad, split={"train": index, "val": index}, target="multiclass", batch_size=30)
    model = build_model(Net, 0)
    task.check(model)
    (batch,) = task.batches()
    known = batch.y.view(-1).nan_to_num(-1) >= 0
    expected = torch.nn.functional.cross_entropy(
        model(batch.x, batch.edge_index, batch.batch)[known], batch.y.view(-1)[known].long()
    )
    assert float(task.loss(model, batch, None)) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("nodes", ["train", "observed"])
@pytest.mark.parametrize("method", ["teddy", "random", "magnitude", Untrained(epochs=2)])
def test_tickets(method, nodes):
    tickets = []
    for data in two_graphs(-1):
        options = {"distillation": Distillation(nodes=nodes)} if method == "teddy" else {}
        if nodes == "observed" and (method != "teddy" or data.y.min() == 0):
            continue
        tickets.append(
            find_ticket(
                lambda: GCN(8, 16, 2, 3),
                data,
                weight_sparsity=0.5,
                method=method,
                training=Training(epochs=3),
                **options,
            )
        )
    assert all(ticket.metrics == tickets[0].metrics for ticket in tickets)


def test_soups():
    first, second = two_graphs(-1)
    states = [build_model(lambda: GCN(8, 16, 2, 3), seed).state_dict() for seed in range(2)]
    found = []
    for data in (first, second):
        evaluator = Evaluator(GCN(8, 16, 2, 3), data)
        assert evaluator.num_nodes == int((data.val_mask & ~gone()).sum())
        diagnosis = diagnose(states, evaluator, barrier=math.inf, angle=math.inf)
        soup = learned_soup(states, evaluator, epochs=3)
        found.append((ensemble(states, evaluator).score, diagnosis.losses, soup.val, soup.trace))
    assert found[0] == found[1]
    questions = [Evaluator(GCN(8, 16, 2, 2), data, metric=lambda z, y: float(y.sum())) for data in two_graphs(math.nan)]
    assert questions[0].y.shape == questions[1].y.shape
    assert torch.equal(questions[0].y, questions[1].y)


def test_metrics():
    logits, y = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)), torch.arange(50) % 3
    y[::4], y[1::8] = -1, -100
    for metric in (accuracy, expected_calibration_error):
        assert metric(logits, y) == metric(logits[y >= 0], y[y >= 0])
        for wrong, message in ((-2, "run from -2 to 2"), (3, "run from 0 to 3, but the model returns 3 classes")):
            with pytest.raises(ValueError, match=message):
                metric(logits, torch.where(torch.arange(50) == 7, wrong, y))
        with pytest.raises(ValueError, match="the labels in 'y' hold no label"):
            metric(logits, torch.full((50,), -1))


def test_splits():
    y = torch.arange(100) % 4
    y[::3] = -1
    parts = stratified_split(y)
    assert torch.equal(parts[0] | parts[1] | parts[2], y >= 0)
    sizes = [[int((y[part] == c).sum()) for c in range(4)] for part in parts]
    for part, share in zip(sizes, (0.6, 0.2, 0.2), strict=True):
        assert all(abs(size - share * int((y == c).sum())) <= 1 for c, size in enumerate(part))


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("value", [-1, -100, -2, 3])
def test_what_is_refused(part, value):
    data = random_graph()
    data.y[data[part]] = value
    message = "marks no labelled node" if value in (-1, -100) else f"run from {value} to {value}"
    with pytest.raises(ValueError, match=f"'data.{part}' {message}"):
        fit(gcn(), data, epochs=1)


def test_minus_one_as_a_class_of_two():
    """Left out, one class would be left, and every model would be right."""
    data = random_graph()
    data.y = torch.where(data.y == 0, -1, 1)
    with pytest.raises(ValueError, match="labels of 'data.train_mask' are 1 and -1 alone"):
        fit(gcn(2), data, epochs=1)
    with pytest.raises(ValueError, match="are 1 and -1 alone"):
        Evaluator(GCN(8, 16, 2, 2), data)
