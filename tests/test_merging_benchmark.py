import importlib.util
from pathlib import Path

import pytest
import torch

from graphsparse.testing import random_graph

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    spec = importlib.util.spec_from_file_location("merging_benchmark", FOLDER / "merging.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "load", lambda name: random_graph(150, num_classes=4))
    return module


@pytest.mark.once
def test_every_row_of_every_case_and_what_was_done_is_kept(script, tmp_path, monkeypatch, capsys):
    words = [
        "--data",
        "cora",
        "--net",
        "SAGE",
        "GAT",
        "--case",
        "parts-2",
        "parts-3",
        "classes",
        "same",
        "--seeds",
        "1",
    ]
    words += ["--epochs", "3", "--hidden", "8", "--out", str(tmp_path / "merging.jsonl")]
    lines = script.main(words)
    rows = {(line["net"], line["case"], line["row"]) for line in lines}
    assert {row for net, case, row in rows if (net, case) == ("SAGE", "parts-2")} == {
        *script.CONTROLS,
        *script.METHODS,
    } - needs_a_shared_start(script)
    # A layer whose aggregation depends on its weights has no closed form, and weights of different heads no mean.
    assert ("GAT", "parts-2", "gnnmerge") not in rows
    assert ("GAT", "parts-2", "router") in rows
    assert ("SAGE", "classes", "mean") not in rows
    assert "| condense |" in capsys.readouterr().out
    assert (tmp_path / "merging.png").stat().st_size > 0
    monkeypatch.setattr(script, "run_group", None)
    assert script.main(words) == lines


def needs_a_shared_start(script):
    return {row for row in script.METHODS if row in script.MERGES and "base" in script.MERGES[row].needs}


def test_what_networks_see_of_each_other(script):
    job = {"data": "cora", "net": "SAGE", "start": "own", "seed": 0}
    setting = {"epochs": 1, "hidden": 8}
    parts = script.Setting({**job, "case": "parts-3"}, setting)
    assert torch.cat(parts.owned).sort().values.tolist() == list(range(150))
    for graph, nodes in zip(parts.graphs, parts.owned, strict=True):
        assert torch.equal(graph.x, parts.data.x[nodes])
        assert graph.num_nodes == len(nodes)
    classes = script.Setting({**job, "case": "classes"}, setting)
    for own, nodes, graph in zip(classes.classes, classes.owned, classes.graphs, strict=True):
        assert set(classes.data.y[nodes].tolist()) == set(own.tolist())
        assert bool(classes.data.train_mask[nodes].all())
        assert torch.equal(own[graph.y[nodes]], classes.data.y[nodes])
    assert not set(classes.classes[0].tolist()) & set(classes.classes[1].tolist())
