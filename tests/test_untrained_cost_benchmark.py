"""The cost of a search: both paths run, the ratios are those of the figures, and both search the same mask."""

import csv
import json

import plain_search
import pytest
import torch
import torch.nn.functional as F
import untrained_cost as cost
from torch_geometric.nn import GCN

from graphsparse.datasets import synthetic_citation
from graphsparse.nn import Supermask, accelerate
from graphsparse.tickets import Untrained, find_ticket
from graphsparse.training import Training

# 320 and 70 weights, all doubles: sums in another order then differ by less than anything here.
FEATURES, HIDDEN, CLASSES = 32, 10, 7


@pytest.fixture
def data():
    graph = synthetic_citation(400, num_features=FEATURES, num_val=100, num_test=100)
    graph.x = graph.x.double()
    return graph


def make_gcn(layers=2):
    return GCN(FEATURES, HIDDEN, layers, CLASSES, bias=False).double()


def plain_from(supermask, layers=2):
    """Return the plain model with the weights and scores of a supermask."""
    model = plain_search.MaskedGCN(FEATURES, HIDDEN, layers, CLASSES).double()
    # At sparsity 0 nothing is masked.
    weights = Supermask(supermask.materialize(), 0.0, seed=supermask.seed).materialize().state_dict().values()
    scores = supermask.scores.detach().split([weight.numel() for weight in weights])
    with torch.no_grad():
        for conv, weight, score in zip(model.convs, weights, scores, strict=True):
            conv.lin.weight.copy_(weight)
            conv.score.copy_(score.view_as(weight))
    return model


def scores_of(model):
    return torch.cat([conv.score.detach().flatten() for conv in model.convs])


@pytest.mark.parametrize("sparsity", [0.0, 0.04, 0.3, 0.5, 0.9, 0.99])
def test_plain_mask_is_that_of_a_sort(sparsity, data, monkeypatch):
    torch.manual_seed(0)
    model = plain_search.MaskedGCN(FEATURES, HIDDEN, 2, CLASSES)
    seen = []
    apply = plain_search.Mask.apply

    def spy(score, threshold):
        seen.append((threshold, apply(score, threshold)))
        return seen[-1][1]

    monkeypatch.setattr(plain_search.Mask, "apply", spy)
    model(data.x.float(), data.edge_index, sparsity)
    scores = scores_of(model)
    num = scores.numel()
    assert scores.unique().numel() == num  # so that the number below is exact
    removed = round(sparsity * (num - 1))
    assert len(seen) == 2
    for threshold, _ in seen:
        assert threshold == scores.sort().values[removed]
    mask = torch.cat([mask.flatten() for _, mask in seen])
    assert int((mask == 0).sum()) == removed
    assert abs(removed - int(sparsity * num)) <= 1  # the package removes the floor
    assert scores[mask == 0].max(dim=0).values < scores[mask == 1].min() if removed else mask.all()


def test_plain_gradients_are_straight_through(data):
    torch.manual_seed(0)
    model = plain_search.MaskedGCN(FEATURES, HIDDEN, 2, CLASSES).double()
    loss = F.cross_entropy(model(data.x, data.edge_index, 0.3), data.y)
    loss.backward()
    threshold = scores_of(model).sort().values[round(0.3 * 389)]
    weights = [conv.lin.weight.detach() * (conv.score.detach() >= threshold) for conv in model.convs]
    plain = GCN(FEATURES, HIDDEN, 2, CLASSES, bias=False).double()
    with torch.no_grad():
        for conv, weight in zip(plain.convs, weights, strict=True):
            conv.lin.weight.copy_(weight)
    F.cross_entropy(plain(data.x, data.edge_index), data.y).backward()
    for conv, other in zip(model.convs, plain.convs, strict=True):
        gradient, mask = other.lin.weight.grad, conv.score.detach() >= threshold
        torch.testing.assert_close(conv.score.grad, gradient * conv.lin.weight.detach())
        # The frozen weights get one too: that is what one pays without a reason.
        torch.testing.assert_close(conv.lin.weight.grad, gradient * mask)


