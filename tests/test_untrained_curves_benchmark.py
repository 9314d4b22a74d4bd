"""The curves of untrained tickets: which cells there are, what a cell is, and how cells become a table and plots."""

import csv
import json

import pytest
import untrained_curves as curves

from graphsparse.tickets import Untrained, compare_tickets, find_ticket
from graphsparse.training import Training

pytestmark = pytest.mark.once


@pytest.fixture
def run(tmp_path, capsys):
    """Return a function that runs tiny curves in this process and returns their means and what was printed."""

    def curve(*options, data="synthetic"):
        common = ["--data", data, "--epochs", "4", "--hidden", "8", "--workers", "0", "--out", str(tmp_path)]
        means = curves.main([*common, *options])
        return means, capsys.readouterr().out

    return curve


SMALL = ("--net", "GCN", "--sparsity", "0.5", "0.9", "--seeds", "2", "--main-seeds", "2")


def test_table_plot_and_resume(run, tmp_path):
    means, first = run(*SMALL)
    # Two seeds of five methods at two sparsities, and of the dense model.
    assert "30 trainings, 0 of them done before" in first
    assert set(means) == {
        "synthetic/GCN/dense/0",
        *(f"synthetic/GCN/{method}/{s}" for method in (*curves.METHODS, "random mask") for s in (0.5, 0.9)),
    }
    store = tmp_path / "untrained_curves.jsonl"
    rows = [json.loads(line) for line in store.read_text().splitlines()]
    assert len(rows) == 30
    mean = sum(100 * row["test"] for row in rows if (row["method"], row["sparsity"]) == ("UGT", 0.9)) / 2
    assert means["synthetic/GCN/UGT/0.9"] == pytest.approx(mean, abs=0.006)

    with (tmp_path / "untrained_curves.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 15
    assert {line["seeds"] for line in lines} == {"2"}
    assert {line["published"] for line in lines} == {""}
    text = (tmp_path / "untrained_curves.md").read_text()
    assert text.strip() in first
    assert "| method | 50 % | 90 % |" in text
    assert (tmp_path / "untrained_curves_synthetic.png").read_bytes()[:4] == b"\x89PNG"

    # A kill in the middle of a line, and some cells lost.
    kept = store.read_text().splitlines()
    store.write_text("\n".join([*kept[:15], kept[15][:30]]))
    again, second = run(*SMALL)
    assert "30 trainings, 15 of them done before" in second
    assert again == means
    assert (tmp_path / "untrained_curves.md").read_text() == text
    # Tables of what is whole, without computing anything.
    store.write_text("\n".join(line for line in kept if '"method": "edge-popup"' not in line or '"seed": 0' in line))
    report, third = run(*SMALL, "--report")
    assert "trainings" not in third
    assert report == {name: mean for name, mean in means.items() if "edge-popup" not in name}
    # Another setting starts anew.
    assert "30 trainings, 0 of them done before" in run(*SMALL, "--lr", "0.02")[1]


def test_every_net_on_a_real_graph(run, tmp_path, data_root, monkeypatch):
    monkeypatch.setenv("GRAPHSPARSE_DATA", str(data_root))
    options = ("--method", "UGT", "dense", "--sparsity", "0.9", "--seeds", "1", "--main-seeds", "1", "--epochs", "2")
    means, text = run(*options, data="cora")
    assert len(means) == 6
    assert "[79.7]" in text  # UGT at 0.9
    assert "[81.8]" in text  # dense
    for net in ("GCN", "GIN", "GAT"):
        assert f"**cora, {net}** (1 seeds" in text
    assert (tmp_path / "untrained_curves_cora.png").is_file()


def test_only_the_dense_model(run):
    means, text = run("--net", "GIN", "--method", "dense", "--seeds", "1")
    assert list(means) == ["synthetic/GIN/dense/0"]
    assert "| dense, trained |" in text


def test_a_cell_is_the_search_of_the_package(tmp_path, run):
    run("--net", "GIN", "--method", "multicoated 3, even", "dense", "random mask", "--sparsity", "0.5", "--seeds", "1")
    rows = [json.loads(line) for line in (tmp_path / "untrained_curves.jsonl").read_text().splitlines()]
    found = {row["method"]: row for row in rows}
    data = curves.graph("synthetic")

    def make_model():
        return curves.make_net("GIN", data.num_features, 8, 2, data.num_classes)

    ticket = find_ticket(make_model, data, weight_sparsity=0.5, method=Untrained("multicoated", epochs=4))
    for part in ("val", "test"):
        assert found["multicoated 3, even"][part] == ticket.metrics[part]
    assert found["multicoated 3, even"]["epoch"] == ticket.metrics["best_epoch"]
    options = {"weight_sparsity": 0.5, "training": Training(epochs=4)}
    dense, random = compare_tickets(make_model, data, ["random_untrained"], **options)
    assert found["dense"]["test"] == dense["test"]
    assert found["random mask"]["test"] == random["test"]


def test_features_are_normalised_by_row():
    assert curves.graph("synthetic").x.sum(1).sub(1).abs().max() < 1e-5


def test_published_figures():
    figures = curves.published()
    # Read off the papers' figures by hand.
    assert figures["cora", "GCN", "UGT", 0.9] == "79.7"
    assert figures["citeseer", "GAT", "edge-popup", 0.95] == "62.3"
    assert figures["pubmed", "GIN", "UGT", 0] == "33.8"
    assert figures["citeseer", "GCN", "dense", 0] == "70.2"
    assert ("cora", "GCN", "dense", 0.5) not in figures
    # Three data sets, three networks: two curves of all sparsities, and the dense model.
    assert len(figures) == 9 * (2 * len(curves.GRID) + 1)


def test_figures_of_cells_by_hand():
    shared = {"data": "cora", "net": "GCN", "seconds": 2.0}
    rows = [
        {**shared, "method": method, "sparsity": sparsity, "seed": seed, "test": test, "epoch": 10 * seed}
        for method, sparsity, tests in (("dense", 0, (0.80, 0.82)), ("UGT", 0.9, (0.79, 0.77, 0.81)))
        for seed, test in enumerate(tests)
    ]
    dense, ugt = curves.summarise(rows)
    assert (dense["test mean"], dense["test std"], dense["worst"], dense["seeds"]) == (81.0, 1.41, 80.0, 2)
    assert (dense["published"], dense["minus dense"]) == ("81.8", "")
    assert (ugt["test mean"], ugt["test std"], ugt["worst"], ugt["seeds"]) == (79.0, 2.0, 77.0, 3)
    # Only seeds that both have: -1 and -5 points.
    assert (ugt["minus dense"], ugt["std of difference"]) == (-3.0, 2.83)
    assert (ugt["published"], ugt["mean best epoch"], ugt["seconds"]) == ("79.7", 10, 2.0)
    text = curves.markdown([dense, ugt], "cora", "GCN").splitlines()
    assert text[0] == "**cora, GCN** (2 to 3 seeds; test accuracy in %, published mean in brackets)"
    assert "| dense, trained | 81.0 ± 1.4 [81.8] |" in text
    assert "| UGT | 79.0 ± 2.0 [79.7] |" in text


def test_jobs_have_the_seeds_they_should():
    class Args:
        data, net, method, sparsity = ["cora"], ["GCN", "GAT"], ["UGT", "multicoated 3, even", "dense"], [0.5, 0.9]
        seeds, main_seeds = 2, 3

    jobs = list(curves.jobs(Args))
    assert len(jobs) == (3 + 2) * (2 + 1) + (2 + 2) * 2
    assert len({tuple(job[name] for name in curves.KEYS) for job in jobs}) == len(jobs)
    assert [job["seed"] for job in jobs if (job["net"], job["method"], job["sparsity"]) == ("GCN", "UGT", 0.9)] == [
        0,
        1,
        2,
    ]
    assert {job["sparsity"] for job in jobs if job["method"] == "dense"} == {0}
