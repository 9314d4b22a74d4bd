"""A training that was killed ends like one that was not, whatever is trained and wherever it was killed."""

import copy
import itertools
import random
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from models import MODELS
from resuming import Kill, assert_same_result, kill_in, no_kill, same_state
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LambdaLR,
    LinearLR,
    MultiStepLR,
    OneCycleLR,
    SequentialLR,
)
from torch_geometric.loader import DataLoader, RandomNodeLoader
from torch_geometric.nn import GCN

from graphsparse.nn import Supermask
from graphsparse.testing import random_graph
from graphsparse.training import FixedMask, L0Projection, build_model, fit

DATA = random_graph()
EPOCHS = 9


def warm_up(optimizer):
    return SequentialLR(optimizer, [LinearLR(optimizer, 0.1, 1.0, 3), CosineAnnealingLR(optimizer, 6)], [3])


def adam(model):
    return torch.optim.Adam(model.parameters(), lr=0.02, weight_decay=5e-4)


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)


def with_l0(model):
    optimizer = adam(model)
    L0Projection(optimizer, 0.5)
    return optimizer


def with_mask(model):
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02, amsgrad=True)
    FixedMask(optimizer, 0.5)
    return optimizer


def supermask():
    return Supermask(GCN(8, 16, 2, 3, dropout=0.2), 0.8, seed=3, total_steps=EPOCHS)


class Restless(torch.nn.Module):
    """Draws from every global generator, in training and in evaluation."""

    def __init__(self):
        super().__init__()
        self.net = GCN(8, 16, 2, 3)

    def forward(self, x, edge_index):
        return self.net(x + torch.rand(1) + random.random() + np.random.normal(), edge_index)  # noqa: NPY002


def steady():
    model = MODELS["GraphSAGE"]()
    model.trains_as_it_evaluates = True
    return model


def shuffled(generator=None):
    graphs = [random_graph(seed=seed) for seed in range(5)]
    return DataLoader(graphs, batch_size=2, shuffle=True, generator=generator)


# model, optimiser, schedule, and what else there is to say
CASES = {
    "dropout": (MODELS["GCN"], adam, None, {}),
    "running statistics, a tied weight, momentum, cosine": (
        MODELS["BatchNorm and a tied weight"],
        sgd,
        lambda optimizer: CosineAnnealingLR(optimizer, EPOCHS),
        {},
    ),
    "supermask": (supermask, adam, None, {"step": True}),
    "one pass for evaluation and next step": (steady, adam, None, {}),
    "projection": (MODELS["GAT"], with_l0, None, {}),
    "fixed mask, a warm-up": (MODELS["GraphSAGE"], with_mask, warm_up, {}),
    "steps": (MODELS["GCN"], sgd, lambda optimizer: MultiStepLR(optimizer, [2, 5]), {}),
    "momentum on a schedule": (MODELS["GCN"], sgd, lambda o: OneCycleLR(o, 0.3, total_steps=EPOCHS + 1), {}),
    "function": (MODELS["GCN"], adam, lambda optimizer: LambdaLR(optimizer, lambda epoch: 0.9**epoch), {}),
    "every generator": (Restless, adam, None, {}),
    "shuffled batches": (MODELS["GCN"], adam, None, {"loader": shuffled}),
    "random batches": (MODELS["GCN"], adam, None, {"loader": lambda: RandomNodeLoader(DATA, 3, shuffle=True)}),
    "a loader with its own generator": (
        MODELS["GCN"],
        adam,
        None,
        {"loader": lambda: shuffled(torch.Generator().manual_seed(7))},
    ),
    "rare evaluations": (MODELS["GCN"], adam, None, {"eval_every": 4}),
    "patience": (MODELS["GCN"], sgd, None, {"patience": 2}),
}


