import argparse
import csv
import statistics

import pytest
import torch
import untrained_reliability as reliability
from torch_geometric.nn import GCN
from torch_geometric.transforms import NormalizeFeatures
from untrained_depth import search

from graphsparse.datasets import synthetic_citation
from graphsparse.tickets import Untrained
from graphsparse.transforms import LeaveOutClasses, PerturbEdges, PerturbFeatures
from graphsparse.typing import has_module

pytestmark = pytest.mark.once

DATA = NormalizeFeatures()(synthetic_citation(400, num_features=16, num_val=100, num_test=100))
SETTING = {"sparsity": 0.5, "epochs": 5, "dense_epochs": 4, "lr": 0.02, "hidden": 8, "layers": 2, "dropout": [0.0, 0.5]}


@pytest.fixture(autouse=True)
def small_graph(monkeypatch):
    monkeypatch.setattr(reliability, "graph", lambda name: DATA)


def all_jobs(**changes):
    options = {"data": ["small"], "net": ["GCN"], "method": list(reliability.METHODS), "part": ["ood", "robustness"]}
    options |= {"budget": [0.0, 0.5], "seeds": 2, "robust_seeds": 1}
    return list(reliability.jobs(argparse.Namespace(**options | changes)))


def run(**wanted):
    jobs = [job for job in all_jobs() if all(job[key] == value for key, value in wanted.items())]
    return reliability.run_group(jobs, SETTING)


def test_jobs_pair_methods_and_train_once_per_graph():
    jobs = all_jobs()
    by_method = {}
    for job in jobs:
        by_method.setdefault(job.pop("method"), []).append(job)
    ugt, coated, dense = by_method.values()
    assert ugt == coated == dense
    # Two seeds of left-out classes; a clean graph, two kinds of poison, and two kinds of evasion.
    assert [job["mode"] for job in ugt] == ["ood", "ood", "clean", "evasion", "evasion", "poisoning", "poisoning"]
    trained = {(job["trained on"], job["seed"]) for job in ugt}
    assert trained == {("classes", 0), ("classes", 1), ("clean", 0), ("features 0.5", 0), ("edges 0.5", 0)}
    assert {job["mode"] for job in ugt if job["trained on"] == "clean"} == {"clean", "evasion"}
    assert {job["mode"] for job in all_jobs(part=["ood"])} == {"ood"}
    assert "ood" not in {job["mode"] for job in all_jobs(part=["robustness"])}


def test_evasion_and_poisoning_see_what_they_should():
    """Evasion is the clean model on the perturbed graph, poisoning a search on it; both by plain PyG layers."""

    def make_model():
        return GCN(16, 8, 2, 7, bias=False)

    def accuracy_of(found, data):
        plain = make_model()
        plain.load_state_dict(found.model.state_dict())
        with torch.no_grad():
            right = plain(data.x, data.edge_index).argmax(1) == data.y
        return float(right[data.test_mask].double().mean())

    clean, *evasion = run(method="UGT", seed=0, **{"trained on": "clean"})
    found = search(make_model, DATA, 0.5, Untrained(epochs=5, lr=0.02), 0)
    assert (clean["mode"], clean["val"]) == ("clean", found.val)
    assert clean["test"] == pytest.approx(accuracy_of(found, DATA), abs=1e-6)
    for row, transform in zip(evasion, (PerturbFeatures(0.5), PerturbEdges(0.5)), strict=True):
        data = transform(DATA)
        assert row["test"] == pytest.approx(accuracy_of(found, data), abs=1e-6)
        assert row["val"] == clean["val"]
        (poisoned,) = run(method="UGT", kind=row["kind"], mode="poisoning")
        other = search(make_model, data, 0.5, Untrained(epochs=5, lr=0.02), 0)
        assert poisoned["val"] == other.val
        assert poisoned["test"] == pytest.approx(accuracy_of(other, data), abs=1e-6)
    assert len({clean["test"], *(row["test"] for row in evasion)}) > 1


def test_detection_by_hand():
    """Four known nodes and two unknown ones, one of which is ranked behind a known one."""
    sure = torch.tensor([9.0, 7.0, 5.0, 1.0, 3.0, 0.5])
    data = DATA.clone()
    data.y = torch.tensor([0, 0, 1, 0, -1, -1, 0])
    data.test_mask = torch.tensor([1, 1, 1, 1, 0, 0, 0], dtype=torch.bool)
    data.ood_mask = torch.tensor([0, 0, 0, 0, 1, 1, 0], dtype=torch.bool)
    logits = torch.stack([torch.cat([sure, torch.tensor([50.0])]), torch.zeros(7)], 1)  # the last node is in no part
    found = reliability.detection(logits, data)
    for score in ("softmax", "energy"):
        assert found[f"{score} AUROC"] == 7 / 8
        assert found[f"{score} AUPR"] == pytest.approx((1 + 2 / 3) / 2)
        assert found[f"{score} FPR95"] == 1 / 4
    confidence = torch.sigmoid(sure[:4].double())
    assert found["confidence"] == pytest.approx(float(confidence.mean()))
    # All of the first three lie in the last of 15 bins, the fourth is alone.
    gap = abs(2 - float(confidence[:3].sum())) + 1 - float(confidence[3])
    assert found["ECE"] == pytest.approx(gap / 4)


