"""Every benchmark that knows a small size runs at one, and what it compares is equal."""

import contextlib
import importlib.util
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.utils import coalesce, contains_self_loops, from_networkx, is_undirected, subgraph

from graphsparse.testing import random_graph
from graphsparse.typing import has_module

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    """Return a function that imports a benchmark by name, as it is when it is run from its folder."""
    monkeypatch.syspath_prepend(FOLDER)
    before = set(sys.modules)

    def load(name):
        spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    yield load
    # Names as plain as those of the helpers there must not stay.
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(FOLDER)):
            del sys.modules[name]


def test_synthetic_graph_is_what_it_says(script):
    module = script("community_graph")
    edge_index, community = module.community_graph(5000, 60_000, seed=1)
    assert edge_index.shape == (2, 120_000)
    assert not contains_self_loops(edge_index)
    assert is_undirected(edge_index)
    assert coalesce(edge_index).size(1) == 120_000
    degree = edge_index[0].bincount(minlength=5000).double()
    assert degree.max() > 8 * degree.median()  # heavy tail
    inside = community[edge_index[0]] == community[edge_index[1]]
    by_chance = (community.bincount().double() / 5000).pow(2).sum()
    assert inside.double().mean() > max(0.8, float(by_chance) + 0.3)
    assert torch.equal(edge_index, module.community_graph(5000, 60_000, seed=1)[0])
    assert not torch.equal(edge_index, module.community_graph(5000, 60_000, seed=2)[0])


def test_synthetic_graph_does_not_depend_on_blocks(script, monkeypatch):
    module = script("community_graph")
    monkeypatch.setattr(module, "BLOCK", 1000)
    edge_index, _ = module.community_graph(2000, 7000)
    assert coalesce(edge_index).size(1) == 14_000
    assert is_undirected(edge_index)


@pytest.mark.parametrize("model", ["GCN", "SAGE", "GIN", "GCNII"])
def test_message_passing_paths_agree(model, script, monkeypatch, tmp_path, capsys):
    module = script("message_passing")
    # In one process: starting one for each path takes longer than all of them.
    monkeypatch.setattr(module, "run_apart", lambda _, arguments, **__: module.measure(**json.loads(arguments[1])))
    options = ["--model", model, "--scale", "0.003", "0.006", "--hidden", "8", "--epochs", "1"]
    files = [tmp_path / "table.md", tmp_path / "table.csv"]
    figures = module.main([*options, "--markdown", str(files[0]), "--csv", str(files[1])])
    assert len(figures) == 2 * len(module.paths_of(model))
    assert all(value > 0 for value in figures.values())
    assert "ours, reordered, reuse" in (out := capsys.readouterr().out)
    assert "ns per directed edge" in out
    assert files[0].read_text().strip() == out.strip()
    assert len(files[1].read_text().splitlines()) == 1 + len(figures)


def test_message_passing_refuses_a_path_that_differs(script):
    module = script("message_passing")
    rows = {path: {"path": path, "losses": [3.0, 2.0]} for path in (module.BASE, "ours", module.FLOOR)}
    rows[module.FLOOR]["losses"] = [9.0, 9.0]
    module.check_losses(rows, dropout=0.0)
    rows["ours"]["losses"] = [3.0, 2.001]
    with pytest.raises(RuntimeError, match="ours has a loss of 2.001 in epoch 1"):
        module.check_losses(rows, dropout=0.0)
    rows["ours"]["losses"] = [float("nan")] * 2
    with pytest.raises(RuntimeError, match="nan"):
        module.check_losses(rows, dropout=0.0)


def test_message_passing_starts_processes(script, capsys):
    module = script("message_passing")
    options = ["--model", "GCN", "--scale", "0.003", "--hidden", "8", "--epochs", "1", "--keep-memory"]
    figures = module.main([*options, "--path", "dense"])
    assert set(figures) == {"GCN at 0.003, dense, s"}
    assert "kept by glibc" in capsys.readouterr().out


def test_failed_process_shows_its_error(script, tmp_path):
    (tmp_path / "failing.py").write_text("raise SystemExit('no such step')")
    with pytest.raises(RuntimeError, match="failing.py --one ended with 1:\nno such step"):
        script("own_process").run_apart(tmp_path / "failing.py", ["--one"])