@pytest.mark.parametrize("layers", [2, 4])
@pytest.mark.parametrize("sparsity", [0.04, 0.5, 0.9])
def test_both_compute_the_same_from_the_same_scores(sparsity, layers, data):
    masked = Supermask(accelerate(make_gcn(layers)), sparsity, seed=3)
    model = plain_from(masked, layers)
    num = masked.scores.numel()
    # The sparsity at which the plain model removes as many.
    removed = round(masked.sparsity() * num)
    outs = [model(data.x, data.edge_index, removed / (num - 1)), masked(data.x, data.edge_index)]
    torch.testing.assert_close(outs[0], outs[1], rtol=1e-9, atol=1e-12)
    for out in outs:
        F.cross_entropy(out[data.train_mask], data.y[data.train_mask]).backward()
    gradient = torch.cat([conv.score.grad.flatten() for conv in model.convs])
    torch.testing.assert_close(gradient, masked.scores.grad, rtol=1e-7, atol=1e-14)


def test_both_searches_go_the_same_way(data, monkeypatch, tmp_path):
    # All sparsities of the ramp, 0.1, 0.2, 0.3, 0.4, remove a whole number of 390 weights; both round alike then.
    epochs, sparsity, lr, seed = 8, 0.4, 0.05, 3
    trace = []
    options = {"method": Untrained(epochs=epochs, lr=lr)}
    training = Training(seed=seed, log=trace.append, checkpoint=tmp_path)
    found = find_ticket(make_gcn, data, weight_sparsity=sparsity, training=training, **options).metrics
    scores = torch.load(tmp_path / "mask-1.pt", weights_only=True)["result"]["state_dict"]["scores"]

    first = plain_from(Supermask(make_gcn(), sparsity, seed=seed))
    start = scores_of(first)
    monkeypatch.setattr(plain_search, "MaskedGCN", lambda *sizes: first)
    seen = []
    test = plain_search.search(
        data,
        HIDDEN,
        2,
        sparsity=sparsity,
        epochs=epochs,
        lr=lr,
        seed=seed,
        after_epoch=lambda epoch: seen.append(scores_of(first)),
    )
    assert len(seen) == epochs
    assert (seen[-1] - start).abs().mean() > lr  # it went somewhere
    torch.testing.assert_close(seen[found["best_epoch"]], scores, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(scores_of(first), scores, rtol=1e-6, atol=1e-9)
    assert test == pytest.approx(found["test"])
    assert found["val"] == max(row["val"] for row in trace)


@pytest.fixture
def tiny(monkeypatch):
    """A case that takes no time; the process that measures is this one."""
    monkeypatch.setattr(cost, "CASES", {"tiny": ("synthetic", 2, 8, 0.9, 0.01, 3)})


@pytest.mark.parametrize("path", ["plain PyG", "graphsparse"])
def test_one_measurement(path, tiny, capsys):
    assert cost.main(["--one", "tiny", path, "0", "--epochs", "2"]) == []
    row = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(row) == {"seconds", "memory", "test"}
    assert 0 < row["seconds"] < 5
    assert 0 <= row["test"] <= 1


def test_ratios_of_the_table(tiny, monkeypatch, tmp_path, capsys):
    figures = {"plain PyG": (0.080, 0.50), "graphsparse": (0.010, 0.20)}
    calls = []

    def run_apart(script, arguments):
        assert script == cost.__file__
        _, _, path, seed, *rest = arguments
        calls.append((path, seed, rest))
        seconds, memory = figures[path]
        return {"seconds": seconds * (1 + int(seed)), "memory": memory, "test": 0.79 + 0.02 * int(seed)}

    monkeypatch.setattr(cost, "run_apart", run_apart)
    plain, ours = cost.main(["--seeds", "2", "--threads", "2", "--out", str(tmp_path)])
    assert [(path, seed) for path, seed, _ in calls] == [(path, s) for s in "01" for path in cost.PATHS]
    assert all(rest == ["--epochs", "0", "--threads", "2"] for _, _, rest in calls)
    assert (plain["speed"], plain["share"]) == (1, 1)
    assert (ours["seconds"], ours["speed"], ours["share"]) == pytest.approx((0.015, 8, 0.4))
    assert (ours["test"], ours["std"]) == pytest.approx((80, 2**0.5))
    out = capsys.readouterr().out
    row = "| synthetic, 2 x 8, sparsity 0.9, 3 epochs | graphsparse | 15.0 | 8.0 | 0.20 | 40 % | 80.0 ± 1.4 (2) |"
    assert row in out
    assert row in (tmp_path / "untrained_cost.md").read_text()
    with (tmp_path / "untrained_cost.csv").open() as file:
        assert [line["path"] for line in csv.DictReader(file)] == ["plain PyG", "graphsparse"]


def test_a_single_epoch_has_no_time(tiny):
    with pytest.raises(SystemExit):
        cost.main(["--epochs", "1"])
