import dataclasses
import multiprocessing
import shutil
import time
import urllib.error
import warnings

import numpy as np
import pytest
import torch
from torch_geometric.datasets import WebKB

from graphsparse.datasets import load, pyg_source
from graphsparse.datasets.cache import cache_root
from graphsparse.datasets.pyg_source import PYG_SOURCES, read_pyg

pytestmark = pytest.mark.once


def listing(folder):
    return sorted(
        (str(path.relative_to(folder)), path.lstat().st_size, path.lstat().st_mtime_ns) for path in folder.rglob("*")
    )


@pytest.fixture
def server(tmp_path, monkeypatch):
    """The official place of the WebKB graphs, as a folder, with a graph of four nodes."""
    folder = tmp_path / "server"
    (folder / "new_data" / "texas").mkdir(parents=True)
    (folder / "splits").mkdir()
    (folder / "new_data" / "texas" / "out1_node_feature_label.txt").write_text(
        "id\tx\ty\n0\t1,0\t0\n1\t0,1\t1\n2\t1,1\t0\n3\t0,1\t1\n"
    )
    (folder / "new_data" / "texas" / "out1_graph_edges.txt").write_text("from\tto\n0\t1\n1\t2\n3\t0\n")
    for split in range(10):
        masks = {key: np.arange(4) % 3 == (place + split) % 3 for place, key in enumerate(("train", "val", "test"))}
        np.savez(folder / "splits" / f"texas_split_0.6_0.2_{split}.npz", **{f"{k}_mask": v for k, v in masks.items()})
    monkeypatch.setattr(WebKB, "url", folder.as_uri())
    # Behind a file address there must be a file; a server may answer anything.
    door = (folder / "new_data" / "texas" / "out1_graph_edges.txt").as_uri()
    monkeypatch.setitem(PYG_SOURCES, "texas", dataclasses.replace(PYG_SOURCES["texas"], url=door))
    return folder


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GRAPHSPARSE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_missing_files_are_downloaded_into_the_root(server, cache, tmp_path):
    root = tmp_path / "root"
    data = load("texas", root, split=1)
    assert data.edge_index.tolist() == [[0, 1, 3], [1, 2, 0]]
    assert data.train_mask.tolist() == [False, True, False, False]
    assert sorted(str(path.relative_to(root / "webkb")) for path in root.rglob("*") if path.is_file()) == sorted(
        PYG_SOURCES["texas"].files
    )
    assert not list((root / "webkb").glob(".*"))

    shutil.rmtree(server)  # from now on there is no network
    before = listing(root)
    assert load("texas", root).num_nodes == 4
    shutil.rmtree(cache)
    assert load("texas", root).num_nodes == 4
    assert listing(root) == before


def test_files_that_are_there_are_not_replaced(server, cache, tmp_path):
    raw = tmp_path / "root" / "webkb" / "texas" / "raw"
    raw.mkdir(parents=True)
    (raw / "out1_graph_edges.txt").write_text("from\tto\n2\t3\n")
    assert load("texas", tmp_path / "root").edge_index.tolist() == [[2], [3]]


def test_interrupted_download_leaves_nothing(server, cache, tmp_path):
    (server / "splits" / "texas_split_0.6_0.2_7.npz").unlink()
    with pytest.raises(FileNotFoundError, match=r"nor 11 more.*No such file.*_split_0\.6_0\.2_7\.npz"):
        load("texas", tmp_path / "root")
    assert not [path for path in (tmp_path / "root").rglob("*") if path.is_file() or path.name.startswith(".")]
    assert not cache.exists()