def test_peak_of_a_process():
    # A process of its own: another test's freed memory, which the C library kept, would serve the block.
    code = """
import torch
import own_process as module
before = module.reset_peak()
block = torch.ones(40_000_000)
held = module.held_gb()
del block
assert 0.15 < module.peak_gb() - before < 0.2
assert held > before + 0.15
assert module.reset_peak() < held - 0.1
assert module.peak_gb() < held - 0.1
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run([sys.executable, "-c", code], cwd=FOLDER, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def products(script, monkeypatch):
    module = script("products_scale")
    module.started = []

    def run(_, arguments):
        step, options = json.loads(arguments[1])
        module.started.append(step)
        return module.run_step(step, options)

    monkeypatch.setattr(module, "run_apart", run)
    return module


def test_products_scale(products, tmp_path, capsys):
    options = ["--scale", "0.0005", "0.001", "--hidden", "8", "--sample", "1", "--clusters", "4"]
    options += ["--work", str(tmp_path)]
    figures = products.main(options)
    assert figures["error at 0.001"] <= 1e-5
    out = capsys.readouterr().out
    assert "**2,449 nodes, 123,718 directed edges**" in out
    assert "us per directed edge" in out
    has_sampler = has_module("torch_sparse") or has_module("pyg_lib")
    assert len(products.started) == 2 * (len(products.STEPS) - (not has_sampler))
    # Nothing is done twice, and only what depends on an option is done again.
    products.started.clear()
    assert products.main(options) == figures
    assert products.started == []
    assert capsys.readouterr().out == out
    products.main([*options, "--scale", "0.001", "--batch-size", "500", "--no-alternatives"])
    assert products.started == ["inference", "check"]


def test_products_check_finds_a_wrong_logit(products, tmp_path):
    options = ["--scale", "0.0005", "--hidden", "8", "--clusters", "4", "--no-alternatives", "--work", str(tmp_path)]
    products.main(options)
    folder = tmp_path / "scale_0.0005"
    logits = torch.load(folder / "logits.pt")
    torch.save(logits + 1e-3 * logits.abs().max(), folder / "logits.pt")
    with pytest.raises(RuntimeError, match="differ from a direct computation"):
        products.steps.check(folder, 8)


def test_clusters_of_known_parts(script):
    module = script("products_steps")
    edge_index, _ = module.community_graph(600, 3000)
    part = torch.from_numpy(np.random.default_rng(0).integers(0, 7, 600))
    data = Data(x=torch.arange(600.0).view(-1, 1), edge_index=edge_index, y=torch.arange(600))
    clusters = module.ClustersOf(data, part, 7)
    assert len(clusters) == 7
    loader = module.ClusterLoader(clusters, batch_size=3)
    seen = []
    for number, batch in enumerate(loader):
        members = torch.isin(part, torch.arange(3 * number, min(3 * number + 3, 7)))
        expected = subgraph(members, edge_index)[0]
        assert torch.equal(coalesce(batch.y[batch.edge_index]), coalesce(expected))
        assert torch.equal(batch.x.view(-1).long(), batch.y)
        seen.append(batch.y)
    assert torch.equal(torch.cat(seen).sort().values, torch.arange(600))
    single = clusters[2]
    assert torch.equal(coalesce(single.y[single.edge_index]), coalesce(subgraph(part == 2, edge_index)[0]))


def test_spmm(script, capsys):
    options = ["--scale", "0.002", "--width", "4", "--runs", "1", "--budget", "0.01", "--copy-megabytes", "1"]
    figures = script("spmm").main(options)
    assert all(value > 0 for value in figures.values())
    assert "PyG gather-scatter" in capsys.readouterr().out


@pytest.mark.slow  # two processes that import PyG
def test_referee_finds_what_fails_with_our_layers_alone(script, tmp_path, capsys):
    folder = tmp_path / "test"
    folder.mkdir()
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    (folder / "test_some.py").write_text(
        "import torch\nfrom torch_geometric.nn import GCN, GCNConv\n"
        "def test_same(): assert GCN(2, 2, 1).convs[0](torch.ones(2, 2), torch.tensor([[0], [1]])).shape == (2, 2)\n"
        "def test_script(): torch.jit.script(GCNConv(2, 2))\n"
        "def test_module(): assert GCNConv.__module__.startswith('torch_geometric')\n"
        "def test_wrong(): assert False\n"
    )
    figures = script("pyg_referee").main([str(tmp_path), "test"])
    assert figures["tests"] == 4
    assert figures["passed"] == {"PyG": 3, "ours": 1}
    assert [name.split("::")[1] for name in figures["different"]] == ["test_module", "test_script"]
    assert [name.split("::")[1] for name in figures["unknown"]] == ["test_module"]
    assert "TorchScript is refused by name" in capsys.readouterr().out


def here(module):
    """Run a script as :func:`run_apart` does, but in this process."""

    def run(_, options):
        with contextlib.redirect_stdout(io.StringIO()) as out:
            module.main(options)
        return json.loads(out.getvalue().splitlines()[-1])

    return run


def test_resistances_are_measured_against_solved_ones(script, monkeypatch, capsys, tmp_path):
    module = script("resistance")

    def missing(args):
        raise RuntimeError("No module named 'networkit'")

    graph = from_networkx(nx.connected_watts_strogatz_graph(200, 6, 0.3, seed=0))
    monkeypatch.setattr(module, "load", lambda name: graph)
    monkeypatch.setitem(module.PARTS, "networkit", missing)
    monkeypatch.setattr(module, "run_apart", here(module))
    found = module.main(["--edges", "30", "--probes", "1", "64", "--runs", "1", "--out", str(tmp_path)])
    few, many = (found[f"effective_resistance, {k} probes"] for k in (1, 64))
    assert many["error"] < min(0.08, few["error"])
    assert abs(many["off"]) < 0.005
    assert (tmp_path / "resistance.md").read_text() == capsys.readouterr().out


def test_sparsifiers_beside_those_of_networkit(script, monkeypatch):
    pytest.importorskip("networkit")
    module = script("sparsifier_speed")
    monkeypatch.setattr(module, "load", lambda name: random_graph(200))
    monkeypatch.setattr(module, "run_apart", here(module))
    rows = module.main(["--method", "local degree", "maximum spanning forest", "--runs", "1"])
    assert rows["local degree"]["ours"]["off"] == 0
    assert abs(rows["local degree"]["networkit"]["off"]) < 40
    assert len(rows["maximum spanning forest"]["networkit"]["seconds"]) == 1


def test_compare_graphs(script, capsys):
    module = script("compare_graphs")
    figures = module.main(["--data", "synthetic", "--runs", "1"])
    assert {"reading s", "distances s", "cuts s"} <= set(figures)
    assert "| pagerank |" in capsys.readouterr().out
    apart = module.measure_scale(0.0002)
    assert 0 < apart["edges"] < 13_000
    assert set(apart["seconds"]) == set(apart["peaks"])
