"""Training on whole graphs, compared with loops written down once more."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from graph_models import MoleculeNet, PoolNet, random_graphs
from resuming import Kill, assert_same_result, kill_in, no_kill, same_state
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn import GCN

from graphsparse.datasets import load_ogb
from graphsparse.nn import Supermask
from graphsparse.training import build_model, fit

SPLIT = {"train": torch.arange(24), "val": torch.arange(24, 32), "test": torch.arange(32, 40)}
GRAPHS = random_graphs()


def net(dropout=0.3, num_outputs=3):
    return build_model(lambda: PoolNet(dropout=dropout, num_outputs=num_outputs), 0)


def run(model=None, graphs=GRAPHS, **options):
    defaults = {
        "split": SPLIT,
        "target": "binary",
        "epochs": 6,
        "batch_size": 8,
        "lr": 0.02,
        "weight_decay": 0.0,
        "seed": 3,
    }
    return fit(net() if model is None else model, graphs, **{**defaults, **options})


@pytest.fixture(scope="module")
def molecules(data_root):
    return load_ogb("ogbg-molbace", data_root / "ogb")


@pytest.fixture(scope="module")
def solubilities(data_root):
    return load_ogb("ogbg-molesol", data_root / "ogb")


def first(split, train=200, rest=152):
    """The first graphs of every part."""
    return {part: index[: train if part == "train" else rest] for part, index in split.items()}


def by_hand(model, dataset, split, loss, epochs, batch_size, lr, seed):
    """What every example of OGB does: the losses of every epoch, and the logits of all parts after it."""
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, fused=True)
    losses, outputs = [], []
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        loader = DataLoader([dataset[int(i)] for i in split["train"]], batch_size=batch_size, shuffle=True)
        for _ in range(epochs):
            model.train()
            steps = []
            for batch in loader:
                optimizer.zero_grad()
                value = loss(model(batch.x, batch.edge_index, batch.edge_attr, batch.batch), batch.y)
                value.backward()
                optimizer.step()
                steps.append(float(value.detach()))
            losses.append(float(np.mean(steps)))
            model.eval()
            with torch.no_grad():
                outputs.append({})
                for part, index in split.items():
                    batch = Batch.from_data_list([dataset[int(i)] for i in index])
                    logits = model(batch.x, batch.edge_index, batch.edge_attr, batch.batch)
                    outputs[-1][part] = (batch.y.numpy(), logits.numpy())
    return losses, outputs


def masked_bce(logits, y):
    y = y.float()
    return F.binary_cross_entropy_with_logits(logits[y == y], y[y == y])


def test_binary_labels_of_real_molecules_equal_a_loop_by_hand(molecules):
    from sklearn.metrics import roc_auc_score

    dataset, evaluator = molecules
    split = first({"train": dataset.get_idx_split()["train"], "val": dataset.get_idx_split()["valid"]} | {
        "test": dataset.get_idx_split()["test"]
    })  # fmt: skip
    options = {"epochs": 5, "batch_size": 64, "lr": 0.01, "weight_decay": 0.0, "seed": 5}
    hand = {name: value for name, value in options.items() if name != "weight_decay"}
    losses, outputs = by_hand(build_model(MoleculeNet, 0), dataset, split, masked_bce, **hand)
    curve = [roc_auc_score(*(a[:, 0] for a in epoch["val"])) for epoch in outputs]
    model = build_model(MoleculeNet, 0)
    result = fit(model, dataset, split=split, metric=evaluator, **options)
    assert [row["loss"] for row in result.history] == pytest.approx(losses, rel=1e-5)
    assert [row["val"] for row in result.history] == pytest.approx(curve, abs=1e-9)
    best = int(np.argmax(curve))
    assert result.best_epoch == best
    for part in ("train", "val", "test"):
        y, logits = outputs[best][part]
        assert getattr(result, part) == pytest.approx(roc_auc_score(y[:, 0], logits[:, 0]), abs=1e-9)
        torch.testing.assert_close(result.logits[split[part]], torch.from_numpy(logits), rtol=1e-4, atol=1e-4)
    assert same_state(result.state_dict, model.state_dict())
    # Without OGB's evaluator, the metric is our own.
    again = fit(build_model(MoleculeNet, 0), dataset, split=split, **options)
    assert [row["val"] for row in again.history] == pytest.approx(curve, abs=1e-12)


def test_numbers_of_real_molecules_less_is_better(solubilities):
    dataset, evaluator = solubilities
    split = first(dataset.get_idx_split(), 200, 60)
    split["val"] = split.pop("valid")
    options = {"epochs": 5, "batch_size": 50, "lr": 0.01, "weight_decay": 0.0, "seed": 5}
    hand = {name: value for name, value in options.items() if name != "weight_decay"}
    losses, outputs = by_hand(build_model(MoleculeNet, 0), dataset, split, F.mse_loss, **hand)
    curve = [float(np.sqrt(np.mean((epoch["val"][0] - epoch["val"][1]) ** 2))) for epoch in outputs]
    result = fit(build_model(MoleculeNet, 0), dataset, split=split, metric=evaluator, **options)
    assert [row["loss"] for row in result.history] == pytest.approx(losses, rel=1e-4)
    assert [row["val"] for row in result.history] == pytest.approx(curve, rel=1e-4)
    best = int(np.argmin(curve))
    assert result.best_epoch == best != int(np.argmax(curve))
    y, logits = outputs[best]["test"]
    assert result.test == pytest.approx(float(np.sqrt(np.mean((y - logits) ** 2))), rel=1e-4)
    own = fit(build_model(MoleculeNet, 0), dataset, split=split, **options)
    assert [row["val"] for row in own.history] == pytest.approx(curve, rel=1e-4)
    assert own.best_epoch == best


@pytest.mark.bands
def test_molecules_are_learned_and_the_official_split_is_taken(molecules):
    dataset, evaluator = molecules
    result = fit(
        build_model(MoleculeNet, 0), dataset, metric=evaluator, epochs=4, batch_size=64, lr=0.005, weight_decay=0.0
    )
    assert result.train > 0.72  # chance is 0.5
    assert not result.logits.isnan().any()
    split = dataset.get_idx_split()
    y = torch.cat([dataset[int(i)].y for i in split["test"]])
    pred = result.logits[split["test"]]
    assert result.test == evaluator.eval({"y_true": y, "y_pred": pred})["rocauc"]


def test_a_supermask_over_embeddings_is_trained(molecules):
    dataset, evaluator = molecules
    split = first(dataset.get_idx_split(), 128, 152)
    model = Supermask(MoleculeNet(dropout=0.0), 0.5, seed=1, total_steps=8)
    before = model.scores.detach().clone()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    result = fit(
        model,
        dataset,
        split=split,
        metric=evaluator,
        epochs=4,
        batch_size=64,
        optimizer=optimizer,
        after_step=[lambda model, epoch: model.step()],
    )
    assert result.state_dict["steps_done"] == 2 * (result.best_epoch + 1)
    assert not torch.equal(before, model.scores)
    assert (
        result.val
        == evaluator.eval(
            {
                "y_true": torch.cat([dataset[int(i)].y for i in split["valid"]]),
                "y_pred": result.logits[split["valid"]],
            }
        )["rocauc"]
    )


# Labels and losses.


def test_labels_that_are_not_known_have_no_part_in_it():
    """What stands in a label that is not known, and what the model says there, changes nothing."""
    model, reference = net(dropout=0.0), net(dropout=0.0)
    result = run(model, batch_size=24, epochs=1, metric=lambda *_: 1.0, optimizer=sgd(model))
    batch = Batch.from_data_list(GRAPHS[:24])
    logits = reference(batch.x, batch.edge_index, batch.batch)
    terms = [
        float(F.binary_cross_entropy_with_logits(z, y).detach())
        for z, y in zip(logits.view(-1), batch.y.view(-1), strict=True)
        if not math.isnan(y)
    ]
    assert len(terms) == 48
    assert result.history[0]["loss"] == pytest.approx(np.mean(terms), rel=1e-5)


def sgd(model, lr=0.0):
    return torch.optim.SGD(model.parameters(), lr=lr)


@pytest.mark.parametrize("labels", ["binary", "multiclass", "regression"])
def test_every_kind_of_label_is_learned(labels):
    graphs = random_graphs(120, seed=1, labels=labels)
    split = {"train": range(60), "val": list(range(60, 90)), "test": np.arange(90, 120)}
    model = build_model(lambda: PoolNet(num_outputs={"binary": 3, "multiclass": 2, "regression": 2}[labels]), 0)
    result = fit(model, graphs, split=split, target=labels, epochs=30, lr=0.02)
    if labels == "regression":
        targets = torch.cat([graph.y for graph in graphs])
        assert result.test < 0.7 * float(targets[90:].std())
        error = (result.logits[90:] - targets[90:]).double()
        assert result.test == pytest.approx(float(error.square().mean(0).sqrt().mean()), rel=1e-6)
        assert result.val == min(row["val"] for row in result.history)
    else:
        assert result.test > 0.85
        assert result.val == max(row["val"] for row in result.history)
    if labels == "multiclass":
        y = torch.cat([graph.y for graph in graphs])
        for part, index in (("train", slice(60)), ("val", slice(60, 90)), ("test", slice(90, 120))):
            hits = result.logits[index].argmax(1) == y[index]
            assert getattr(result, part) == pytest.approx(float(hits.double().mean()))


def test_own_metric_and_its_direction():
    values = [0.3, 0.1, 0.2, 0.1, 0.4, 0.3]
    for maximize, best in ((None, 4), (True, 4), (False, 1)):
        rest = iter([*values, 0.0, 0.0])
        result = run(metric=lambda *_, rest=rest: next(rest), maximize=maximize)
        assert (result.best_epoch, result.val) == (best, values[best])


def test_a_batch_without_labels_is_passed_over():
    graphs = copy.deepcopy(GRAPHS)
    for graph in graphs[:8]:
        graph.y.fill_(math.nan)
    steps = []
    order = {"train": torch.arange(8), "val": SPLIT["val"]}
    with pytest.raises(ValueError, match=r"'split\['train'\]' marks no labelled graph: all have the label NaN"):
        run(graphs=graphs, split=order)
    order["train"] = torch.arange(16)
    run(graphs=graphs, split=order, epochs=8, batch_size=4, after_step=[lambda *_: steps.append(1)])
    assert 16 <= len(steps) <= 32


def test_extra_loss():
    seen = []

    def extra(logits, batch, epoch):
        seen.append((logits.shape, batch.num_graphs, epoch))
        return logits.square().mean()

    result = run(extra_loss=extra, epochs=2, batch_size=12)
    assert seen == [((12, 3), 12, 0)] * 2 + [((12, 3), 12, 1)] * 2
    assert result.history[0]["loss"] > run(epochs=2, batch_size=12).history[0]["loss"]


# Batches.


@pytest.mark.parametrize(("num", "sizes"), [(24, [8, 8, 8]), (17, [8, 9]), (10, [2, 8]), (9, [9]), (5, [5])])
def test_no_batch_of_one_graph(num, sizes):
    """Batch normalisation over graphs fails on one graph; here one is left over from 17 and from 9."""
    seen = []
    split = {**SPLIT, "train": torch.arange(num)}
    run(split=split, epochs=1, extra_loss=lambda z, batch, _: seen.append(batch.num_graphs) or 0 * z.sum())
    assert sorted(seen) == sizes


def test_one_training_graph_and_batch_normalisation_is_an_error_of_torch():
    with pytest.raises(ValueError, match="Expected more than 1 value per channel when training"):
        run(split={**SPLIT, "train": [0]})


def test_test_labels_are_out_of_reach_while_training():
    results = []
    for poison in (None, 0.0, 1.0):
        graphs = copy.deepcopy(GRAPHS)
        for graph in graphs[32:]:
            if poison is not None:
                graph.y.fill_(poison)
        results.append(run(graphs=graphs))
    clean, zeros, ones = results
    for other in (zeros, ones):
        assert same_state(clean.state_dict, other.state_dict)
        assert clean.history == other.history
        assert torch.equal(clean.logits, other.logits)
        assert math.isnan(other.test)  # one answer only
    assert clean.test > 0.5


def test_test_labels_are_read_once_with_the_best_weights():
    calls = []

    def metric(logits, y):
        calls.append((logits, len(y)))
        return float(len(calls) == 3)

    result = run(metric=metric, epochs=5, split={**SPLIT, "test": torch.arange(33, 40)})
    assert [num for _, num in calls] == [8] * 5 + [24, 7]
    assert result.best_epoch == 2
    assert torch.equal(calls[-1][0], result.logits[33:])
    assert torch.equal(calls[2][0], result.logits[24:32])
    assert result.logits[32].isnan().all()  # in no part


def test_without_test_graphs():
    result = run(split={"train": SPLIT["train"], "valid": SPLIT["val"]})
    assert result.test is None
    assert result.logits[32:].isnan().all()
    assert not result.logits[:32].isnan().any()


def test_evaluation_has_no_part_in_the_training():
    often, rarely = run(), run(eval_every=3)
    assert [row["epoch"] for row in rarely.history] == [2, 5]
    assert rarely.history == [often.history[2], often.history[5]]


def test_seed_and_mode():
    model = net().eval()
    one, two, other = run(model, seed=1), run(seed=1), run(seed=2)
    assert not model.training
    assert_same_result(one, two)
    assert not same_state(one.state_dict, other.state_dict)


def test_the_generators_of_the_caller_are_left_alone():
    state = torch.get_rng_state()
    run()
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.cuda
def test_graphs_on_the_cpu_and_a_model_on_a_gpu(device):
    # In one batch: dropout on the CPU would draw from the generator that shuffles, and one on the device does not.
    # Without Adam: it makes steps of rounding errors, which are all that reaches a bias before batch normalisation.
    here, there = net(dropout=0.0), net(dropout=0.0).to(device)
    here, there = (
        run(model, epochs=3, batch_size=len(GRAPHS), optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
        for model in (here, there)
    )
    assert there.logits.device == device
    torch.testing.assert_close(there.logits.cpu(), here.logits, rtol=1e-3, atol=1e-4, equal_nan=True)
    assert there.test == pytest.approx(here.test, rel=1e-3)


# Killed and resumed.


@pytest.mark.parametrize("name", ["plain", "schedule", "less is better", "patience"])
def test_killed_and_resumed_is_like_undisturbed(name, tmp_path):
    graphs = random_graphs(labels="regression") if name == "less is better" else GRAPHS

    def train(hook=no_kill, **more):
        model = net(num_outputs=2 if name == "less is better" else 3)
        options = {"epochs": 7, "after_step": [hook], "graphs": graphs, "batch_size": 5, **more}
        options["target"] = "regression" if name == "less is better" else "binary"
        if name == "patience":
            options["patience"] = 2
        if name == "schedule":
            options["optimizer"] = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
            options["scheduler"] = torch.optim.lr_scheduler.CosineAnnealingLR(options["optimizer"], 7)
        return run(model, **options)

    whole, path = train(), tmp_path / "a.pt"
    for epoch in (1, 2):
        with pytest.raises(Kill):
            train(kill_in(epoch, 3), checkpoint=path, checkpoint_every=1)
        assert torch.load(path, weights_only=True)["epochs_run"] == epoch
    assert_same_result(whole, train(checkpoint=path, checkpoint_every=1))
    assert_same_result(whole, train(checkpoint=path))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 4}, "'batch_size' was 8 and is now 4"),
        ({"split": {**SPLIT, "train": torch.arange(23)}}, r"'split\['train'\]' was int64 \[24\]"),
        ({"graphs": random_graphs(seed=1)}, "'labels of 'train'' was"),
        ({"metric": lambda *_: 1.0, "maximize": False}, "'metric' was rocauc and is now"),
    ],
)
def test_the_file_of_another_training_is_refused(options, message, tmp_path):
    run(epochs=2, checkpoint=tmp_path / "a.pt")
    with pytest.raises(ValueError, match="belongs to another training: .*" + message):
        run(**{"epochs": 2, "checkpoint": tmp_path / "a.pt", **options})


# What goes wrong.


def changed(index, **values):
    graphs = copy.deepcopy(GRAPHS)
    for key, value in values.items():
        graphs[index][key] = value
    return graphs


class Output(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.net, self.function = net(), function

    def forward(self, x, edge_index, batch):
        return self.function(self.net(x, edge_index, batch))


EDGES = torch.tensor([[0, 99], [0, 0]])
BEFORE_TRAINING = {
    "no epochs": ({"epochs": 0}, ValueError, "'epochs' must be at least 1"),
    "batch size": ({"batch_size": 0}, ValueError, "'batch_size' must be at least 1"),
    "no split": ({"split": None}, ValueError, "'split' is needed: the data set has no get_idx_split"),
    "no target": ({"target": None}, ValueError, "'target' must be one of .*binary.*does not say it"),
    "unknown target": ({"target": "classes"}, ValueError, "'target' must be one of .*got 'classes'"),
    "wrong target": ({"target": "multiclass"}, ValueError, "labels of several classes must be one integer"),
    "metric": ({"metric": "ap"}, TypeError, "'metric' must be a function .got 'ap'"),
    "call": ({"call": "forward"}, TypeError, "'call' must be a function"),
    "hook": ({"after_step": len}, TypeError, "'after_step' must be a list of functions"),
    "graph": (
        {"graphs": [*GRAPHS[:30], None, *GRAPHS[31:]]},
        TypeError,
        r"'dataset\[30\]' must be .*Data .got NoneType",
    ),
    "NaN": ({"graphs": changed(2, x=GRAPHS[2].x * math.nan)}, ValueError, r"'dataset\[2\].x' holds NaN"),
    "edge": ({"graphs": changed(2, edge_index=EDGES)}, ValueError, r"'dataset\[2\].edge_index' holds the index 99"),
    "no edges": ({"graphs": changed(2, edge_index=None)}, ValueError, r"'dataset\[2\]' must hold 'edge_index'"),
    "no nodes": (
        {"graphs": changed(39, x=torch.ones(0, 4), edge_index=torch.empty(2, 0).long())},
        ValueError,
        r"'dataset\[39\]' is an empty graph",
    ),
    "no label": ({"graphs": changed(2, y=None)}, ValueError, r"'dataset\[2\].y' must hold labels"),
    "other label": ({"graphs": changed(2, y=torch.ones(1, 2))}, ValueError, r"'dataset\[2\].y' must hold 3 labels"),
    "no answer": ({"graphs": changed(2, y=torch.full((1, 3), 2.0))}, ValueError, "binary labels must be 0, 1 or NaN"),
    "narrow": ({"model": PoolNet(num_outputs=2)}, ValueError, r"one row of logits per graph, \[8, 3\] .got \[8, 2\]"),
    "rows": ({"model": Output(lambda z: z[1:])}, ValueError, r"one row of logits per graph, \[8, 3\] .got \[7, 3\]"),
    "flat": ({"model": Output(lambda z: z[:, 0])}, ValueError, r"one row of logits per graph"),
    "tuple": ({"model": Output(lambda z: (z,))}, TypeError, "must return a tensor of logits .got tuple"),
    "cached": ({"model": GCN(4, 16, 2, 3, cached=True)}, ValueError, "cached=True"),
    "no batch": ({"model": torch.nn.Bilinear(4, 4, 3)}, ValueError, "must take an argument named 'batch'"),
    "no module": ({"model": len}, TypeError, "'model' must be a torch.nn.Module"),
    "optimizer": ({"optimizer": sgd(net())}, ValueError, "no parameter of 'model'"),
    "folder": ({"checkpoint": "/"}, ValueError, "'checkpoint' must be a file"),
}


@pytest.mark.parametrize("name", BEFORE_TRAINING)
def test_bad_input_is_found_before_training_starts(name):
    options, error, message = BEFORE_TRAINING[name]
    steps = []
    options = {"after_step": [lambda *_: steps.append(1)], "log": lambda _: steps.append(2), **options}
    with pytest.raises(error, match=message):
        run(**options)
    assert not steps


def test_too_large_a_step_is_told_with_its_epoch():
    with pytest.raises(FloatingPointError, match="epoch [01]; a smaller 'lr' may help"):
        run(lr=1e30)


def test_labels_beyond_the_width_of_the_model():
    graphs = [Data(x=torch.ones(2, 4), edge_index=torch.zeros(2, 1).long(), y=torch.tensor([i % 4])) for i in range(40)]
    with pytest.raises(ValueError, match=r"labels of 'split\['train'\]' run from 0 to 3, but the model"):
        run(graphs=graphs, target="multiclass")
