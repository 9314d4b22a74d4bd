"""Scale of propagation, metrics and key matching: tiny sizes run, and results that disagree are refused."""

import csv
import json

import gitl_scale as scale
import pytest
import torch


@pytest.fixture
def here(monkeypatch):
    """Run every step in this process."""

    def run_apart(script, arguments):
        assert script == scale.__file__
        step, numbers = json.loads(arguments[arguments.index("--one") + 1])
        return json.loads(json.dumps(scale.STEPS[step](*numbers)))

    monkeypatch.setattr(scale, "run_apart", run_apart)


def test_pairs_are_distinct_and_heavy_tailed():
    pairs = scale.make_pairs(4000, 1000)
    low, high = pairs.min(0).values, pairs.max(0).values
    assert (low < high).all()
    assert high.max() < 1000
    assert torch.unique(low * 1000 + high).numel() == pairs.size(1) == 4000
    degree = torch.bincount(pairs.flatten(), minlength=1000)
    assert degree.argmax() == 0
    assert degree[0] > 5 * degree.double().mean()
    assert (low.diff() < 0).any()
    queries = scale.make_queries(5000, 4)
    assert (queries[0] != queries[1]).all()
    assert queries.min() == 0
    assert queries.max() == 3


@pytest.mark.parametrize("mode", ["residual", "outcome"])
def test_all_steps(mode, here, tmp_path, capsys):
    figures = scale.main(["--scale", "2e-4", "--share", "0.5", "1", "--mode", mode, "--out", str(tmp_path)])
    assert figures["propagation 0, anchors"] == 10_000
    assert figures["propagation 1, queries"] == figures["metrics 0, scores"] == 20_000
    assert figures["explicit 0, error"] < 1e-6
    assert figures["propagation 1, moved"] > 0.9
    # Two normal distributions, one standard deviation apart: the normal distribution function at 1 / sqrt(2).
    assert figures["metrics 0, auroc"] == pytest.approx(0.76, abs=0.02)
    assert figures["keys 0, shared"] == 200
    assert all(value > 0 for name, value in figures.items() if name.endswith((" s", "GB")) or "ns per" in name)
    out = capsys.readouterr().out
    assert out == (tmp_path / "gitl_scale.md").read_text()
    assert "| 10,000 | 600 |" in out
    with (tmp_path / "gitl_scale.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == [
            "propagation",
            "propagation",
            "explicit",
            "metrics",
            "keys",
        ]


def test_one_step_in_a_process_of_its_own():
    figures = scale.main(["--scale", "1e-4", "--step", "keys"])
    assert figures["keys 0, target keys"] == 300


def test_the_number_of_entries_is_that_of_the_line_graph():
    assert (
        scale.propagation(500, 60, 0, "residual")["line graph entries"] == scale.explicit(500, 60)["line graph entries"]
    )


def test_another_result_is_refused(monkeypatch):
    monkeypatch.setattr(scale.EdgeLabelPropagation, "correct", lambda self, queries, p: p + 0.001)
    with pytest.raises(RuntimeError, match="propagation differs by .* from the line graph as a matrix"):
        scale.explicit(500, 60)
    join_keys = scale.join_keys
    monkeypatch.setattr(scale, "join_keys", lambda target, sources: join_keys(sources[0], [target]))
    with pytest.raises(RuntimeError, match="the ways to match keys disagree"):
        scale.keys(300, 60)
