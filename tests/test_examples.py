import importlib.util
import math
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "examples").glob("*.py"))
ON_NODES = [path for path in SCRIPTS if path.name != "untrained_molecules.py"]


def script(path):
    spec = importlib.util.spec_from_file_location(f"script_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", ON_NODES, ids=lambda path: path.name)
def test_example_runs(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    result = script(path).main(["--fast"])
    assert result
    assert all(isinstance(value, float) for value in result.values())
    assert capsys.readouterr().out


@pytest.mark.parametrize("path", ON_NODES, ids=lambda path: path.name)
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


def untrained(tmp_path, *options):
    return script(ROOT / "examples" / "untrained.py").main(
        ["--fast", "--out", str(tmp_path / "ticket.safetensors"), *options]
    )


@pytest.mark.parametrize("net", ["GCN", "GIN", "GAT", "SAGE"])
def test_untrained_ticket_of_every_net(net, tmp_path, capsys):
    result = untrained(tmp_path, "--net", net, "--layers", "3", "--sparsity", "0.8", "--compare")
    assert result["sparsity"] == pytest.approx(0.8, abs=1e-3)
    assert result["loaded ticket"] == result["untrained ticket"]
    assert "same logits after loading" in capsys.readouterr().out


def test_untrained_ticket_and_its_sizes(tmp_path, capsys):
    options = ["--epochs", "5", "--sparsity", "0.5", "--compare", "random_untrained", "magnitude"]
    result = untrained(tmp_path, *options)
    num = 200 * 16 + 16 * 7
    assert result["dense kB"] == 4 * (num + 16 + 7) / 1e3
    assert result["entropy kB"] == pytest.approx(num / 8e3)  # one bit each
    assert result["ticket kB"] == (tmp_path / "ticket.safetensors").stat().st_size / 1e3
    assert set(result) >= {"random untrained", "magnitude"}
    assert result["untrained ticket"] > result["random untrained"]
    out = capsys.readouterr().out
    assert f"{'dense weights':<30}{'13.3':>13}" in out
    assert f"{'untrained ticket':<30}{100 * result['untrained ticket']:>13.1f}" in out


def test_untrained_ticket_with_coats(tmp_path):
    result = untrained(tmp_path, "--preset", "multicoated", "--coats", "5", "--sparsity", "0.5", "--compare")
    # Half, and a tenth for each number of coats from 1 to 5.
    entropy = (0.5 + 5 * 0.1 * math.log2(10)) * (200 * 16 + 16 * 7) / 8e3
    assert result["entropy kB"] == pytest.approx(entropy, rel=1e-3)
    module = script(ROOT / "examples" / "untrained.py")
    with pytest.raises(SystemExit):
        module.main(["--net", "PNA"])


def test_search_of_the_example_goes_on(tmp_path, capsys):
    path = tmp_path / "search"
    first = untrained(tmp_path, "--checkpoint", str(path))
    saved = (path / "mask-1.pt").read_bytes()
    assert untrained(tmp_path, "--checkpoint", str(path)) == first
    assert (path / "mask-1.pt").read_bytes() == saved  # nothing was left to search
    with pytest.raises(ValueError, match="belongs to another run: training.seed"):
        untrained(tmp_path, "--checkpoint", str(path), "--seed", "1")


def test_molecules(tmp_path, monkeypatch, data_root, capsys):
    monkeypatch.setenv("GRAPHSPARSE_DATA", str(data_root))
    monkeypatch.chdir(tmp_path)
    module = script(ROOT / "examples" / "untrained_molecules.py")
    options = ["--net", "GIN", "--preset", "multicoated", "--compare"]
    result = module.main(["--fast", *options])
    assert set(result) == {"untrained ticket", "dense", "loaded ticket"}
    assert result["loaded ticket"] == pytest.approx(result["untrained ticket"], abs=1e-6)
    assert "same logits after loading, test rocauc" in capsys.readouterr().out
    result = module.main(["--fast", "--data", "ogbg-molfreesolv", "--compare", "random_untrained"])
    assert set(result) == {"untrained ticket", "dense", "random untrained", "loaded ticket"}
    assert result["untrained ticket"] < result["random untrained"]  # an error
    assert "test rmse" in capsys.readouterr().out


def test_scores_are_timed_beside_coalesce(capsys):
    figures = script(ROOT / "benchmarks" / "edge_scores.py").main(["--scale", "0.001", "--runs", "1"])
    assert set(figures) == {"ratio at 0.001", "GB above input at 0.001"}
    assert "| 0.001 | 123,718 |" in capsys.readouterr().out


def test_curve_resumes_where_it_stopped(tmp_path, capsys):
    curve = script(ROOT / "benchmarks" / "teddy_curve.py")
    job = {"data": "synthetic", "net": "GCN", "protocol": "train", "rule": "teddy", "level": 4, "seed": 0}
    row = curve.run(job, hidden=8, epochs=2)
    assert row["edges"] == pytest.approx(1 - 0.95**4, abs=1e-3)

    def run():
        options = ["--data", "synthetic", "--seeds", "1", "--epochs", "2", "--hidden", "8", "--workers", "0"]
        means = curve.main([*options, "--out", str(tmp_path)])
        return means, capsys.readouterr().out.splitlines()

    first, text = run()
    assert text[0] == "80 trainings, 0 of them done before"
    assert first["synthetic/GCN/train/teddy/4"] == pytest.approx(100 * row["test"], abs=0.005)
    store = tmp_path / "teddy_curve.jsonl"
    lines = store.read_text().splitlines()
    # A kill in the middle of a line, and some cells lost.
    store.write_text("\n".join([*lines[:60], lines[60][:25]]))
    second, again = run()
    assert again[0] == "80 trainings, 60 of them done before"
    assert (second, again[1:]) == (first, text[1:])
    for name in ("teddy_curve.csv", "teddy_curve.md", "teddy_curve_synthetic_gcn.png"):
        assert (tmp_path / name).stat().st_size > 0


def test_names_of_baselines_are_looked_at_before_any_training(capsys):
    with pytest.raises(SystemExit):
        script(ROOT / "examples" / "gitl_link_prediction.py").main(["--baselines", "cosine", "pagerang"])
    assert "--baselines: there is no pagerang; known are" in capsys.readouterr().err
