import csv
import statistics

import pytest
import torch
import untrained_depth as depth
from torch_geometric.nn import GCN
from untrained_nets import make_net

from graphsparse.datasets import synthetic_citation
from graphsparse.nn import Supermask
from graphsparse.tickets import Untrained
from graphsparse.training import predict
from graphsparse.typing import has_module

pytestmark = pytest.mark.once

DATA = synthetic_citation(400, num_features=16, num_val=100, num_test=100)


def make_model():
    return make_net("GCN", 16, 8, 3, 7)


@pytest.fixture(scope="module")
def searched():
    return depth.search(make_model, DATA, 0.5, Untrained(epochs=4), 2)


@pytest.mark.parametrize("net", ["GCN", "GIN", "GAT"])
def test_hidden_representation_is_that_before_the_last_layer(net):
    found = depth.search(lambda: make_net(net, 16, 8, 4, 7), DATA, 0.3, Untrained(epochs=2), 0)
    plain = make_net(net, 16, 8, 4, 7)
    plain.load_state_dict(found.model.state_dict())
    x = DATA.x
    with torch.no_grad():
        for conv in plain.convs[:-1]:
            x = conv(x, DATA.edge_index).relu()
    hidden = depth.last_hidden(found.model, DATA)
    torch.testing.assert_close(hidden, x)
    assert not found.model.convs[-1]._forward_pre_hooks  # nothing stays behind
    torch.testing.assert_close(predict(plain, DATA), found.logits)


def test_trained_network_starts_from_the_weights_that_the_ticket_freezes(searched):
    start = depth.train(make_model, DATA, 2, lr=0.0, epochs=1, dropouts=[0.0], kaiming=True).model.state_dict()
    ticket = searched.model.state_dict()
    zeros = total = 0
    for name, weight in ticket.items():
        kept = weight != 0
        assert torch.equal(weight[kept], start[name][kept])
        zeros, total = zeros + int((~kept).sum()), total + kept.numel()
    assert zeros == total // 2
    pyg = depth.train(make_model, DATA, 2, lr=0.0, epochs=1, dropouts=[0.0]).model.state_dict()
    bound = (6 / (8 + 8)) ** 0.5  # Glorot's of a square layer; Kaiming's is wider
    assert pyg["convs.1.lin.weight"].abs().max() <= bound < start["convs.1.lin.weight"].abs().max()


def test_validation_alone_chooses(searched):
    """Other test labels change nothing, and of the dropouts the best on validation wins."""
    other = DATA.clone()
    other.y = torch.where(DATA.test_mask, (DATA.y + 1) % 7, DATA.y)
    again = depth.search(make_model, other, 0.5, Untrained(epochs=4), 2)
    assert (again.val, again.epoch) == (searched.val, searched.epoch)
    assert torch.equal(again.logits, searched.logits)
    options = {"lr": 0.02, "epochs": 15}
    alone = {p: depth.train(make_model, DATA, 0, dropouts=[p], **options) for p in (0.9, 0.0)}
    assert alone[0.0].val > alone[0.9].val
    for data in (DATA, other):
        best = depth.train(make_model, data, 0, dropouts=[0.9, 0.0], **options)
        assert (best.dropout, best.val) == (0.0, alone[0.0].val)
        assert torch.equal(best.logits, alone[0.0].logits)
        torch.testing.assert_close(predict(best.model, data), best.logits)


def row(method, sparsity, seed, val, test, lr=0.005):
    same = {"mad hidden": 0.5, "mad logits": 0.25 * seed, "zero rows": 0.0, "dropout": 0.3, "epoch": 5, "seconds": 1.0}
    job = {"data": "cora", "net": "GCN", "layers": 2, "method": method, "sparsity": sparsity, "seed": seed}
    return job | same | {"lr": lr, "val": val, "test": test}


