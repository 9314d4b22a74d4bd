import importlib.util
from pathlib import Path

import pytest

from graphsparse.testing import random_graph

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    spec = importlib.util.spec_from_file_location("channels_benchmark", FOLDER / "channels.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "graph", lambda name: random_graph(num_features=16))
    return module


@pytest.mark.once
def test_both_tables_and_what_was_done_is_kept(script, tmp_path, monkeypatch, capsys):
    words = ["--data", "cora", "--time", "cora", "--width", "16", "--seeds", "2", "--epochs", "2", "--budget", "0"]
    words += ["--out", str(tmp_path)]
    lines = script.main(words)
    methods = {line["method"] for line in lines if "method" in line}
    assert methods == {"dense", "narrow", *script.METHODS}
    speed = {(line["what"], line["layers"], line["fewer channels"]): line["ms"] for line in lines if "ms" in line}
    assert len(speed) == 2 * 2 * 4
    text = capsys.readouterr().out
    assert "| cora, width 16 | 2 times fewer | 4 times fewer | 8 times fewer |" in text
    monkeypatch.setattr(script, "run_group", None)
    assert script.main(words) == lines