@pytest.mark.parametrize("name", PYG_SOURCES)
def test_missing_data(name, tmp_path, monkeypatch):
    def no_network(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(pyg_source.urllib.request, "urlopen", no_network)
    source, root = PYG_SOURCES[name], tmp_path / "nowhere"
    start = time.perf_counter()
    with pytest.raises(FileNotFoundError) as caught:
        load(name, root)
    assert time.perf_counter() - start < 5
    for part in (name, str(root / source.folder / source.files[0]), source.url, "GRAPHSPARSE_DATA", "no network"):
        assert part in str(caught.value)
    assert isinstance(caught.value.__cause__, urllib.error.URLError)
    assert not root.exists()


def test_silent_server_is_given_up(tmp_path, monkeypatch):
    import socket

    monkeypatch.setattr(pyg_source, "_TIMEOUT", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/data"
        monkeypatch.setitem(PYG_SOURCES, "cora", dataclasses.replace(PYG_SOURCES["cora"], url=url))
        start = time.perf_counter()
        with pytest.raises(FileNotFoundError, match="timed out"):
            load("cora", tmp_path)
        assert time.perf_counter() - start < 5


def test_a_server_that_has_moved_still_answers(monkeypatch):
    def not_found(*args, **kwargs):
        raise urllib.error.HTTPError("https://example.org", 404, "Not Found", {}, None)

    monkeypatch.setattr(pyg_source.urllib.request, "urlopen", not_found)
    pyg_source._check_server("https://example.org")


def test_changed_raw_files_are_processed_anew(server, cache, tmp_path):
    load("texas", tmp_path)
    (tmp_path / "webkb" / "texas" / "raw" / "out1_graph_edges.txt").write_text("from\tto\n0\t1\n")
    assert load("texas", tmp_path).num_edges == 1


def test_cache_that_cannot_be_written(server, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GRAPHSPARSE_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    with pytest.warns(UserWarning, match="GRAPHSPARSE_CACHE"):
        load("texas", tmp_path / "root")
    before = listing(tmp_path / "root")
    with pytest.warns(UserWarning, match="texas is processed anew each time"):
        assert load("texas", tmp_path / "root").num_edges == 3
    assert listing(tmp_path / "root") == before
    assert not list((tmp_path / "temporary").iterdir())


def test_nothing_is_printed_and_no_filter_stays(server, cache, tmp_path, monkeypatch, capfd):
    load("texas", tmp_path)
    shutil.rmtree(cache)
    capfd.readouterr()
    monkeypatch.delenv("PYTEST_CURRENT_TEST")  # it makes PyG silent
    filters = list(warnings.filters)
    load("texas", tmp_path)
    assert capfd.readouterr() == ("", "")
    assert warnings.filters == filters


@pytest.mark.parametrize("name", PYG_SOURCES)
def test_root_is_not_changed(name, data_root, cache):
    folder = data_root / PYG_SOURCES[name].folder
    before = listing(folder)
    load(name, data_root)
    assert (cache / "datasets").is_dir()
    assert listing(folder) == before


def _load_edges(name, root, barrier, results):
    barrier.wait()
    results.put(load(name, root).edge_index.sum().item())


def test_two_processes_at_once(data_root, cache):
    context = multiprocessing.get_context("fork")  # the imports of a new process would take longest
    barrier, results = context.Barrier(2), context.Queue()
    workers = [context.Process(target=_load_edges, args=("cora", data_root, barrier, results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    sums = [results.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert sums[0] == sums[1] == load("cora", data_root).edge_index.sum().item()
    assert len(list((cache_root() / "datasets").iterdir())) == 1


def test_same_as_pyg_on_a_copy(data_root, tmp_path):
    from torch_geometric.datasets import CitationFull

    raw = tmp_path / "cora_ml" / "raw"
    raw.mkdir(parents=True)
    shutil.copyfile(data_root / "citation_full/cora_ml/raw/cora_ml.npz", raw / "cora_ml.npz")
    expected = CitationFull(str(tmp_path), "cora_ml")[0]
    data = read_pyg(PYG_SOURCES["cora_ml"], "cora_ml", data_root)
    for key in ("x", "edge_index", "y"):
        assert torch.equal(data[key], expected[key])


@pytest.mark.network
def test_real_download(cache, tmp_path):
    for name in ("cornell", "cora"):
        assert load(name, tmp_path).num_classes == {"cornell": 5, "cora": 7}[name]
