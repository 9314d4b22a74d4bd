"""The arena: a cell is a ticket of the package, figures by hand, and the page holds what the script writes."""

import json
import shutil
from pathlib import Path

import arena
import arena_tables
import pytest
import torch
from torch_geometric.nn import GCN

from graphsparse.tickets import L0, METHODS, OneShot, find_tickets
from graphsparse.training import NodeTask, Training

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[1]


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    """Return a function that runs a tiny arena in this process and returns its means and what was printed."""
    monkeypatch.setattr(arena, "ROUNDS", ("4", "10"))

    def tiny(*options):
        common = ["--data", "synthetic", "--epochs", "2", "--seeds", "2", "--out", str(tmp_path / "arena.jsonl")]
        means = arena.main([*common, *options])
        return means, capsys.readouterr().out

    return tiny


def rows_of(folder):
    return [json.loads(line) for line in (folder / "arena.jsonl").read_text().splitlines()]


def test_counts_tables_page_and_resume(run, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{arena.BEGIN}\nold\n{arena.END}\nafter\n")
    options = ["--track", "weights", "joint", "--method", "random, ERK", "IMP", "random + l0", "teddy + l0", "narrow"]
    means, first = run(*options, "--page", str(page))
    # Two seeds of three controls and of six methods at two cells each.
    assert "30 trainings, 0 of them done before" in first
    assert len(means) == 3 + 6 * 2
    rows, data = rows_of(tmp_path), arena.graph("synthetic", 0)
    pairs, weights = data.num_edges // 2, 64 * (200 + 7)
    for row in rows:
        edges, share = arena.CELLS.get(row["cell"], (0.0, 0.0))
        removed = 0 if row["track"] != "joint" else int(edges * pairs)
        assert round(row["edge_sparsity"] * pairs) == removed
        if row["method"] == "narrow":
            assert abs(row["weights"] - (1 - share) * weights) <= (200 + 7) / 2
        else:
            assert row["weights"] == weights - int((row["track"] in ("weights", "joint")) * share * weights)
    one = {(row["method"], row["cell"]): row for row in rows if row["seed"] == 1}
    # Ten rounds on the way to two tickets, which are trained once more.
    found = [(row["trainings"], row["epochs"]) for row in (one["IMP", "4"], one["teddy + l0", "10"])]
    assert found == [(12, 24), (2, 4)]
    text = (tmp_path / "arena.md").read_text()
    assert text.strip() in first
    assert page.read_text() == f"before\n{arena.BEGIN}\n\n{text.strip()}\n\n{arena.END}\nafter\n"
    assert (tmp_path / "arena_synthetic.png").read_bytes()[:4] == b"\x89PNG"

    kept = (tmp_path / "arena.jsonl").read_text().splitlines()
    (tmp_path / "arena.jsonl").write_text("\n".join([*kept[:11], kept[11][:30]]))
    again, second = run("--track", "joint", "--method", "random + l0")
    assert "10 trainings, 5 of them done before" in second
    assert {name: means[name] for name in again if "joint" in name} == {k: v for k, v in again.items() if "joint" in k}
    assert run("--report")[0] == again


def test_a_cell_is_the_ticket_of_the_package(run, tmp_path):
    run("--track", "joint", "--method", "teddy + l0")
    data, targets = arena.graph("synthetic", 0), [arena.CELLS[number] for number in arena.ROUNDS]
    tickets = find_tickets(
        lambda: GCN(200, 64, 2, 7, dropout=0.5, bias=False),
        NodeTask(data),
        targets=targets,
        method=OneShot("teddy", L0()),
        training=Training(epochs=2, seed=1),
    )
    found = {row["cell"]: row["test"] for row in rows_of(tmp_path) if (row["method"], row["seed"]) == ("teddy + l0", 1)}
    assert found == {number: ticket.metrics["test"] for number, ticket in zip(arena.ROUNDS, tickets, strict=True)}


def test_every_method_of_the_table_is_there_or_left_out():
    for data in arena.GRAPHS:
        for track, named in arena.methods(data).items():
            for name, found in named.items():
                if found is not None and track != "control" and name != "narrow":
                    wanted = {"edges", "weights"} if track == "joint" else {track}
                    assert wanted <= set(found.prunes), (track, name)
    joint, cora = arena.methods("cora")["joint"], arena.methods("cora-inductive")["joint"]
    assert set(joint) - set(cora) == {"UGS", "WD-GLT", "FastGLT"}
    assert (joint["UGS"] is not None) == ("ugs" in METHODS)


def test_macs_by_hand():
    data = arena.Data(x=torch.ones(4, 5), edge_index=torch.tensor([[0, 1, 1, 2, 3], [1, 0, 2, 1, 3]]))
    model = GCN(5, 8, 2, 3, bias=False)
    with torch.no_grad():
        model.convs[0].lin.weight[:3] = 0
    # Four directions of two edges and a loop for each of four nodes; 5 of 8 rows of the first matrix are left.
    assert arena.macs(model, data) == ((4 + 4) * (8 + 3), 4 * (5 * 5 + 8 * 3))


def test_statistics_against_published_values():
    # Holm's own step-down on four p values; Nemenyi: table 5 of Demsar, JMLR 7 (2006), q = 2.728 for five methods.
    assert arena_tables.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert arena_tables.critical_difference(5, 30) == pytest.approx(2.728 * (5 * 6 / (6 * 30)) ** 0.5, abs=1e-3)
    # Differences 1, 2, 3 of the seeds that both have: 2 ± t(0.975, 2) / sqrt(3), t(0.975, 2) = 4.3027.
    mean, half, p = arena_tables.paired({0: 1, 1: 3, 2: 5, 3: 9}, {0: 0, 1: 1, 2: 2})
    assert (mean, half) == (2, pytest.approx(4.3027 / 3**0.5, abs=1e-4))
    assert p == pytest.approx(0.0742, abs=1e-4)  # t = 2 sqrt(3) at two degrees of freedom
    assert arena_tables.paired({0: 1.0}, {0: 0.5}) == (0.5, None, None)
    assert arena_tables.paired({0: 1.0, 1: 2.0}, {0: 0.0, 1: 1.0}) == (1, 0, 0)


def test_table_by_hand():
    shared = {"data": "cora", "track": "joint", "edge_sparsity": 0.1874, "weight_sparsity": 0.8988, "weights": 9}
    shared |= {"macs_edges": 1e6, "macs_weights": 2e6, "trainings": 1, "epochs": 200, "seconds": 3.0}
    tests = {"random + l0": (0.80, 0.81, 0.82), "teddy + l0": (0.79, 0.78, 0.77), "degree + l0": (0.81, 0.80)}
    rows = [
        {**shared, "method": method, "cell": "A", "seed": seed, "test": test}
        for method, found in tests.items()
        for seed, test in enumerate(found)
    ]
    lines = arena_tables.summarise(rows, [("cora", "joint", method, "A") for method in tests])
    # Differences -1, -3, -5, t = -sqrt(27 / 4), p = 1 - sqrt(27 / 35) at two degrees of freedom; and 1, -1, p = 1.
    assert [line["outcome"] for line in lines] == ["", "tie", "tie"]
    assert [line["p"] for line in lines] == ["", pytest.approx(2 * (1 - (27 / 35) ** 0.5), abs=1e-4), 1]
    text = arena_tables.table(lines, "cora", "joint")
    assert "| method | A: 18.7 / 89.9 % | wins, ties, losses | rank |" in text
    assert "| random + l0 | 81.0 ± 1.0 |  | 1.0 |" in text
    assert "| teddy + l0 | 78.0 ± 1.0 (-3.0 ± 5.0) | 0, 1, 0 | 3.0 |" in text
    assert "| degree + l0 (2 seeds) | 80.5 ± 0.7 (+0.0 ± 12.7) | 0, 1, 0 | 2.0 |" in text
    assert "| UGS, published | [79.5 ± 1.2] | | |" in text


def test_the_page_holds_what_the_script_writes(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(arena, "plot", lambda *args: None)
    for file in (ROOT / "benchmarks" / "results" / "arena.jsonl", ROOT / "docs" / "arena.md"):
        shutil.copyfile(file, tmp_path / file.name)
    (tmp_path / "arena.md").rename(tmp_path / "page.md")
    arena.main(["--report", "--out", str(tmp_path / "arena.jsonl"), "--page", str(tmp_path / "page.md")])
    assert (tmp_path / "page.md").read_text() == (ROOT / "docs" / "arena.md").read_text()
    for ending in ("md", "csv"):
        whole = (ROOT / "benchmarks" / "results" / f"arena.{ending}").read_text()
        assert (tmp_path / f"arena.{ending}").read_text() == whole
