import importlib.util
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "threshold.py"


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("threshold", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_ways_agree_and_are_timed(script, capsys):
    threads = torch.get_num_threads()
    figures = script.main(["--size", "1000", "5000", "--runs", "2", "--sparsity", "0.7"])
    assert len(figures) == 2 * 7
    assert all(value > 0 for value in figures.values())
    assert "| 5,000 |" in capsys.readouterr().out
    assert torch.get_num_threads() == threads


def test_another_result_is_refused(script, monkeypatch):
    monkeypatch.setattr(script, "kth_smallest", lambda scores, k, overwrite: scores.max())
    with pytest.raises(RuntimeError, match="the ways disagree about the 90-th of 100 scores"):
        script.main(["--size", "100", "--runs", "1"])
