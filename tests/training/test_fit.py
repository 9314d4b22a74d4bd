import copy
import itertools
import math
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torch_geometric.typing
from models import MODELS
from torch_geometric.data import Data, HeteroData
from torch_geometric.loader import DataLoader, NeighborLoader, RandomNodeLoader
from torch_geometric.nn import GCN
from torch_geometric.transforms import ToSparseTensor

from graphsparse.metrics import accuracy
from graphsparse.testing import random_graph
from graphsparse.training import Training, build_model, fit, predict

can_sample = torch_geometric.typing.WITH_PYG_LIB or torch_geometric.typing.WITH_TORCH_SPARSE
needs_sampler = pytest.mark.skipif(not can_sample, reason="NeighborLoader needs torch-sparse or pyg-lib")


def gcn(dropout=0.0, seed=0):
    return build_model(lambda: GCN(8, 16, 2, 3, dropout=dropout), seed)


def same(first, second):
    return all(torch.equal(first[name], second[name]) for name in first) and list(first) == list(second)


def weights(model):
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def scripted(*values):
    """A metric that gives these values on the validation nodes, one per epoch, and 0 elsewhere."""
    rest, calls = iter(values), itertools.count()  # validation nodes come first, then training nodes
    return lambda logits, y: next(rest, 0.0) if next(calls) % 2 == 0 else 0.0


@pytest.mark.parametrize("kind", MODELS)
def test_every_model_learns(kind):
    data, model = random_graph(300), build_model(MODELS[kind], 0)
    majority = data.y[data.test_mask].bincount().max() / data.test_mask.sum()
    result = fit(model, data, epochs=30)
    assert result.test > majority + 0.3
    assert same(result.state_dict, model.state_dict())
    # Every figure of the result is that of the weights that the model holds now.
    assert torch.equal(result.logits, predict(model, data))
    hits = result.logits.argmax(1) == data.y
    for name in ("train", "val", "test"):
        assert getattr(result, name) == pytest.approx(float(hits[data[f"{name}_mask"]].double().mean()))
    assert result.history[result.best_epoch]["val"] == result.val == max(row["val"] for row in result.history)
    assert result.history[result.best_epoch]["train"] == result.train
    assert [row["epoch"] for row in result.history] == list(range(30))


@pytest.mark.parametrize("extra", [False, True])
def test_equals_a_loop_written_by_hand(extra):
    data, model, by_hand = random_graph(), gcn(), gcn()
    optimizer = torch.optim.Adam(by_hand.parameters(), lr=0.02, weight_decay=1e-3, fused=True)
    losses = []
    for epoch in range(6):
        optimizer.zero_grad()
        logits = by_hand(data.x, data.edge_index)
        loss = F.cross_entropy(logits[data.train_mask], data.y[data.train_mask])
        if extra:
            loss = loss + epoch * logits.square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    result = fit(
        model,
        data,
        epochs=6,
        lr=0.02,
        weight_decay=1e-3,
        extra_loss=(lambda logits, batch, epoch: epoch * logits.square().mean()) if extra else None,
        metric=scripted(*range(6)),  # the last epoch is the best
    )
    assert same(result.state_dict, by_hand.state_dict())
    assert [row["loss"] for row in result.history] == losses


@pytest.mark.parametrize("kind", ["GCN", "BatchNorm and a tied weight"])
def test_best_epoch_is_that_of_a_replay_by_hand(kind):
    """Dropout, running statistics and the choice by validation accuracy, written down once more."""
    data, by_hand = random_graph(), build_model(MODELS[kind], 3)
    optimizer = torch.optim.Adam(by_hand.parameters(), lr=0.01, weight_decay=5e-4, fused=True)
    best, curve = None, []
    with torch.random.fork_rng():
        torch.manual_seed(5)
        for epoch in range(60):
            by_hand.train()
            optimizer.zero_grad()
            logits = by_hand(data.x, data.edge_index)
            F.cross_entropy(logits[data.train_mask], data.y[data.train_mask]).backward()
            optimizer.step()
            by_hand.eval()
            with torch.no_grad():
                logits = by_hand(data.x, data.edge_index)
            hits = (logits.argmax(1) == data.y).double()
            curve.append(float(hits[data.val_mask].mean()))
            if best is None or curve[-1] > curve[best[0]]:
                best = (epoch, weights(by_hand), logits, float(hits[data.test_mask].mean()))
    result = fit(build_model(MODELS[kind], 3), data, epochs=60, seed=5)
    assert [row["val"] for row in result.history] == pytest.approx(curve, abs=1e-12)
    assert result.best_epoch == best[0] < 59  # not the last one, so that there is something to restore
    assert same(result.state_dict, best[1])
    assert torch.equal(result.logits, best[2])
    assert result.test == pytest.approx(best[3], abs=1e-12)


