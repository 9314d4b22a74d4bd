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
from graphsparse.training import NodeTask, build_model, fit
from graphsparse.training.node_task import own_generators

task = NodeTask


def test_loss_evaluation_and_end():
    data, model = random_graph(), build_model(MODELS["GCN"], 0).eval()
    nodes = task(data)
    nodes.check(model)
    (batch,) = nodes.batches()
    assert batch is data
    logits = model(data.x, data.edge_index).detach()
    expected = F.cross_entropy(logits[data.train_mask], data.y[data.train_mask])
    assert torch.equal(nodes.loss(model, batch, None).detach(), expected)
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
    assert task(data).loss(GCN(8, 16, 2, 3), data, None) is None
    assert task(data).loss(GCN(8, 16, 2, 3), data, lambda logits: logits.square().sum()) > 0


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
    plain = task(data).loss(model, data, None).detach()
    logits = model(data.x, data.edge_index).detach()
    weight = torch.rand(60, generator=torch.Generator().manual_seed(0))
    each = F.cross_entropy(logits, data.y, reduction="none")
    data.loss_weight = weight
    expected = sum(float(weight[i] * each[i]) for i in range(60) if data.train_mask[i])
    assert float(task(data).loss(model, data, None).detach()) == pytest.approx(expected, rel=1e-5)
    data.batch_size = 30
    expected = sum(float(weight[i] * each[i]) for i in range(30) if data.train_mask[i])
    assert float(task(data).loss(model, data, None).detach()) == pytest.approx(expected, rel=1e-5)
    del data.batch_size
    data.loss_weight = torch.full((60,), 1 / 20)  # of 20 training nodes: their mean
    torch.testing.assert_close(task(data).loss(model, data, None).detach(), plain)
    for wrong in (torch.ones(59), 3.0):
        data.loss_weight = wrong
        with pytest.raises(ValueError, match=r"'loss_weight' of a batch must hold one weight per node, \[60\]"):
            task(data).loss(model, data, None)


def test_a_loader_may_ask_for_a_model_that_sums():
    class Weighted(list):
        needs_weighted_sums = True

    data = random_graph()
    with pytest.raises(ValueError, match="normalises the weights again"):
        task(data, loader=Weighted([data])).check(GCN(8, 16, 2, 3))
    task(data, loader=Weighted([data])).check(GCN(8, 16, 2, 3, normalize=False))


def test_inductive_hides_validation_and_test_nodes():
    data = random_graph()
    seen = []

    class Watching(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = build_model(MODELS["GCN"], 0)

        def forward(self, x, edge_index):
            seen.append((x.size(0), self.training))
            return self.net(x, edge_index)

    result = fit(Watching(), NodeTask(data, inductive=True), epochs=3)
    assert {size for size, training in seen if training} == {20}  # 40 of 60 are hidden
    assert result.logits.shape == (60, 3)
    observed = data.subgraph(data.train_mask)
    by_hand = fit(Watching(), observed, eval_data=data, epochs=3)
    assert torch.equal(result.logits, by_hand.logits)
    sparse = data.clone()
    sparse.x = (data.x * (data.x > 0)).to_sparse_csr()
    expected = fit(Watching(), NodeTask(data.clone().update({"x": data.x * (data.x > 0)}), inductive=True), epochs=3)
    torch.testing.assert_close(fit(Watching(), NodeTask(sparse, inductive=True), epochs=3).logits, expected.logits)
    for wrong in ({"eval_data": data}, {"loader": [data]}):
        with pytest.raises(ValueError, match="'inductive' makes the training graph from 'data'"):
            NodeTask(data, inductive=True, **wrong)


def test_without_test_nodes():
    data = random_graph()
    hidden = NodeTask(data).without_test()
    assert "test_mask" in data
    assert (hidden.eval_data.y[data.test_mask] == -1).all()
    seen = data.train_mask | data.val_mask
    assert torch.equal(hidden.eval_data.y[seen], data.y[seen])
    assert (data.y >= 0).all()
    assert fit(GCN(8, 16, 2, 3), hidden, epochs=2).test is None
    other = NodeTask(data, eval_data=random_graph(seed=1)).without_test()
    assert fit(GCN(8, 16, 2, 3), other, epochs=2).test is None


@pytest.mark.parametrize("target", ["binary", "regression"])
def test_several_labels_per_node(target):
    data = random_graph(200)
    y = torch.stack([data.y == 0, data.y == 1], 1).float()
    y[::7, 0] = math.nan  # not known
    data.y = y if target == "binary" else y * 2 - 0.5
    model = GCN(8, 32, 2, 2)
    result = fit(model, NodeTask(data, target=target), epochs=60)
    rows = data.test_mask
    if target == "binary":
        from sklearn.metrics import roc_auc_score

        known = [(~y[rows, k].isnan()).numpy() for k in range(2)]
        pairs = [(y[rows, k].numpy()[m], result.logits[rows, k].numpy()[m]) for k, m in enumerate(known)]
        assert result.test == pytest.approx(sum(roc_auc_score(*pair) for pair in pairs) / 2, abs=1e-9)
        assert (result.metric, result.test > 0.8) == ("rocauc", True)
    else:
        square = (result.logits[rows].double() - data.y[rows].double()).square()
        assert result.test == pytest.approx(float(square.nanmean(0).sqrt().mean()), rel=1e-9)
        assert result.val == min(row["val"] for row in result.history)
    with pytest.raises(ValueError, match="'data.y' holds 2 labels per node, but the model returns 3 numbers"):
        fit(GCN(8, 16, 2, 3), NodeTask(data, target=target), epochs=1)


def test_another_signature():
    class OfData(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = build_model(MODELS["GCN"], 0)

        def forward(self, data):
            return self.net(data.x, data.edge_index)

    with pytest.raises(ValueError, match="must be called as model.x, edge_index.*takes .'data'.*give 'call'"):
        fit(OfData(), random_graph(), epochs=1)
    found = fit(OfData(), NodeTask(random_graph(), call=lambda model, data: model(data)), epochs=3)
    assert torch.equal(found.logits, fit(build_model(MODELS["GCN"], 0), random_graph(), epochs=3).logits)
