import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from sparse_reference import BACKENDS

FOLDER = Path(__file__).parents[1] / "benchmarks"
SMALL_COPY = ["--copy-megabytes", "1"]


@pytest.fixture
def benchmark(monkeypatch):
    """The script as it is when it is run from its folder."""
    monkeypatch.syspath_prepend(FOLDER)
    helpers = ("heavy_tailed", "own_process")
    spec = importlib.util.spec_from_file_location("script_spmm", FOLDER / "spmm.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    for name in helpers:
        sys.modules.pop(name, None)


def test_every_path_is_timed(benchmark, capsys):
    options = (
        "--graph arxiv products --scale 0.001 --width 4 --step forward backward values --runs 3 --copy-megabytes 1"
    )
    threads = torch.get_num_threads()
    figures = benchmark.main([*options.split(), *SMALL_COPY])
    assert torch.get_num_threads() == threads
    paths = [*BACKENDS, benchmark.PYG]
    expected = {
        f"{graph}/4/{reduce}/{step}/{path} ms"
        for graph in ("arxiv", "products")
        for reduce in ("sum", "max")
        for step in benchmark.STEPS
        for path in [*paths, *([benchmark.PLAIN, benchmark.REDUCED] if (reduce, step) == ("sum", "forward") else [])]
    }
    assert set(figures) == expected | {"copy GB/s"}
    assert all(isinstance(value, float) and value > 0 for value in figures.values())
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(lines) == len(expected) + 2
    assert len({line.count("|") for line in lines}) == 1
    assert "synthetic, 169 nodes" in lines[2]


def test_least_bytes_by_hand(benchmark):
    """2 nodes, 3 edges, 5 features of 4 bytes: 20 for row offsets and columns, 12 for values, 40 for a result."""
    assert benchmark.least_bytes(2, 3, 5, 4, "sum", "forward") == (20 + 12 + 40 + 40, 20 + 12 + 40 + 60)
    assert benchmark.least_bytes(2, 3, 5, 4, "sum", "backward") == (224, 264)


def test_what_does_not_fit_is_left_out(benchmark, capsys, monkeypatch):
    monkeypatch.setattr(benchmark, "available_bytes", lambda device: 0)
    options = "--scale 0.001 --width 4 --reduce max --step forward --runs 1"
    figures = benchmark.main([*options.split(), *SMALL_COPY])
    assert not any(benchmark.PYG in name for name in figures)
    assert "| PyG gather-scatter | too large for the memory |" in capsys.readouterr().out
