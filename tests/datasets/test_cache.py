import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from graphsparse.datasets import load
from graphsparse.datasets.cache import cache_root, cached, data_root, raw_files, safe_loading
from graphsparse.testing import random_graph

FILES = ["Cora/raw/a", "Cora/raw/deep/b"]
CONTENT = {
    "x": torch.arange(3.0),
    "graph": {("author", "writes", "paper"): torch.ones(2, 0, dtype=torch.int64), 3: [None, 2.5, (1, "a")]},
    "sizes": [2, 1, 2**40],
    "kinds": ["drug", "disease", "drug", ""],
    "empty": [],
    "flag": True,
}


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.setenv("GRAPHSPARSE_CACHE", str(tmp_path / "cache"))
    for file, text in {"Cora/raw/a": "A", "Cora/raw/deep/b": "B", "RELEASE": "1"}.items():
        path = tmp_path / "source" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "source"


def _build(folder):
    return CONTENT


def _refuse(*args):
    raise AssertionError("must not be called")


def _same(found):
    assert torch.equal(found["x"], CONTENT["x"])
    assert found["graph"].keys() == CONTENT["graph"].keys()
    assert found["graph"]["author", "writes", "paper"].shape == (2, 0)
    rest = ("sizes", "kinds", "empty", "flag")
    assert [found[name] for name in rest] == [CONTENT[name] for name in rest]
    assert found["graph"][3] == CONTENT["graph"][3]
    return True


def _cached(source, build=_build, check=lambda content: None, files=FILES, **options):
    return cached("Cora", source, files, build, check, **options)


def test_what_was_built_comes_back_from_a_file_of_data(source):
    assert _same(_cached(source))
    assert _same(_cached(source, _refuse))
    (file,) = (cache_root() / "datasets").iterdir()
    assert (file.name[:5], file.suffix) == ("Cora-", ".safetensors")


def test_arrays_and_numbers_of_numpy_become_plain(source):
    found = _cached(source, lambda folder: {"a": np.arange(3), "n": [np.int64(4)], "size": np.float32(0.5)})
    assert torch.equal(found["a"], torch.arange(3))
    assert (found["n"], found["size"], type(found["n"][0])) == ([4], 0.5, int)


def test_it_is_built_in_a_folder_of_its_own_that_is_gone_afterwards(source):
    def build(folder):
        assert folder.stat().st_mode & 0o077 == 0  # nobody else may enter
        assert list(folder.iterdir()) == []
        (folder / "processed").mkdir()
        seen.append(folder)
        return {}

    seen = []
    _cached(source, build)
    assert not seen[0].exists()
    assert sorted(path.name for path in source.rglob("*") if path.is_file()) == ["RELEASE", "a", "b"]


def test_built_again_when_files_or_the_variant_change(source):
    built = []

    def build(folder):
        built.append(folder)
        return {}

    _cached(source, build)
    _cached(source, build)
    assert len(built) == 1
    _cached(source, build, variant="split=geom-gcn")
    (source / "Cora" / "raw" / "a").write_text("changed")
    _cached(source, build)
    _cached(source, build, files=[*FILES, "RELEASE"])
    assert len(built) == 4


@pytest.mark.parametrize("damage", ["cut", "other", "empty", "folder", "check", "header"])
def test_a_file_of_the_cache_that_is_wrong_is_made_anew(source, damage, recwarn):
    _cached(source)
    (file,) = (cache_root() / "datasets").iterdir()
    check = lambda content: None  # noqa: E731
    if damage == "folder":
        file.unlink()
        file.mkdir()
    elif damage == "check":
        check = lambda content: 1 / 0  # noqa: E731
    elif damage == "header":  # whole, with a checksum that fits, and not what was written
        from graphsparse.utils.files import write_tensors

        write_tensors(file, "processed data set", {}, {"x": {"tensor": "7"}, "y": {"call": "os.system"}})
    else:
        file.write_bytes({"cut": file.read_bytes()[:-1], "other": b"other", "empty": b""}[damage])
    assert _same(_cached(source, check=check))
    assert len(recwarn) == (damage == "folder")  # the only one that cannot be replaced
    if damage not in ("folder", "check"):
        assert _same(_cached(source, _refuse))


def test_two_at_the_same_time(source):
    together, returned = threading.Barrier(2, timeout=20), []

    def build(folder):
        together.wait()  # neither can finish before both have begun
        return CONTENT

    threads = [threading.Thread(target=lambda: returned.append(_cached(source, build))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [_same(content) for content in returned] == [True, True]
    assert len(list((cache_root() / "datasets").iterdir())) == 1


def test_an_interrupted_build_leaves_nothing(source):
    def build(folder):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _cached(source, build)
    assert not cache_root().exists()
    assert _same(_cached(source))


def test_a_cache_that_cannot_be_written_is_named(source, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("GRAPHSPARSE_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match=r"Cora is processed anew each time: .*file/datasets, .* GRAPHSPARSE_CACHE"):
        assert _same(_cached(source))


def test_raw_files_are_all_below_the_entries_and_links_are_followed_once(source):
    (source / "linked").mkdir()
    (source / "linked" / "a").symlink_to(Path("..") / "Cora" / "raw" / "a")
    (source / "linked" / "round").symlink_to(Path())
    (source / "linked" / "nowhere").symlink_to("gone")
    assert sorted(raw_files(source, ["Cora", "RELEASE", "linked"])) == [*FILES, "RELEASE", "linked/a"]
    with pytest.raises(FileNotFoundError, match="CiteSeer"):
        list(raw_files(source, ["CiteSeer/raw"]))


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


def test_graphs_load_for_as_long_as_is_asked(tmp_path):
    before = set(torch.serialization.get_safe_globals())
    torch.save(random_graph(), tmp_path / "graph.pt")
    with safe_loading():
        assert torch.load(tmp_path / "graph.pt", weights_only=True).num_nodes == 60
    assert set(torch.serialization.get_safe_globals()) == before


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
    first = load(name, data_root)
    assert seen  # PyG reads what it wrote
    seen.clear()
    second = load(name, data_root)
    assert not seen  # and nobody reads it again
    assert all(torch.equal(first[key], second[key]) for key in ("x", "edge_index", "y", "train_mask"))