def test_extra_loss_sees_the_training_logits_the_batch_and_the_epoch():
    data, seen = random_graph(), []

    def extra(logits, batch, epoch):
        seen.append((logits.requires_grad, logits.shape, batch is data, epoch))
        return 0 * logits.sum()

    result = fit(gcn(), data, epochs=3, extra_loss=extra)
    assert seen == [(True, (60, 3), True, epoch) for epoch in range(3)]
    assert same(result.state_dict, fit(gcn(), data, epochs=3).state_dict)


def test_given_optimizer_is_used():
    data, default, given, still = random_graph(), gcn(), gcn(), gcn()
    fit(default, data, epochs=4)
    optimizer = torch.optim.Adam(given.parameters(), lr=0.01, weight_decay=5e-4, fused=True)
    fit(given, data, epochs=4, lr=9.0, optimizer=optimizer)
    assert same(default.state_dict(), given.state_dict())
    fit(still, data, epochs=4, optimizer=torch.optim.SGD(still.parameters(), lr=0.0))
    assert same(still.state_dict(), gcn().state_dict())


def test_first_of_equal_epochs_wins_and_its_weights_are_kept():
    data, model, seen = random_graph(), gcn(), []
    result = fit(
        model,
        data,
        epochs=5,
        metric=scripted(0.1, 0.5, 0.4, 0.5, 0.5),
        after_step=[lambda model, epoch: seen.append((epoch, weights(model)))],
    )
    assert [epoch for epoch, _ in seen] == list(range(5))
    assert (result.best_epoch, result.val, result.epochs_run) == (1, 0.5, 5)
    assert same(result.state_dict, seen[1][1])
    assert same(model.state_dict(), seen[1][1])
    assert not same(seen[1][1], seen[4][1])


@pytest.mark.parametrize(("patience", "epochs_run"), [(1, 3), (2, 6), (3, 7), (None, 8)])
def test_patience(patience, epochs_run):
    values = (0.1, 0.3, 0.2, 0.4, 0.4, 0.4, 0.4, 0.4)
    result = fit(gcn(), random_graph(), epochs=8, metric=scripted(*values), patience=patience)
    assert result.epochs_run == epochs_run == len(result.history)


def test_evaluation_every_so_many_epochs_and_after_the_last():
    steps = []
    result = fit(gcn(), random_graph(), epochs=8, eval_every=3, after_step=[lambda _, epoch: steps.append(epoch)])
    assert [row["epoch"] for row in result.history] == [2, 5, 7]
    assert steps == list(range(8))


def test_test_mask_is_read_once_after_everything_else():
    data, calls = random_graph(), []

    data.y[data.test_mask] = 2 - data.y[data.test_mask]  # so that the labels tell the parts apart

    def metric(logits, y):
        parts = ("train", "val", "test")
        calls.append((next(name for name in parts if torch.equal(y, data.y[data[f"{name}_mask"]])), logits))
        return accuracy(logits, y)

    result = fit(gcn(), data, epochs=6, metric=metric)
    assert result.metric == "metric"
    assert [name for name, _ in calls] == ["val", "train"] * 6 + ["test"]
    assert torch.equal(calls[-1][1], result.logits[data.test_mask])


def test_test_labels_are_out_of_reach_while_training():
    results = []
    for poison in (None, 0, 1):
        data = random_graph()
        if poison is not None:
            data.y[data.test_mask] = poison
        results.append(fit(gcn(dropout=0.5), data, epochs=8))
    clean, zeros, ones = results
    for other in (zeros, ones):
        assert same(clean.state_dict, other.state_dict)
        assert clean.history == other.history
        assert clean.val == other.val
    assert len({found.test for found in results}) == 3
    data.y[data.test_mask] = 10**6
    with pytest.raises(ValueError, match="labels of 'data.test_mask' run from 1000000 .* the model returns 3"):
        fit(gcn(), data, epochs=8)
    assert clean.metric == "accuracy"


