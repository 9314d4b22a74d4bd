import csv
import importlib.util
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "untrained_inference.py"
SMALL = ["--sparsity", "0.9", "--nodes", "300", "--hidden", "16", "--epochs", "3", "--rows", "50", "--budget", "0"]


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("untrained_inference", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_all_forms_have_figures(script, tmp_path, capsys):
    threads = torch.get_num_threads()
    files = [str(tmp_path / "table.csv"), str(tmp_path / "table.md")]
    rows = script.main([*SMALL, "--width", "40", "--density", "0.05", "--out", files[0], "--out", files[1]])
    assert torch.get_num_threads() == threads
    ticket, layer = ([row for row in rows if row["what"].startswith(what)] for what in ("GCN", "layer"))
    assert [row["form"] for row in ticket] == ["PyG", "accelerate", "to_csr"]
    assert [row["form"] for row in layer] == ["PyG", "accelerate", "to_csr", "torch CSR"]
    assert all(row["ms"] > 0 and row["kB"] > 0 for row in rows)
    by_form = {row["form"]: row for row in layer}
    nonzero = int(script.layer(40, 0.05).weight.count_nonzero())
    assert by_form["PyG"]["M MACs"] == round(50 * 40 * 40 / 1e6, 2)
    assert by_form["to_csr"]["M MACs"] == by_form["torch CSR"]["M MACs"] == round(50 * nonzero / 1e6, 2)
    assert by_form["to_csr"]["kB"] == round((8 * nonzero + 4 * 41 + 4 * 40) / 1e3, 1)
    assert ticket[0]["sparsity"] > 0.89
    with open(files[0], newline="") as file:  # noqa: PTH123
        assert [row["form"] for row in csv.DictReader(file)] == [row["form"] for row in rows]
    assert Path(files[1]).read_text().strip() in capsys.readouterr().out


def test_other_files_are_refused(script):
    with pytest.raises(SystemExit):
        script.main([*SMALL, "--out", "table.txt"])
