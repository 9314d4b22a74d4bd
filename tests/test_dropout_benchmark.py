import importlib.util
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    spec = importlib.util.spec_from_file_location("dropout_benchmark", FOLDER / "dropout.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_both_are_timed(script, capsys):
    figures = script.main(["--shape", "100", "50", "--p", "0.5", "0.3", "--runs", "2"])
    assert set(figures) == {((100, 50), 0.5), ((100, 50), 0.3)}
    assert all(value > 0 for pair in figures.values() for value in pair)
    assert "| 100 x 50 | 0.3 |" in capsys.readouterr().out


@pytest.mark.parametrize("wrong", [lambda x, p: x * (torch.rand(x.shape) > p), lambda x, p: x / (1 - p)])
def test_another_share_or_scale_is_refused(script, monkeypatch, wrong):
    monkeypatch.setattr(script, "dropout", wrong)
    with pytest.raises(RuntimeError, match="does not drop a share of 0.5"):
        script.main(["--shape", "100", "50", "--p", "0.5", "--runs", "1"])
