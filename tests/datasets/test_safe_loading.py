import pickle

import pytest
import torch

from graphsparse.datasets import load
from graphsparse.datasets.safe_loading import drop_notes, safe_loading
from graphsparse.testing import random_graph


class Foreign:
    pass


def test_graphs_load_and_foreign_classes_do_not(tmp_path):
    torch.save(random_graph(), tmp_path / "graph.pt")
    torch.save(Foreign(), tmp_path / "foreign.pt")
    with safe_loading():
        assert torch.load(tmp_path / "graph.pt", weights_only=True).num_nodes == 60
        with pytest.raises(pickle.UnpicklingError):
            torch.load(tmp_path / "foreign.pt", weights_only=True)


def test_nothing_is_left_behind(tmp_path):
    before = set(torch.serialization.get_safe_globals())
    with safe_loading():
        pass
    assert set(torch.serialization.get_safe_globals()) == before


def test_notes_are_dropped_and_the_rest_stays(tmp_path):
    for name in ("pre_transform.pt", "pre_filter.pt", "data.pt"):
        (tmp_path / name).write_text("")
    drop_notes(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["data.pt"]


@pytest.mark.parametrize("name", ["cora", "actor", "minesweeper", "dblp", "airports-brazil", "texas"])
@pytest.mark.filterwarnings("error:Weights only load failed")
def test_real_sets_are_loaded_safely_twice(name, data_root, monkeypatch, tmp_path):
    monkeypatch.setenv("GRAPHSPARSE_CACHE", str(tmp_path))
    original, seen = torch.load, []

    def watched(*args, **kwargs):
        assert kwargs.get("weights_only") in (None, True)
        seen.append(args[0])
        return original(*args, **kwargs)

    monkeypatch.setattr(torch, "load", watched)
    load(name, data_root)
    load(name, data_root)
    assert seen
