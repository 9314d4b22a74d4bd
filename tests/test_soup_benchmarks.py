import csv

import ingredient_scaling
import pytest
import soup_cost
import soups
import sparse_soups

pytestmark = pytest.mark.once


@pytest.mark.slow  # soups/evaluation/test_cached_forward.py checks the same decisions on small graphs
def test_cached_evaluation_takes_the_decisions_of_the_plain_loop(tmp_path, capsys, monkeypatch, data_root):
    monkeypatch.setenv("GRAPHSPARSE_DATA", str(data_root))
    options = ["--data", "cora", "--hidden", "8", "--net", "SAGE", "--granularity", "5", "--freed", "kept"]
    rows = soup_cost.main([*options, "--ingredients", "3", "--learned", "2", "6", "--out", str(tmp_path)])
    assert [row["path"] for row in rows] == [*soup_cost.PATHS, "learned, 2", "learned, 6"]
    assert rows[1]["same"] is rows[2]["same"] is True
    assert rows[0]["right"] == rows[1]["right"] == rows[2]["right"]
    out = capsys.readouterr().out
    assert "the same" in out
    assert "OTHERS" not in out
    assert "| SAGE | 6 ingredients |" in (tmp_path / "soup_cost.md").read_text()


@pytest.fixture(scope="module")
def small_run(tmp_path_factory, data_root):
    out = tmp_path_factory.mktemp("soups")
    patch = pytest.MonkeyPatch()
    patch.setenv("GRAPHSPARSE_DATA", str(data_root))
    options = ["--data", "cora", "--net", "GCN", "--sampler", "full", "--ingredients", "3", "--epochs", "5"]
    lines = soups.main([*options, "--repeats", "2", "--workers", "0", "--out", str(out)])
    yield out, lines, options
    patch.undo()


def test_every_method_has_a_row(small_run):
    out, lines, _ = small_run
    assert [line["method"] for line in lines] == list(soups.METHODS)
    with (out / "soups.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(lines)
    best = next(line for line in lines if line["method"] == "best ingredient")
    assert (best["minus best mean"], best["wins"]) == (0, 0)
    for line in lines:
        assert line["minus best mean"] == pytest.approx(line["test mean"] - best["test mean"], abs=0.02)
    assert "**cora** (2 repeats" in (out / "soups.md").read_text()
    assert (out / "soups_cora.png").stat().st_size > 0


def test_a_second_run_trains_nothing(small_run, monkeypatch, capsys):
    out, lines, options = small_run
    monkeypatch.setattr(soups, "run", None)
    again = soups.main([*options, "--repeats", "2", "--workers", "0", "--out", str(out)])
    assert again == lines
    assert "2 of them done before" in capsys.readouterr().out


@pytest.mark.slow  # test_cells.py has the law
def test_a_repeat_that_was_stopped_trains_nothing_twice(small_run, tmp_path, monkeypatch):
    """Stopped while soups are made: their ingredients are found in the store, which goes when the row is there."""
    options = small_run[-1]

    def stop(*given):
        raise KeyboardInterrupt

    arguments = [*options, "--repeats", "1", "--workers", "0", "--out", str(tmp_path)]
    with monkeypatch.context() as patch:
        patch.setattr(soups, "ensemble", stop)
        with pytest.raises(KeyboardInterrupt):
            soups.main(arguments)
    assert len(list(tmp_path.glob("ingredients/cora_GCN_full_0/ingredients/*/DONE"))) == 3
    monkeypatch.setattr("graphsparse.soups.workers.run_ingredient.fit", stop)
    again = soups.main(arguments)
    assert [line["method"] for line in again] == list(soups.METHODS)
    assert not list(tmp_path.glob("ingredients/*"))


def test_every_network_can_be_built():
    data = soups.graph("synthetic")
    for net in soups.NETS:
        assert soups.make_net(net, data, soups.SMALL)(data.x, data.edge_index).shape == (2000, 7)


@pytest.mark.slow  # soups/workers/test_train_ingredients.py checks the same of the workers themselves
def test_workers_end_with_the_same_weights(tmp_path):
    options = ["--data", "synthetic", "--ingredients", "2", "--epochs", "2", "--hidden", "4"]
    found = ingredient_scaling.main([*options, "--workers", "1", "2", "--out", str(tmp_path)])
    assert list(found) == [1, 2]
    assert "| 2 |" in (tmp_path / "ingredient_scaling.md").read_text()


def test_sparse_soups_are_as_sparse_as_they_must_be(tmp_path, monkeypatch, data_root, capsys):
    monkeypatch.setenv("GRAPHSPARSE_DATA", str(data_root))
    options = ["--data", "cora", "--seeds", "1", "--epochs", "1", "--workers", "0", "--out", str(tmp_path)]
    lines = sparse_soups.main(options)  # every state is counted
    assert [(line["sparsity"], line["method"]) for line in lines] == [
        (sparsity, method) for sparsity in sparse_soups.REPORTED for method in sparse_soups.METHODS
    ]
    assert all(line["minus ticket mean"] == 0 for line in lines if line["method"] == "ticket")
    monkeypatch.setattr(sparse_soups, "run", None)
    assert sparse_soups.main(options) == lines
    assert "1 of them done before" in capsys.readouterr().out