def test_summary_by_hand():
    rows = [row("ugt", 0.04, 0, 0.70, 0.90), row("ugt", 0.04, 1, 0.72, 0.90)]
    rows += [row("ugt", 0.5, 0, 0.80, 0.60), row("ugt", 0.5, 1, 0.70, 0.70)]
    rows += [row("dense", 0, 0, 0.7, 0.99), row("dense", 0, 1, 0.7, 0.99)]
    rows += [row("dense", 0, 0, 0.8, 0.50, lr=0.001), row("dense", 0, 1, 0.8, 0.64, lr=0.001)]
    lines = depth.summarise(rows)
    assert [line["chosen"] for line in lines] == [False, True, False, True]  # the higher test does not count
    _, high, fast, dense = lines
    assert (high["test mean"], high["test std"], high["worst"], high["seeds"]) == (65.0, 7.07, 60.0, 2)
    # Seed by seed: 10 and 6 points.
    assert (high["minus dense mean"], high["minus dense std"]) == (8.0, round(statistics.stdev([10, 6]), 2))
    assert fast["minus dense mean"] == 42.0
    assert dense["minus dense mean"] == high["minus dense_kaiming mean"] == ""
    assert (high["mad logits mean"], high["mad hidden mean"]) == (0.125, 0.5)
    text = depth.markdown(lines, "cora", "GCN")
    assert "| untrained | 65.0 ± 7.1 (50 %) |" in text
    assert "| trained, PyG's start | 57.0 ± 9.9 (lr 0.001) |" in text
    assert "| untrained, 4 % | 90.0 ± 0.0 |" in text
    assert "| trained, PyG's start, lr 0.005 | 99.0 ± 0.0 |" in text
    assert "| trained, PyG's start | 0.500 / 0.125 |" in text


def test_lost_nodes_are_told_from_smooth_ones():
    """A network whose last hidden representation is zero throughout has a MAD of 1 and says why."""
    model = GCN(16, 8, 2, 7, bias=False)
    with torch.no_grad():
        model.convs[0].lin.weight.zero_()
    assert not depth.last_hidden(model, DATA).any()
    line = {"mad hidden mean": 1.0, "mad logits mean": 1.0, "zero rows (%)": 100.0}
    assert depth.distances(line) == "1.000 / 1.000 (100.0 % zero rows)"


@pytest.mark.skipif(not has_module("matplotlib"), reason="needs matplotlib")
def test_run_resumes_and_takes_more_seeds(tmp_path, capsys):
    options = ["--data", "synthetic", "--layers", "2", "3", "--epochs", "3", "--dense-epochs", "2", "--dropout", "0"]
    options += ["--hidden", "4", "--workers", "0", "--out", str(tmp_path)]
    first = depth.main([*options, "--seeds", "1"])
    assert capsys.readouterr().out.startswith("12 trainings, 0 of them done before")
    methods = ["ugt/0.04/0.005", "ugt/0.5/0.005"]
    methods += [f"{name}/0/{lr}" for name in ("dense", "dense_kaiming") for lr in (0.005, 0.001)]
    assert set(first) == {f"synthetic/GCN/{layers}/{method}" for layers in (2, 3) for method in methods}
    text = (tmp_path / "untrained_depth.md").read_text()
    depth.main([*options, "--seeds", "2"])
    assert capsys.readouterr().out.startswith("24 trainings, 12 of them done before")
    assert depth.main([*options, "--seeds", "1"]) == first
    assert (tmp_path / "untrained_depth.md").read_text() == text
    shown = "python benchmarks/untrained_depth.py --data synthetic --layers 2 3 --dropout 0 --seeds 1"
    assert f"{shown} --epochs 3 --dense-epochs 2 --hidden 4\n" in text
    with (tmp_path / "untrained_depth.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 12
    for name in ("untrained_depth_synthetic.png", "untrained_depth_synthetic_mad.png"):
        assert (tmp_path / name).stat().st_size > 0


def test_one_layer_has_no_hidden_representation(capsys):
    with pytest.raises(SystemExit):
        depth.main(["--layers", "1", "2"])
    assert "--layers must be at least 2" in capsys.readouterr().err


def test_kaiming_start_has_no_zeros():
    model = Supermask(make_model(), 0.0, seed=2).materialize()
    assert all((parameter != 0).all() for parameter in model.parameters())