def train(case, checkpoint=None, every=None, hook=no_kill, **more):
    """Train everything afresh, as a new process would."""
    make_model, make_optimizer, make_schedule, options = CASES[case]
    options = {**options, **more}
    model = build_model(make_model, 0)
    hooks = [hook, lambda model, epoch: model.step()] if options.pop("step", False) else [hook]
    optimizer = make_optimizer(model)
    if "loader" in options:
        options["loader"] = options["loader"]()
    if make_schedule is not None:
        options["scheduler"] = make_schedule(optimizer)
    result = fit(
        model,
        DATA,
        epochs=EPOCHS,
        optimizer=optimizer,
        after_step=hooks,
        checkpoint=checkpoint,
        checkpoint_every=every,
        seed=4,
        **options,
    )
    assert same_state(result.state_dict, model.state_dict())
    return result


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
@pytest.mark.filterwarnings("ignore:The epoch parameter in `scheduler.step")
@pytest.mark.parametrize("case", CASES)
def test_killed_and_resumed_is_like_undisturbed(case, tmp_path):
    whole = train(case)
    steps = 2 if "batches" in case or "loader" in case else 1
    for every, kills in ((1, {0: 0, 4: 4, 7: 7}), (3, {5: 3}), (2, {2: 2, 3: 2})):  # one file, several kills
        path = tmp_path / f"{every}.pt"
        for epoch, saved in kills.items():
            if epoch < whole.epochs_run:
                with pytest.raises(Kill):
                    train(case, path, every, kill_in(epoch, steps))
                assert torch.load(path, weights_only=True)["epochs_run"] == saved
        assert_same_result(whole, train(case, path, every))
        assert_same_result(whole, train(case, path, every))  # finished: read, not run


def test_weights_of_an_epoch_are_kept_whenever_the_training_was_killed(tmp_path):
    seen = []
    whole = train("dropout", hook=lambda model, epoch: seen.append(copy.deepcopy(model.state_dict())))
    assert whole.saved is None
    for killed in (2, 3, 6):
        path = tmp_path / f"{killed}.pt"
        with pytest.raises(Kill):
            train("dropout", path, 1, kill_in(killed), save_at=3)
        for _ in range(2):
            result = train("dropout", path, 1, save_at=3)
            assert same_state(result.saved, seen[2])
            assert_same_result(result, whole)
        with pytest.raises(ValueError, match="'save_at' was 3 and is now 4"):
            train("dropout", path, 1, save_at=4)
    for bad, error in ((0, ValueError), (EPOCHS + 1, ValueError), (1.5, TypeError)):
        with pytest.raises(error, match="'save_at' must be"):
            train("dropout", save_at=bad)
    with pytest.raises(ValueError, match=f"'save_at' is {EPOCHS}, but 'patience' ended the training after"):
        train("patience", save_at=EPOCHS)


@pytest.mark.parametrize("make_schedule", [lambda o: CosineAnnealingLR(o, 5), lambda o: MultiStepLR(o, [1, 3], 0.5)])
def test_the_schedule_is_stepped_once_an_epoch(make_schedule):
    by_hand, model = (build_model(lambda: GCN(8, 16, 2, 3), 0) for _ in range(2))
    optimizer = sgd(by_hand)
    schedule, rates = make_schedule(optimizer), []
    batches = [DATA, random_graph(seed=1)]
    for _ in range(5):
        for batch in batches:
            optimizer.zero_grad()
            logits = by_hand(batch.x, batch.edge_index)
            F.cross_entropy(logits[batch.train_mask], batch.y[batch.train_mask]).backward()
            optimizer.step()
            rates.append(optimizer.param_groups[0]["lr"])
        schedule.step()
    optimizer, seen, values = sgd(model), [], iter(range(100))
    fit(
        model,
        DATA,
        epochs=5,
        loader=batches,
        optimizer=optimizer,
        scheduler=make_schedule(optimizer),
        after_step=[lambda *_: seen.append(optimizer.param_groups[0]["lr"])],
        metric=lambda *_: next(values),  # the last epoch is the best
    )
    assert seen == rates
    assert len(set(rates)) > 2
    assert same_state(model.state_dict(), by_hand.state_dict())


def test_only_the_epochs_that_are_left_are_run(tmp_path):
    path, seen = tmp_path / "a.pt", []
    with pytest.raises(Kill):
        train("dropout", path, 3, kill_in(5))
    train("dropout", path, 3, log=lambda row: seen.append(row["epoch"]))
    assert seen == [3, 4, 5, 6, 7, 8]


def test_a_checkpoint_changes_nothing(tmp_path):
    assert_same_result(train("dropout"), train("dropout", tmp_path / "new folder" / "a.pt", 2))


def test_a_finished_training_returns_at_once(tmp_path):
    path, steps, logged = tmp_path / "a.pt", [], []
    whole = train("supermask", path)

    def hook(model, epoch):
        steps.append(epoch)

    hook.__qualname__ = no_kill.__qualname__
    size = path.stat().st_mtime_ns
    again = train("supermask", path, hook=hook, log=logged.append)
    assert_same_result(whole, again)
    assert not steps
    assert not logged
    assert path.stat().st_mtime_ns == size
    assert path.stat().st_size < 25_000  # result only: no optimiser, no random state


