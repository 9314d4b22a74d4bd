import importlib.util
import json
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
        "--epochs",
        "3",
        "--hidden",
        "8",
        "--seeds",
        "1",
        "--out",
        str(tmp_path / "merging.jsonl"),
    ]
    script.main([*words, "--net", "GAT", "--case", "parts-2", "--row", "gnnmerge", "regmean"])
    words += ["--net", "SAGE", "--case", "parts-2", "parts-3", "classes"]
    lines = script.main(words)
    rows = {(line["case"], line["row"]) for line in lines}
    expected = {*script.CONTROLS, *script.METHODS} - needs_a_shared_start(script)
    assert {row for case, row in rows if case == "parts-2"} == expected
    # Weights of different heads have no mean; a layer whose aggregation depends on its weights has no closed form.
    assert ("classes", "mean") not in rows
    kept = [json.loads(line) for line in (tmp_path / "merging.jsonl").read_text().splitlines()]
    attention = {row["row"]: row["test"] for row in kept if row["net"] == "GAT"}
    assert attention["gnnmerge"] is None
    assert attention["regmean"] is not None
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
    skewed = [script.Setting({**job, "case": case}, setting) for case in ("skewed", "skewed-1", "skewed-2")]
    y, (first, second) = skewed[0].data.y, skewed[0].owned
    assert not set(first.tolist()) & set(second.tolist())
    assert torch.equal(torch.cat([first, second]).sort().values, skewed[0].data.train_mask.nonzero().squeeze(1))
    assert (y[first] % 2).float().mean() < 0.4 < 0.6 < (y[second] % 2).float().mean()
    tested = [part.data.test_mask for part in skewed]
    assert torch.equal(tested[1] | tested[2], tested[0])
    assert not (tested[1] & tested[2]).any()
    assert all(torch.equal(one, other) for one, other in zip(skewed[0].owned, skewed[1].owned, strict=True))