@pytest.mark.parametrize("mask", [None, torch.zeros(60, dtype=torch.bool)])
def test_without_test_nodes_there_is_no_test_accuracy(mask):
    data = random_graph()
    data.test_mask = mask
    assert fit(gcn(), data, epochs=2).test is None


def test_same_seed_same_bits():
    data = random_graph()
    first, second, other = (fit(gcn(dropout=0.5), data, epochs=6, seed=seed) for seed in (1, 1, 2))
    assert same(first.state_dict, second.state_dict)
    assert first.history == second.history
    assert torch.equal(first.logits, second.logits)
    assert not same(first.state_dict, other.state_dict)


def test_generators_of_the_caller_are_left_alone():
    def draw(train):
        torch.manual_seed(0)
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002 - the global state is what must not be touched
        if train:
            fit(Restless(), random_graph(), epochs=2)
        return torch.rand(3).tolist(), random.random(), np.random.rand()  # noqa: NPY002

    assert draw(train=True) == draw(train=False)


class Restless(torch.nn.Module):
    """Draws from every global generator, in evaluation mode too."""

    def __init__(self):
        super().__init__()
        self.net = gcn()

    def forward(self, x, edge_index):
        return self.net(x + torch.rand(1) + random.random() + np.random.rand(), edge_index)  # noqa: NPY002


def test_mode_is_that_of_before_and_training_happens_in_training_mode():
    data = random_graph()
    model, modes = MODELS["BatchNorm and a tied weight"](), []
    model.norm.eval()
    fit(model, data, epochs=2, after_step=[lambda model, _: modes.append((model.training, model.norm.training))])
    assert modes == [(True, True)] * 2
    assert (model.training, model.norm.training) == (True, False)
    fit(model.eval(), data, epochs=1)
    assert not model.training


def test_running_statistics_belong_to_the_best_epoch():
    data, model = random_graph(), MODELS["BatchNorm and a tied weight"]()
    result = fit(model, data, epochs=4, metric=scripted(0, 1, 0, 0))
    assert int(result.state_dict["norm.num_batches_tracked"]) == 2 == int(model.norm.num_batches_tracked)


def test_log_and_history():
    rows = []

    def log(row):
        rows.append(dict(row))
        row.clear()  # what a user does with a row does not matter

    result = fit(gcn(), random_graph(), epochs=3, log=log)
    assert rows == result.history
    assert set(rows[0]) == {"epoch", "loss", "train", "val"}


def test_progress_bar_only_when_asked_for(capfd):
    fit(gcn(), random_graph(), epochs=2)
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""
    fit(gcn(), random_graph(), epochs=2, progress=True)
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "2/2" in captured.err
    assert "val=" in captured.err


def test_sparse_features_give_the_same_model():
    data = random_graph()
    data.x = data.x * (data.x > 0.5)
    sparse = data.clone()
    sparse.x = data.x.to_sparse_csr()
    first, second = fit(gcn(), data, epochs=5), fit(gcn(), sparse, epochs=5)
    torch.testing.assert_close(second.logits, first.logits, rtol=1e-5, atol=1e-5)


def test_adj_t_gives_the_same_model():
    data = random_graph()
    adj_t = ToSparseTensor(layout=torch.sparse_csr)(data.clone())
    first, second = fit(gcn(), data, epochs=5), fit(gcn(), adj_t, epochs=5)
    torch.testing.assert_close(second.logits, first.logits, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not torch_geometric.typing.WITH_TORCH_SPARSE, reason="needs torch-sparse")
def test_sparse_tensor_gives_the_same_model():
    data = random_graph()
    first, second = fit(gcn(), data, epochs=5), fit(gcn(), ToSparseTensor()(data.clone()), epochs=5)
    torch.testing.assert_close(second.logits, first.logits, rtol=1e-5, atol=1e-5)