@pytest.mark.parametrize("method", list(reliability.METHODS))
def test_left_out_classes_are_those_of_the_seed(method):
    rows = [run(method=method, mode="ood", seed=seed)[0] for seed in (0, 1)]
    for seed, row in enumerate(rows):
        assert row["left out"] == LeaveOutClasses(0.4, seed=seed)(DATA).left_out_classes.tolist()
        assert len(row["left out"]) == 2
    assert rows[0]["left out"] != rows[1]["left out"]


def test_summaries_by_hand():
    rows = []
    for method, tests in (("UGT", (0.5, 0.6)), ("dense", (0.7, 0.9))):
        for seed, test in enumerate(tests):
            job = {"data": "small", "net": "GCN", "method": method, "seed": seed, "val": 0.5, "test": test}
            figures = {f"{s} {r}": test / 2 for s in reliability.SCORES for r in reliability.RANKINGS}
            ood = {"mode": "ood", "kind": "", "budget": 0, "left out": [seed, 5], "ECE": 0.1, "confidence": 0.4}
            rows += [job | figures | ood, job | {"mode": "clean", "kind": "", "budget": 0}]
            rows.append(job | {"mode": "evasion", "kind": "edges", "budget": 0.5, "test": test - 0.1 * (seed + 1)})
    ugt, dense = reliability.summarise_ood(rows)
    assert (ugt["test mean"], ugt["test std"], ugt["seeds"]) == (55.0, 7.07, 2)
    assert (ugt["softmax AUROC mean"], ugt["energy FPR95 minus dense mean"]) == (27.5, -12.5)
    assert (ugt["left out"], dense["test minus dense mean"]) == ("0+5 1+5", "")
    lines = reliability.summarise_robustness(rows)
    # The clean accuracy begins all four curves.
    begin = [line for line in lines if line["budget"] == 0]
    places = {(line["mode"], line["kind"]) for line in begin}
    assert places == {(mode, kind) for mode in ("evasion", "poisoning") for kind in ("features", "edges")}
    assert {line["test mean"] for line in begin if line["method"] == "UGT"} == {55.0}
    (line,) = (line for line in lines if line["budget"] == 0.5 and line["method"] == "UGT")
    assert (line["test mean"], line["minus dense mean"]) == (40.0, -25.0)
    assert line["minus dense std"] == round(statistics.stdev([-20, -30]), 2)


@pytest.mark.skipif(not has_module("matplotlib"), reason="needs matplotlib")
def test_run_resumes_and_takes_more_seeds(tmp_path, capsys):
    options = ["--data", "small", "--epochs", "3", "--dense-epochs", "2", "--dropout", "0", "--hidden", "4"]
    options += ["--budget", "0", "0.5", "--workers", "0", "--out", str(tmp_path)]
    first = reliability.main([*options, "--seeds", "1", "--robust-seeds", "1"])
    # Three methods, each with left-out classes, a clean graph, two kinds of poison and of evasion.
    assert capsys.readouterr().out.startswith("18 trainings, 0 of them done before")
    assert len(first) == 3 * (2 + 2 * 2 * 2)
    text = (tmp_path / "untrained_reliability.md").read_text()
    reliability.main([*options, "--seeds", "2", "--robust-seeds", "1"])
    assert capsys.readouterr().out.startswith("21 trainings, 18 of them done before")
    assert reliability.main([*options, "--seeds", "1", "--robust-seeds", "1"]) == first
    assert (tmp_path / "untrained_reliability.md").read_text() == text
    assert "python benchmarks/untrained_reliability.py --data small --budget 0 0.5 --dropout 0 --seeds 1" in text
    assert "ECE with 15 bins" in text
    with (tmp_path / "untrained_reliability_robustness.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 3 * 2 * 2 * 2
    assert (tmp_path / "untrained_reliability_small_gcn.png").stat().st_size > 0
    # One part alone leaves the other's table as it is.
    reliability.main([*options, "--part", "ood", "--seeds", "1"])
    text = (tmp_path / "untrained_reliability.md").read_text()
    assert "Out of distribution, 1 seeds" in text
    assert "perturbed fraction" not in text
