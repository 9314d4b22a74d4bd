import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "dense.py"


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("dense", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_libraries_agree_and_are_timed(script, capsys):
    figures = script.main(["--shape", "3000", "40", "20", "--shape", "50", "4", "3", "--runs", "2"])
    assert list(figures) == [(3000, 40, 20), (50, 4, 3)]
    assert all(value > 0 for steps in figures.values() for pair in steps.values() for value in pair)
    assert "| 3,000 x 40 x 20 |" in capsys.readouterr().out


def test_another_result_is_refused(script, monkeypatch):
    monkeypatch.setattr(script, "linear", lambda x, weight: 2 * (x @ weight.t()))
    with pytest.raises(RuntimeError, match="the results of forward differ"):
        script.main(["--shape", "50", "4", "3", "--runs", "1"])