def test_inference_gives_the_logits_of_every_evaluation():
    data, calls = random_graph(), []

    def inference(model, graph):  # cares neither for the mode nor for gradients
        calls.append((model.training, torch.is_grad_enabled(), graph is data))
        return -model(graph.x, graph.edge_index)

    model = gcn(dropout=0.5)
    result = fit(model, data, epochs=4, inference=inference)
    assert calls == [(False, False, True)] * 5  # once before training
    assert torch.equal(result.logits, -predict(model, data))
    assert not result.logits.requires_grad
    assert model.training


def test_graph_that_batches_come_from_is_never_passed_through_as_a_whole():
    whole, sizes = random_graph(), []

    class Watching(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = gcn()

        def forward(self, x, edge_index):
            sizes.append(x.size(0))
            return self.net(x, edge_index)

    small = whole.subgraph(whole.val_mask)
    fit(Watching(), whole, epochs=2, loader=clusters(whole, 3), eval_data=small)
    assert sizes == [20] * 9  # twice three batches and an evaluation, and one more of these before
    layerwise = lambda model, graph: model.net(graph.x, graph.edge_index)  # noqa: E731
    sizes.clear()
    fit(Watching(), whole, epochs=2, loader=clusters(whole, 3), inference=layerwise)
    assert sizes == [20] * 6
    whole.y[whole.train_mask] = 3
    with pytest.raises(ValueError, match="labels of 'data.train_mask' run from 3 to 3"):
        fit(Watching(), whole, epochs=2, loader=clusters(whole, 3), eval_data=small)


def test_another_graph_to_evaluate_on():
    whole = random_graph()
    observed = whole.subgraph(whole.train_mask)
    model = gcn()
    result = fit(model, observed, epochs=5, eval_data=whole)
    assert result.logits.shape == (60, 3)
    assert torch.equal(result.logits, predict(model, whole))
    other = fit(gcn(), observed, epochs=5, eval_data=random_graph(seed=1))
    # The graph of the evaluation has no part in the training, only in the choice.
    assert [row["loss"] for row in other.history] == [row["loss"] for row in result.history]


def test_the_graph_of_the_evaluation_needs_no_training_nodes():
    whole = random_graph()
    hidden = copy.copy(whole)
    hidden.train_mask = None
    result = fit(gcn(), whole, epochs=2, eval_data=hidden)
    assert math.isnan(result.train)
    assert "train" not in result.history[0]


def test_graph_is_not_changed():
    data, before = random_graph(), random_graph()
    fit(gcn(), data, epochs=2, loader=[data])
    assert data.keys() == before.keys()
    for key in before.keys():  # noqa: SIM118 - iterating over Data gives pairs
        assert torch.equal(data[key], before[key])


# Mini-batches.


def test_a_list_of_the_whole_graph_is_full_batch():
    data = random_graph()
    assert same(fit(gcn(), data, epochs=4).state_dict, fit(gcn(), data, epochs=4, loader=[data]).state_dict)


def clusters(data, num):
    """Cut a graph like ClusterLoader: every part with its own edges, masks and labels."""
    part = torch.arange(data.num_nodes) * num // data.num_nodes
    return [data.subgraph(part == i) for i in range(num)]


def test_clusters():
    data, model, steps = random_graph(300), gcn(), []
    batches = clusters(data, 3)
    batches[1].train_mask = batches[1].train_mask & False  # nothing to learn from: passed over
    result = fit(model, data, epochs=20, loader=batches, after_step=[lambda _, epoch: steps.append(epoch)])
    assert steps == [epoch for epoch in range(20) for _ in range(2)]
    assert result.test > 0.7


def test_a_batch_without_training_nodes_may_have_the_extra_term():
    data, sizes = random_graph(), []
    batches = clusters(data, 3)
    batches[1].train_mask = batches[1].train_mask & False

    def extra(logits, batch, epoch):
        sizes.append(batch.num_nodes)
        return torch.zeros(()) if epoch == 0 else logits.square().mean()  # a constant has no gradient

    result = fit(gcn(), data, epochs=2, loader=batches, extra_loss=extra)
    assert sizes == [20] * 6
    assert all(math.isfinite(row["loss"]) for row in result.history)


def test_loss_of_an_epoch_is_the_mean_over_its_steps():
    data, batches = random_graph(), clusters(random_graph(), 2)
    model = gcn()
    expected = [
        float(F.cross_entropy(model(b.x, b.edge_index)[b.train_mask], b.y[b.train_mask]).detach()) for b in batches
    ]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    result = fit(model, data, epochs=1, loader=batches, optimizer=optimizer)
    assert result.history[0]["loss"] == pytest.approx(sum(expected) / 2)


def test_batches_are_moved_to_the_model_and_those_of_the_user_stay():
    moved = []

    class Batch(Data):
        def to(self, device):
            moved.append((self, device))
            return super().to(device)

    batch = Batch(**random_graph().to_dict())
    fit(gcn(), random_graph(), epochs=1, loader=[batch])
    ((copied, device),) = moved
    assert device == torch.device("cpu")
    assert copied is not batch


@pytest.mark.cuda
def test_training_on_a_gpu_with_batches_on_the_cpu(device):
    data = random_graph(300)
    whole = copy.copy(data).to(device)
    generators = torch.get_device_module(device)
    state = generators.get_rng_state(device)
    result = fit(gcn(dropout=0.2).to(device), whole, epochs=12, lr=0.03, loader=clusters(data, 3))
    assert torch.equal(generators.get_rng_state(device), state)
    assert result.logits.device == device
    assert result.test > 0.6


def test_random_node_loader():
    data = random_graph(300)
    first, second = (fit(gcn(), data, epochs=8, loader=RandomNodeLoader(data, 4, shuffle=True)) for _ in range(2))
    assert first.test > 0.6
    assert same(first.state_dict, second.state_dict)


def test_batch_of_several_graphs_counts_all_their_nodes():
    """A ``Batch`` calls its number of graphs ``batch_size``, which is something else than a number of seed nodes."""
    data, graphs = random_graph(), [random_graph(seed=1), random_graph(seed=2)]
    model, optimizer = gcn(), None
    expected = [F.cross_entropy(model(g.x, g.edge_index)[g.train_mask], g.y[g.train_mask]) for g in graphs]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    result = fit(model, data, epochs=1, loader=DataLoader(graphs, batch_size=2), optimizer=optimizer)
    assert result.history[0]["loss"] == pytest.approx(float(sum(expected).detach()) / 2, rel=1e-5)


@needs_sampler
def test_only_the_seeds_of_a_neighbor_loader_count():
    """With all neighbours of all layers a batch is exact, so training on it equals full batch on its seeds."""
    data = random_graph(200)
    seeds = data.train_mask & (torch.arange(200) % 2 == 0)  # the other half of the training nodes come as neighbours
    full = copy.copy(data)
    full.train_mask = seeds
    loader = NeighborLoader(data, [-1, -1], input_nodes=seeds, batch_size=200, shuffle=False)
    make = lambda: build_model(MODELS["GraphSAGE"], 0)  # noqa: E731
    batch = next(iter(loader))
    assert int(batch.train_mask.sum()) > int(batch.train_mask[: batch.batch_size].sum())
    expected, result = fit(make(), full, epochs=5, eval_data=data), fit(make(), data, epochs=5, loader=loader)
    assert [row["loss"] for row in result.history] == pytest.approx([row["loss"] for row in expected.history], rel=1e-4)
    torch.testing.assert_close(result.logits, expected.logits, rtol=1e-3, atol=1e-4)


@needs_sampler
def test_neighbor_loader_is_seeded():
    data = random_graph(200)

    def run(seed):
        loader = NeighborLoader(data, [3, 2], input_nodes=data.train_mask, batch_size=16, shuffle=True)
        return fit(gcn(), data, epochs=4, loader=loader, seed=seed)

    state = torch.get_rng_state()
    first, second, other = run(1), run(1), run(2)
    assert torch.equal(torch.get_rng_state(), state)
    assert same(first.state_dict, second.state_dict)
    assert not same(first.state_dict, other.state_dict)
    assert run(3).test > 0.5


# What goes wrong.


def poisoned_loss(logits, batch, epoch):
    return logits.sum() * (math.nan if epoch == 2 else 0.0)


def test_a_loss_that_is_not_finite_is_told_with_its_epoch():
    data, model, seen = random_graph(), gcn().eval(), []
    state = torch.get_rng_state()
    with pytest.raises(FloatingPointError, match="the loss is nan in epoch 2"):
        fit(model, data, epochs=5, extra_loss=poisoned_loss, after_step=[lambda model, _: seen.append(weights(model))])
    assert len(seen) == 2
    assert same(model.state_dict(), seen[-1])  # the last whole step
    assert not model.training
    assert torch.equal(torch.get_rng_state(), state)


def test_too_large_a_step_is_told_with_its_epoch():
    with pytest.raises(FloatingPointError, match="epoch 0; a smaller 'lr' may help"):
        fit(gcn(), random_graph(), epochs=1, lr=1e30)
    with pytest.raises(FloatingPointError, match="epoch 1; a smaller 'lr' may help"):
        fit(gcn(), random_graph(), epochs=9, lr=1e30, eval_every=9)


def test_an_interruption_leaves_the_last_step():
    data, model, seen = random_graph(), gcn(dropout=0.5), []
    counter = itertools.count()

    def interrupt(model, epoch):
        seen.append(weights(model))
        if next(counter) == 3:
            raise KeyboardInterrupt

    state = torch.get_rng_state()
    with pytest.raises(KeyboardInterrupt):
        fit(model, data, epochs=9, after_step=[interrupt])
    assert same(model.state_dict(), seen[-1])
    assert torch.equal(torch.get_rng_state(), state)


def test_a_metric_that_is_never_a_number():
    with pytest.raises(ValueError, match="'metric' gave no number on the validation nodes"):
        fit(gcn(), random_graph(), epochs=2, metric=lambda *_: math.nan)


def test_batches_that_cannot_be_trained_on():
    data = random_graph()
    nothing = copy.copy(data)
    nothing.train_mask = data.train_mask & False
    unmarked = copy.copy(data)
    unmarked.train_mask = None
    for loader, message in (
        ([nothing], "no batch of an epoch has a labelled node"),
        ([], "no batch of an epoch has a labelled node"),
        ([unmarked], "'loader' must give Data with a 'train_mask'"),
        ([(data.x, data.y)], "'loader' must give Data with a 'train_mask'"),
    ):
        with pytest.raises(ValueError, match=message):
            fit(gcn(), data, epochs=2, loader=loader)


@pytest.mark.parametrize("value", [1.0, torch.ones(2)])
def test_an_extra_term_that_is_no_scalar(value):
    with pytest.raises(ValueError, match="'extra_loss' must return a scalar tensor"):
        fit(gcn(), random_graph(), epochs=1, extra_loss=lambda *_: value)


def changed(**values):
    data = random_graph()
    for key, value in values.items():
        data[key] = value
    return data


class Output(torch.nn.Module):
    """Returns something else than logits."""

    def __init__(self, function):
        super().__init__()
        self.net, self.function = gcn(), function

    def forward(self, x, edge_index):
        return self.function(self.net(x, edge_index))


NO_NODE = torch.zeros(60, dtype=torch.bool)
BEFORE_TRAINING = {
    "no epochs": ({"epochs": 0}, ValueError, "'epochs' must be at least 1 .got 0"),
    "no patience": ({"patience": 0}, ValueError, "'patience' must be at least 1 .got 0"),
    "half an epoch": ({"epochs": 2.5}, TypeError, "'epochs' must be an integer .got 2.5 of type float"),
    "metric": ({"metric": "accuracy"}, TypeError, "'metric' must be a function .got 'accuracy'"),
    "inference": ({"inference": "full"}, TypeError, "'inference' must be a function .got 'full'"),
    "extra_loss": ({"extra_loss": 0.5}, TypeError, "'extra_loss' must be a function .got 0.5"),
    "log": ({"log": []}, TypeError, "'log' must be a function"),
    "one hook": ({"after_step": len}, TypeError, "'after_step' must be a list of functions"),
    "hooks": ({"after_step": [len, 3]}, TypeError, "'after_step' must be a function .got 3"),
    "learning rate": ({"lr": -1.0}, ValueError, "'lr' must .*-1.0"),
    "eval_every": ({"eval_every": -1}, ValueError, "'eval_every' must be at least 1 .got -1"),
    "no features": ({"task": changed(x=None)}, ValueError, "'data.x' must hold features"),
    "NaN": ({"task": changed(x=torch.full((60, 8), math.nan))}, ValueError, "'data.x' holds NaN or infinity"),
    "no training nodes": ({"task": changed(train_mask=NO_NODE)}, ValueError, "'data.train_mask' marks no node"),
    "no validation": ({"task": changed(val_mask=None)}, ValueError, "'data.val_mask' is missing"),
    "no validation nodes": ({"task": changed(val_mask=NO_NODE)}, ValueError, "'data.val_mask' marks no node"),
    "wrong test mask": ({"task": changed(test_mask=NO_NODE[1:])}, ValueError, "'data.test_mask' must be a bool mask"),
    "no graph": ({"task": None}, TypeError, "'data' must be a torch_geometric Data"),
    "bad other graph": ({"eval_data": changed(val_mask=None)}, ValueError, "'eval_data.val_mask' is missing"),
    "label too large": ({"task": changed(y=torch.full((60,), 3))}, ValueError, "run from 3 to 3.*returns 3 classes"),
    "label negative": ({"task": changed(y=torch.full((60,), -2))}, ValueError, "'data.train_mask' run from -2 to -2"),
    "label none": ({"task": changed(y=torch.full((60,), -1))}, ValueError, "'data.train_mask' marks no labelled node"),
    "edge": ({"task": changed(edge_index=torch.tensor([[0], [60]]))}, ValueError, "'data.edge_index' holds the index"),
    "no module": ({"model": len}, TypeError, "'model' must be a torch.nn.Module"),
    "lazy": ({"model": GCN(-1, 16, 2, 3)}, ValueError, "'model' is lazy.*initialise it with one forward pass"),
    "nothing to train": ({"model": gcn().requires_grad_(False)}, ValueError, "no parameter to train"),
    "narrow": ({"model": GCN(8, 16, 2, 2)}, ValueError, "the model returns 2 classes.*wrong width"),
    "rows": ({"model": Output(lambda z: z[1:])}, ValueError, "one row of logits per node"),
    "tuple": ({"model": Output(lambda z: (z, z))}, TypeError, "must return a tensor of logits .got tuple"),
    "optimizer": ({"optimizer": torch.optim.SGD(gcn().parameters())}, ValueError, "no parameter of 'model'"),
    "hetero": ({"task": HeteroData()}, ValueError, "'node_type' must be the node type with labels, one of ..*got None"),
    "misspelt": ({"epoch": 3}, TypeError, "fit.. takes no 'epoch': it knows .*'epochs'"),
    "twice": ({"training": Training(), "epochs": 3}, TypeError, "give .'epochs', 'log'. as fields of 'training'"),
    "no training": ({"training": 3}, TypeError, "'training' must be a Training .got int"),
    "projection": ({"project": 0.5}, TypeError, "'project' must be a function .got 0.5"),
    "generator": ({"loader": iter([random_graph()])}, TypeError, "'loader' is used up after one epoch"),
    "cached": ({"model": GCN(8, 16, 2, 3, cached=True), "loader": [random_graph()]}, ValueError, "cached=True"),
}


@pytest.mark.parametrize("name", BEFORE_TRAINING)
def test_bad_input_is_found_before_training_starts(name):
    options, error, message = BEFORE_TRAINING[name]
    steps = []
    hooks = {"after_step": [lambda *_: steps.append(1)], "log": lambda _: steps.append(2)}
    options = {"model": gcn(), "task": random_graph(), **hooks, **options}
    model = options["model"]
    before = copy.deepcopy(model)
    with pytest.raises(error, match=message):
        fit(**options)
    assert not steps
    if isinstance(model, torch.nn.Module) and name != "lazy":
        assert model.training
        assert same(model.state_dict(), before.state_dict())


def test_cached_layers_are_fine_on_one_graph():
    data = random_graph()
    cached = build_model(lambda: GCN(8, 16, 2, 3, cached=True), 0)
    torch.testing.assert_close(fit(cached, data, epochs=3).logits, fit(gcn(), data, epochs=3).logits)
