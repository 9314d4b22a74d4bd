import importlib.util
import math
from pathlib import Path

import common
import ogb_sets
import pytest
import torch
from torch_geometric.data import HeteroData

from graphsparse.datasets import load_ogb

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted(path for path in (ROOT / "examples").glob("*.py") if path.name != "common.py")
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
    assert list(Path("out").glob("*.png"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_help_has_a_worked_line(path, capsys):
    with pytest.raises(SystemExit, match="0"):
        script(path).main(["--help"])
    assert f"python examples/{path.name} --" in capsys.readouterr().out


#: Script, what it is given, and what it says.
MISTAKES = [
    *((path.stem, ["--plot", "plot.txt"], "must end in .png, .pdf, .svg") for path in SCRIPTS),
    *((path.stem, ["--plot", "."], "must be a file") for path in SCRIPTS),
    *((path.stem, ["--data", "ogbl-ddi"], "gitl_link_prediction.py") for path in ON_NODES if "gitl" not in path.stem),
    *((path.stem, ["--data", "ogbg-molbace"], "molecules.py") for path in ON_NODES if "gitl" not in path.stem),
    *((path.stem, ["--data", "coora"], "did you mean 'cora'") for path in ON_NODES),
    ("gitl_link_prediction", ["--baselines", "cosine", "pagerang"], "there is no pagerang; known are"),
    ("gitl_link_prediction", ["--pair", "acm"], "--pair: there is no pair of graphs 'acm'"),
    ("teddy", ["--edges", "40"], "40 % is 0.4"),
    ("sparsify", ["--sparsity", "40"], "40 % is 0.4"),
    ("sparsify", ["--methods", "best"], "invalid choice"),
    ("ticket_arena", ["--methods", "teddy", "usg"], "invalid choice"),
    ("ticket_arena", ["--rounds", "0"], "at least 1"),
    ("teddy", ["--model", "gnc"], "known are GCN, SAGE, GIN, GAT"),
    ("teddy", ["--score", "tedy"], "'teddy'"),
    ("teddy", ["--out", "."], "must be a file"),
    ("untrained", ["--sparsity", "90"], "90 % is 0.9"),
    ("untrained", ["--compare", "rando"], "invalid choice"),
    ("untrained", ["--coats", "0"], "at least 1"),
    ("untrained_molecules", ["--data", "cora"], "sets of molecules"),
    ("untrained_molecules", ["--compare", "rando"], "invalid choice"),
    ("graph_ladling", ["--num", "0"], "at least 1"),
    ("merge_parts", ["--parts", "0"], "at least 1"),
]


@pytest.mark.parametrize(("name", "options", "message"), MISTAKES, ids=lambda value: str(value)[:40])
def test_mistakes_are_found_before_anything_is_trained(name, options, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        script(ROOT / "examples" / f"{name}.py").main(["--fast", *options])
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


ONE_CLASS = ["demo", "graph_ladling"]


@pytest.mark.parametrize("name", [*ONE_CLASS, "teddy", "untrained"])
def test_sets_of_ogb_by_name(name, tmp_path, monkeypatch, capsys):
    """One class for each node; and several labels, with features of edges alone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GRAPHSPARSE_DATA", str(tmp_path / "data"))
    ogb_sets.write_arxiv(tmp_path / "data" / "ogb")
    ogb_sets.write_proteins(tmp_path / "data" / "ogb")
    module = script(ROOT / "examples" / f"{name}.py")
    assert module.main(["--fast", "--data", "ogbn-arxiv"])
    if name in ONE_CLASS:
        with pytest.raises(SystemExit, match="2"):
            module.main(["--fast", "--data", "ogbn-proteins"])
        assert "several labels" in capsys.readouterr().err
    else:
        assert module.main(["--fast", "--data", "ogbn-proteins"])
        assert "test rocauc" in capsys.readouterr().out


def test_graphs_of_ogb_get_both_directions_and_features_of_their_edges(tmp_path, monkeypatch):
    monkeypatch.setenv("GRAPHSPARSE_DATA", str(tmp_path))
    ogb_sets.write_proteins(tmp_path / "ogb")
    data, whole = common.graph_by_name("ogbn-proteins"), load_ogb("ogbn-proteins")[0]
    assert data.is_undirected()
    for node in range(data.num_nodes):
        near = whole.edge_attr[whole.edge_index[1] == node]
        assert torch.allclose(data.x[node], near.mean(0) if len(near) else torch.zeros(8), atol=1e-6)


def test_graphs_of_ogb_with_features_of_ours_are_our_sets(monkeypatch):
    monkeypatch.setattr(common, "load", lambda name: f"our {name}")
    assert common.graph_by_name("ogbn-arxiv-structure") == "our ogbn-arxiv-structure"


def test_heterogeneous_sets_are_refused_by_name(monkeypatch):
    monkeypatch.setattr(common, "load_ogb", lambda name: (HeteroData(paper={"x": torch.ones(2, 1)}), None))
    with pytest.raises(ValueError, match="ogbn-mag has several types"):
        common.graph_by_name("ogbn-mag")


@pytest.mark.parametrize("path", ON_NODES, ids=lambda path: path.name)
def test_example_runs_on_a_real_graph(path, tmp_path, monkeypatch, data_root):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GRAPHSPARSE_DATA", str(data_root))
    assert script(path).main(["--fast", "--data", "cora"])


@pytest.mark.parametrize("model", ["GIN", "GAT", "GraphSAGE"])
def test_ticket_of_every_model_by_name(model, tmp_path):
    out = tmp_path / "ticket.safetensors"
    plot = tmp_path / "plot.svg"
    options = ["--model", model, "--out", str(out), "--plot", str(plot)]
    result = script(ROOT / "examples" / "teddy.py").main(["--fast", *options])
    assert out.is_file()
    assert plot.is_file()
    assert set(result) == {"dense model", "TEDDY ticket", "random ticket", "no edges"}


def untrained(tmp_path, *options):
    files = ["--out", str(tmp_path / "ticket.safetensors"), "--plot", str(tmp_path / "plot.png")]
    return script(ROOT / "examples" / "untrained.py").main(["--fast", *files, *options])


@pytest.mark.parametrize("net", ["GCN", "GIN", "GAT", "SAGE"])
def test_untrained_ticket_of_every_net(net, tmp_path, capsys):
    result = untrained(tmp_path, "--net", net, "--layers", "3", "--sparsity", "0.8", "--compare")
    assert result["sparsity"] == pytest.approx(0.8, abs=1e-3)
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


def test_sparsifiers_are_timed_beside_coalesce(tmp_path, capsys, monkeypatch):
    timed = script(ROOT / "benchmarks" / "sparsifier_cost.py")
    monkeypatch.setattr(timed, "run_apart", lambda path, arguments: timed.measure(*arguments[1:]))  # in this process
    options = ["--scale", "0.001", "--runs", "1", "--method", "teddy", "--out", str(tmp_path / "cost.jsonl")]
    assert timed.main(options)["0.001, coalesce, of coalesce"] == 1
    assert "'directed edges': 123718, 'method': 'teddy'" in capsys.readouterr().out
    assert len((tmp_path / "cost.jsonl").read_text().splitlines()) == 2
    timed.main(options)  # nothing is measured twice
    assert len((tmp_path / "cost.jsonl").read_text().splitlines()) == 2


def test_accuracy_of_sparsifiers_resumes(tmp_path, capsys):
    compared = script(ROOT / "benchmarks" / "sparsifiers.py")
    rules = ["random", "k_neighbor", "dspar pivotal", "forest + random", "dspar pivotal resampled"]
    options = ["--data", "synthetic", "--seeds", "2", "--epochs", "2", "--sparsity", "0.5", "0.9"]
    options += ["--out", str(tmp_path / "cells.jsonl"), "--rule", *rules]
    lines = compared.main(options)
    found = {(line["rule"], line["edges removed %"]): line for line in lines}
    assert found["k_neighbor", 90.0]["seeds"] == 2
    assert found["k_neighbor", 50.0]["minus random"] != ""
    assert ("forest + random", 90.0) not in found  # the forest alone is larger
    assert "| forest + random |" in (tmp_path / "cells.md").read_text()
    assert (tmp_path / "cells_synthetic.png").stat().st_size > 0
    assert "0 of them done before" in capsys.readouterr().out
    assert compared.main(options) == lines
    assert "24 of them done before" in capsys.readouterr().out


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
