import shutil
import zipfile
from pathlib import Path

import ogb_sets as sets
import pytest

import graphsparse.datasets.ogb as module
from graphsparse.datasets.ogb import download_ogb, missing_file, ogb_folder, ogb_meta, ogb_url, require_ogb


@pytest.mark.parametrize("name", ["ogbn-mag", "ogbl-collab", "ogbg-molhiv"])
def test_the_description_is_ogbs(name):
    pandas = pytest.importorskip("pandas")
    package = pytest.importorskip(module._PACKAGES[name[:4]])
    table = pandas.read_csv(Path(package.__file__).with_name("master.csv"), index_col=0, keep_default_na=False)
    assert ogb_meta(name) == table[name].to_dict()


@pytest.mark.parametrize(
    ("name", "message"), [("cora", "ogbn-"), ("ogbx-arxiv", "ogbn-"), ("ogbn-arxive", "ogbn-arxiv"), ("ogbl-", "ddi")]
)
def test_unknown_names(name, message):
    with pytest.raises(ValueError, match=message):
        ogb_meta(name)


def test_a_name_that_is_no_string():
    with pytest.raises(TypeError, match="'name'"):
        ogb_meta(3)


def test_the_folder_of_older_releases_of_ogb_is_found(tmp_path):
    meta = ogb_meta("ogbn-arxiv")
    assert ogb_folder("ogbn-arxiv", tmp_path, meta) == tmp_path / "ogbn_arxiv"
    (tmp_path / "ogbn_arxiv_pyg").mkdir()
    assert ogb_folder("ogbn-arxiv", tmp_path, meta) == tmp_path / "ogbn_arxiv_pyg"
    assert ogb_folder("ogbn-arxiv", tmp_path, {"dir_path": "elsewhere"}) == Path("elsewhere")


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("ogbn-mag", {"num-node-dict.csv.gz", "triplet-type-list.csv.gz"}),
        ("ogbn-papers100M", {"data.npz", "node-label.npz"}),
        ("ogbl-vessel", {"data.npz"}),
        ("ogbl-ddi", {"edge.csv.gz", "num-node-list.csv.gz", "num-edge-list.csv.gz"}),
        (
            "ogbg-molbace",
            {"edge", "num-node-list", "num-edge-list", "node-feat", "edge-feat", "graph-label"},
        ),
    ],
)
def test_missing_files_are_named_one_after_the_other(tmp_path, name, files):
    meta, folder, found = ogb_meta(name), tmp_path / "set", []
    while (missing := missing_file(name, folder, meta)) is not None:
        found.append(str(missing.relative_to(folder)))
        missing.mkdir() if found[-1] in {".", "raw"} else missing.mkdir(parents=True)
    expected = {f"raw/{file if '.' in file else file + '.csv.gz'}" for file in files}
    assert set(found) == expected | {".", "raw", f"split/{meta['split']}", f"RELEASE_v{meta['version']}.txt"}


def test_a_download_appears_complete_or_not_at_all(tmp_path, monkeypatch):
    archive = tmp_path / "arxiv.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("arxiv/raw/edge.csv.gz", "edges")

    def fetch(url, folder):
        assert url == ogb_url(ogb_meta("ogbn-arxiv"))
        return shutil.copy(archive, folder)

    monkeypatch.setattr(module, "download_url", fetch)
    root = tmp_path / "root"
    download_ogb(ogb_url(ogb_meta("ogbn-arxiv")), "arxiv", root / "ogbn_arxiv")
    assert (root / "ogbn_arxiv" / "raw" / "edge.csv.gz").read_text() == "edges"
    assert [path.name for path in root.iterdir()] == ["ogbn_arxiv"]

    archive.write_bytes(archive.read_bytes()[:-10])
    with pytest.raises(zipfile.BadZipFile):
        download_ogb(ogb_url(ogb_meta("ogbn-arxiv")), "arxiv", root / "again")
    assert [path.name for path in root.iterdir()] == ["ogbn_arxiv"]


def test_a_set_that_is_not_there(tmp_path, monkeypatch):
    meta, folder = ogb_meta("ogbn-products"), tmp_path / "ogbn_products"
    with pytest.raises(FileNotFoundError) as caught:
        require_ogb("ogbn-products", folder, meta, download=False)
    assert str(folder) in str(caught.value)
    assert "https://snap.stanford.edu/ogb/data/nodeproppred/products.zip" in str(caught.value)

    def no_network(*args):
        raise OSError("no route to host")

    monkeypatch.setattr(module, "download_url", no_network)
    with pytest.raises(FileNotFoundError, match=r"could not be downloaded .*no route to host"):
        require_ogb("ogbn-products", folder, meta, download=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("file", ["RELEASE_v1.txt", "raw/node-label.csv.gz", "split/time"])
def test_an_incomplete_set_is_refused_and_kept(tmp_path, monkeypatch, file):
    sets.write_arxiv(tmp_path)
    folder = tmp_path / "ogbn_arxiv"
    if (folder / file).is_dir():
        shutil.rmtree(folder / file)
    else:
        (folder / file).unlink()
    monkeypatch.setattr(module, "download_ogb", lambda *args: pytest.fail("must not be replaced"))
    before = sets.snapshot(tmp_path)
    with pytest.raises(FileNotFoundError) as caught:
        require_ogb("ogbn-arxiv", folder, ogb_meta("ogbn-arxiv"), download=True)
    assert str(folder / file) in str(caught.value)
    assert "arxiv.zip" in str(caught.value)
    assert sets.snapshot(tmp_path) == before


def test_an_archive_that_lacks_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "download_ogb", lambda url, top, folder: folder.mkdir())
    with pytest.raises(FileNotFoundError, match="in the archive"):
        require_ogb("ogbn-arxiv", tmp_path / "ogbn_arxiv", ogb_meta("ogbn-arxiv"), download=True)


def test_another_process_may_be_faster(tmp_path, monkeypatch):
    def too_late(url, top, folder):
        sets.write_arxiv(folder.parent)
        raise OSError("directory not empty")

    monkeypatch.setattr(module, "download_ogb", too_late)
    require_ogb("ogbn-arxiv", tmp_path / "ogbn_arxiv", ogb_meta("ogbn-arxiv"), download=True)
    assert missing_file("ogbn-arxiv", tmp_path / "ogbn_arxiv", ogb_meta("ogbn-arxiv")) is None
