import pickle
import threading
from pathlib import Path

import pytest
import torch

from graphsparse.datasets import load
from graphsparse.datasets.cache import cache_root, data_root, drop_notes, private_copy, safe_loading
from graphsparse.testing import random_graph


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.setenv("GRAPHSPARSE_CACHE", str(tmp_path / "cache"))
    for file, text in {"Cora/raw/a": "A", "Cora/raw/deep/b": "B", "RELEASE": "1", "Other/raw/c": "C"}.items():
        path = tmp_path / "source" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "source"


def _state(folder):
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(folder.rglob("*"))}


def _names(folder):
    return [path.name for path in folder.iterdir()]


def _write(folder):
    (folder / "processed").mkdir()
    (folder / "processed" / "data.pt").write_text("done")


def test_the_copy_looks_like_the_source_and_holds_what_was_built(source):
    folder = private_copy(source, ["Cora/raw", "RELEASE"], _write, name="Cora")
    assert folder.parent == cache_root() / "datasets"
    assert folder.name.startswith("Cora-")
    files = {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}
    assert files == {"Cora/raw/a": "A", "Cora/raw/deep/b": "B", "RELEASE": "1", "processed/data.pt": "done"}
    assert _names(folder.parent) == [folder.name]  # nothing temporary is left


def test_nothing_that_is_done_in_the_copy_reaches_the_source(source):
    def build(folder):
        (folder / "Cora" / "raw" / "a").rename(folder / "Cora" / "raw" / "renamed")
        (folder / "Cora" / "raw" / "deep" / "b").unlink()
        (folder / "Cora" / "raw" / "new").write_text("new")

    before = _state(source)
    folder = private_copy(source, ["Cora/raw"], build)
    assert (folder / "Cora" / "raw" / "renamed").read_text() == "A"
    assert _state(source) == before


def test_built_once_and_again_when_files_or_the_variant_change(source):
    built = []
    first = private_copy(source, ["Cora/raw"], built.append)
    assert private_copy(str(source), ["Cora/raw"], built.append) == first
    assert len(built) == 1
    other = private_copy(source, ["Cora/raw"], built.append, variant="split=geom-gcn")
    (source / "Cora" / "raw" / "a").write_text("changed")
    changed = private_copy(source, ["Cora/raw"], built.append)
    (source / "Cora" / "raw" / "extra").write_text("")
    extra = private_copy(source, ["Cora/raw"], built.append)
    assert len({first, other, changed, extra}) == len(built) == 4


def test_links_inside_the_source_are_followed(source):
    (source / "linked").mkdir()
    (source / "linked" / "a").symlink_to(Path("..") / "Cora" / "raw" / "a")
    folder = private_copy(source, ["linked"], lambda folder: None)
    assert (folder / "linked" / "a").read_text() == "A"


def test_copies_where_the_system_allows_no_links(source, monkeypatch):
    def refuse(self, target):
        raise OSError("no links here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    folder = private_copy(source, ["Cora/raw"], lambda folder: None)
    assert (folder / "Cora" / "raw" / "deep" / "b").read_text() == "B"
    assert not (folder / "Cora" / "raw" / "a").is_symlink()


def test_two_at_the_same_time_get_the_same_folder(source):
    together, built, returned = threading.Barrier(2, timeout=20), [], []

    def build(folder):
        together.wait()  # neither can finish before both have begun
        _write(folder)
        built.append(folder)

    threads = [
        threading.Thread(target=lambda: returned.append(private_copy(source, ["Cora/raw"], build))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(built)) == 2
    assert len(returned) == 2
    assert len(set(returned)) == 1
    assert (returned[0] / "processed" / "data.pt").read_text() == "done"
    assert _names(returned[0].parent) == [returned[0].name]


def test_an_interrupted_build_leaves_nothing(source):
    def build(folder):
        _write(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        private_copy(source, ["Cora/raw"], build)
    assert _names(cache_root() / "datasets") == []
    assert (private_copy(source, ["Cora/raw"], _write) / "processed" / "data.pt").is_file()


def test_a_missing_entry_is_named(source):
    with pytest.raises(FileNotFoundError, match="CiteSeer"):
        private_copy(source, ["CiteSeer/raw"], _write)


def test_a_cache_that_cannot_be_written_is_named(source, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("GRAPHSPARSE_CACHE", str(tmp_path / "file"))
    with pytest.raises(PermissionError, match="GRAPHSPARSE_CACHE"):
        private_copy(source, ["Cora/raw"], _write)


def test_the_roots_follow_the_environment(monkeypatch):
    monkeypatch.setenv("GRAPHSPARSE_CACHE", "/somewhere")
    monkeypatch.setenv("GRAPHSPARSE_DATA", "/graphs")
    assert (cache_root(), data_root()) == (Path("/somewhere"), Path("/graphs"))
    monkeypatch.delenv("GRAPHSPARSE_CACHE")
    monkeypatch.setenv("GRAPHSPARSE_DATA", "")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert (cache_root(), data_root()) == (Path("/xdg/graphsparse"), Path("data"))
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_root() == Path.home() / ".cache" / "graphsparse"


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