def test_every_save_is_readable_and_nothing_else_is_left(tmp_path):
    path, seen = tmp_path / "a.pt", []

    def look(row):
        saved = torch.load(path, weights_only=True)
        seen.append((row["epoch"], saved["epochs_run"], len(saved["history"])))
        assert [file.name for file in tmp_path.iterdir()] == ["a.pt"]

    train("momentum on a schedule", path, 2, log=look)
    assert seen == [(epoch, epoch // 2 * 2, epoch // 2 * 2) for epoch in range(EPOCHS)]


def test_the_best_state_is_copied_once_an_improvement_and_written_once(tmp_path, monkeypatch):
    import graphsparse.training.loop as loop

    copies, sizes = [], []
    copy = loop._copy
    monkeypatch.setattr(loop, "_copy", lambda entry: copies.append(1) or copy(entry))
    model = build_model(lambda: GCN(8, 512, 2, 3), 0)
    values = iter([0.1, 0.2, 0.2])
    calls = itertools.count()
    metric = lambda logits, y: next(values, 0.0) if next(calls) % 2 == 0 else 0.0  # noqa: E731
    path = tmp_path / "a.pt"
    log = lambda row: sizes.append(path.stat().st_size)  # noqa: E731
    fit(model, DATA, epochs=3, metric=metric, checkpoint=path, checkpoint_every=1, log=log)
    assert len(copies) == 2 * len(model.state_dict())
    weights = sum(4 * parameter.numel() for parameter in model.parameters())
    start, first, second = sizes  # before the first step, and after epochs that were the best so far
    overhead = start - weights
    assert first - overhead == pytest.approx(3 * weights, rel=0.15)  # the weights and Adam's two moments
    assert second == pytest.approx(first, rel=0.02)
    assert path.stat().st_size < start  # at the end the best weights alone


def test_generators_of_the_caller_are_left_alone_by_a_resumption(tmp_path):
    path = tmp_path / "a.pt"
    with pytest.raises(Kill):
        train("every generator", path, 2, kill_in(5))
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    expected = torch.rand(1), random.random(), np.random.rand()  # noqa: NPY002
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    train("every generator", path, 2)
    assert (torch.rand(1), random.random(), np.random.rand()) == expected  # noqa: NPY002


OTHER = {
    "epochs": ({"epochs": 5}, r"'epochs' was 4 and is now 5"),
    "seed": ({"seed": 1}, r"'seed' was 0 and is now 1"),
    "lr": ({"lr": 0.5}, r"'optimizer' was Adam .*lr: 0.01.* and is now Adam .*lr: 0.5"),
    "weight decay": ({"weight_decay": 0.5}, r"'optimizer' was .*weight_decay: 0.0005.*weight_decay: 0.5"),
    "patience": ({"patience": 3}, r"'patience' was None and is now 3"),
    "eval_every": ({"eval_every": 2}, r"'eval_every' was 1 and is now 2"),
    "width": ({"model": GCN(8, 24, 2, 3)}, r"'model' convs.0.bias was float32 \[16\] and is now float32 \[24\].*more"),
    "class": ({"model": MODELS["BatchNorm and a tied weight"]()}, r"'model' was GCN and is now NormAndTie"),
    "depth": (
        {"model": GCN(8, 16, 3, 3)},
        r"'model' convs.1.bias was float32 \[3\] and is now float32 \[16\]",
    ),
    "weights": ({"model": build_model(lambda: GCN(8, 16, 2, 3), 1)}, "the weights that 'model' starts from was"),
    "graph": ({"task": random_graph(seed=1)}, r"'data.x' was float32 \[60, 8\] \w+ and is now"),
    "evaluated graph": ({"eval_data": random_graph(seed=1)}, r"'eval_data.x' was missing and is now"),
    "hooks": ({"after_step": [no_kill]}, r"'after_step' was \[\] and is now"),
    "metric": ({"metric": lambda *_: 0.0}, r"'metric' was accuracy and is now"),
    "extra_loss": ({"extra_loss": lambda logits, *_: logits.sum()}, r"'extra_loss' was None and is now"),
    "loader": ({"loader": [DATA]}, r"'loader' was None and is now list of 1 batches"),
}


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize("name", OTHER)
def test_the_file_of_another_training_is_refused(name, finished, tmp_path):
    options, message = OTHER[name]
    path = tmp_path / "a.pt"
    start = {"model": build_model(lambda: GCN(8, 16, 2, 3), 0), "task": DATA, "epochs": 4, "checkpoint": path}
    if finished:
        fit(**start)
    else:
        with pytest.raises(Kill):
            fit(**start, checkpoint_every=1, log=kill)
    before = path.read_bytes()
    start["model"] = build_model(lambda: GCN(8, 16, 2, 3), 0)
    options = {**start, **options}
    weights = {name: tensor.clone() for name, tensor in options["model"].state_dict().items()}
    with pytest.raises(ValueError, match=r"(?s)'checkpoint' .*a.pt' belongs to another training: .*" + message):
        fit(**options)
    assert path.read_bytes() == before
    assert same_state(weights, options["model"].state_dict())


def kill(row):
    if row["epoch"] == 2:
        raise Kill


def test_another_optimizer_or_schedule_is_refused(tmp_path):
    path = tmp_path / "a.pt"

    def run(make_optimizer, make_schedule=None):
        model = build_model(MODELS["GCN"], 0)
        optimizer = make_optimizer(model)
        schedule = None if make_schedule is None else make_schedule(optimizer)
        return fit(model, DATA, epochs=2, optimizer=optimizer, scheduler=schedule, checkpoint=path)

    run(sgd, lambda optimizer: CosineAnnealingLR(optimizer, 5))
    run(sgd, lambda optimizer: CosineAnnealingLR(optimizer, 5))
    for arguments, message in (
        ((adam, lambda optimizer: CosineAnnealingLR(optimizer, 5)), "'optimizer' was SGD .* and is now Adam"),
        ((sgd, lambda optimizer: CosineAnnealingLR(optimizer, 6)), "'scheduler' was CosineAnnealingLR .*T_max: 5"),
        ((sgd, lambda optimizer: LinearLR(optimizer)), "'scheduler' was CosineAnnealingLR .* and is now LinearLR"),
        ((sgd,), "'scheduler' was CosineAnnealingLR .* and is now None"),
    ):
        with pytest.raises(ValueError, match=message):
            run(*arguments)


def test_the_trained_model_is_not_the_one_that_the_training_started_from(tmp_path):
    model = build_model(MODELS["GCN"], 0)
    fit(model, DATA, epochs=2, checkpoint=tmp_path / "a.pt")
    with pytest.raises(ValueError, match="the weights that 'model' starts from"):
        fit(model, DATA, epochs=2, checkpoint=tmp_path / "a.pt")


SCRIPT = """
import os, signal, sys
import torch
from torch_geometric.nn import GCN
from graphsparse.testing import random_graph
from graphsparse.training import build_model, fit

torch.set_num_threads(1)

def log(row):
    if row["epoch"] == 5:
        os.kill(os.getpid(), signal.SIGKILL)

model = build_model(lambda: GCN(8, 16, 2, 3, dropout=0.5), 0)
fit(model, random_graph(), epochs=9, log=log, checkpoint=sys.argv[1], checkpoint_every=2)
"""


def test_another_process_goes_on_after_a_real_kill(tmp_path):
    path = tmp_path / "a.pt"
    killed = subprocess.run([sys.executable, "-c", SCRIPT, str(path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert torch.load(path, weights_only=True)["epochs_run"] == 4
    found, whole = (
        fit(build_model(lambda: GCN(8, 16, 2, 3, dropout=0.5), 0), DATA, epochs=9, **options)
        for options in ({"checkpoint": path}, {})
    )
    assert same_state(found.state_dict, whole.state_dict)
    assert torch.equal(found.logits, whole.logits)
    assert found.history == whole.history


@pytest.mark.cuda
def test_resumed_on_a_gpu(tmp_path, device):
    def run(**options):
        model = build_model(lambda: GCN(8, 16, 2, 3, dropout=0.5), 0).to(device)
        return fit(model, random_graph().to(device), epochs=9, **options)

    whole, path = run(after_step=[no_kill]), tmp_path / "a.pt"
    with pytest.raises(Kill):
        run(after_step=[kill_in(6)], checkpoint=path, checkpoint_every=2)
    found = run(after_step=[no_kill], checkpoint=path, checkpoint_every=2)
    again = run(after_step=[no_kill], checkpoint=path)
    for result in (found, again):
        assert result.logits.device == device
        assert all(tensor.device == device for tensor in result.state_dict.values())
        # Atomic additions on a GPU come in any order, so that only the random numbers are equal bit for bit.
        torch.testing.assert_close(result.logits, whole.logits, rtol=1e-4, atol=1e-4)
        assert [row["loss"] for row in result.history] == pytest.approx(
            [row["loss"] for row in whole.history], rel=1e-4
        )
