import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "examples").glob("*.py"))


def script(path):
    spec = importlib.util.spec_from_file_location(f"script_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_example_runs(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    result = script(path).main(["--fast"])
    assert result
    assert all(isinstance(value, float) for value in result.values())
    assert capsys.readouterr().out


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_example_runs_on_a_real_graph(path, tmp_path, monkeypatch, data_root):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GRAPHSPARSE_DATA", str(data_root))
    assert script(path).main(["--fast", "--data", "cora"])


@pytest.mark.parametrize("model", ["GIN", "GAT", "GraphSAGE"])
def test_ticket_of_every_model_by_name(model, tmp_path):
    out = tmp_path / "ticket.safetensors"
    result = script(ROOT / "examples" / "teddy.py").main(["--fast", "--model", model, "--out", str(out)])
    assert out.is_file()
    assert set(result) == {"dense", "ticket"}


def test_scores_are_timed_beside_coalesce(capsys):
    figures = script(ROOT / "benchmarks" / "edge_scores.py").main(["--scale", "0.001", "--runs", "1"])
    assert set(figures) == {"ratio at 0.001", "GB above input at 0.001"}
    assert "| 0.001 | 123,718 |" in capsys.readouterr().out


def test_curve_resumes_where_it_stopped(tmp_path):
    curve = script(ROOT / "benchmarks" / "teddy_curve.py")
    job = {"data": "synthetic", "net": "GCN", "protocol": "train", "rule": "teddy", "level": 4, "seed": 0}
    row = curve.run(job, hidden=8, epochs=2)
    assert row["edges"] == pytest.approx(1 - 0.95**4, abs=1e-3)

    def run():
        options = ["--data", "synthetic", "--seeds", "1", "--epochs", "2", "--hidden", "8", "--out", str(tmp_path)]
        command = [sys.executable, "-W", "ignore", str(ROOT / "benchmarks" / "teddy_curve.py"), *options]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert "80 trainings, 0 of them done before" in (first := run())
    store = tmp_path / "teddy_curve.jsonl"
    lines = store.read_text().splitlines()
    # A kill in the middle of a line, and some cells lost.
    store.write_text("\n".join([*lines[:60], lines[60][:25]]))
    assert "80 trainings, 60 of them done before" in (second := run())
    assert second.splitlines()[1:] == first.splitlines()[1:]
    for name in ("teddy_curve.csv", "teddy_curve.md", "teddy_curve_synthetic_gcn.png"):
        assert (tmp_path / name).stat().st_size > 0
