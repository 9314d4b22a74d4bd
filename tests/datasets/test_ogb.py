import gzip
import shutil
import zipfile
from pathlib import Path

import numpy as np
import ogb_sets as sets
import pytest
import torch
from torch_geometric.data import Data, HeteroData

import graphsparse.datasets.ogb as module
from graphsparse.datasets.ogb import load_ogb

pytestmark = pytest.mark.once


@pytest.fixture(autouse=True)
def loads(monkeypatch):
    """No question may be asked, and no file loaded with safe loading switched off; returns what was loaded."""

    def refuse(*args):
        raise AssertionError(f"a question was asked: {args}")

    loaded, load = [], torch.load

    def watched(file, *args, **kwargs):
        assert kwargs.get("weights_only") in (None, True)
        loaded.append(str(file))
        return load(file, *args, **kwargs)

    monkeypatch.setattr("builtins.input", refuse)
    monkeypatch.setattr(torch, "load", watched)
    monkeypatch.delenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", raising=False)
    return loaded


def _read(file):
    with gzip.open(file, "rt") as text:
        return np.loadtxt(text, delimiter=",", ndmin=2)


def _check_graph_set(data_root, name, split_sizes):
    folder = data_root / "ogb" / name.replace("-", "_")
    before = sets.snapshot(folder)
    graphs, evaluator = load_ogb(name, str(data_root / "ogb"), download=False)
    again, _ = load_ogb(name, data_root / "ogb", download=False)  # from the processed copy
    assert sets.snapshot(folder) == before

    nodes, edges = _read(folder / "raw/num-node-list.csv.gz")[:, 0], _read(folder / "raw/num-edge-list.csv.gz")[:, 0]
    labels = torch.tensor(_read(folder / "raw/graph-label.csv.gz"))
    assert len(graphs) == len(again) == len(labels)
    assert sum(graph.num_nodes for graph in graphs) == nodes.sum()
    assert sum(graph.num_edges for graph in graphs) == 2 * edges.sum()  # both directions of every bond
    for graph, other, label in zip(graphs, again, labels, strict=True):
        assert graph.y.shape == (1, 1)
        assert graph.y.item() == pytest.approx(label.item())
        assert all(torch.equal(graph[key], other[key]) for key in ("x", "edge_index", "edge_attr", "y"))
    for loaded in (graphs, again):
        split = loaded.get_idx_split()  # outside of any context of ours
        assert tuple(len(split[part]) for part in ("train", "valid", "test")) == split_sizes
        for part, index in split.items():
            assert index.tolist() == _read(folder / f"split/scaffold/{part}.csv.gz")[:, 0].tolist()
    return graphs, evaluator


@pytest.mark.parametrize(
    ("name", "split_sizes"), [("ogbg-molbace", (1210, 151, 152)), ("ogbg-molbbbp", (1631, 204, 204))]
)
def test_molecules_to_classify(data_root, name, split_sizes):
    graphs, evaluator = _check_graph_set(data_root, name, split_sizes)
    assert graphs.num_classes == 2
    assert graphs[0].y.dtype == torch.int64
    # of the four (negative, positive) pairs three are in order
    y_true, y_pred = torch.tensor([[0], [1], [1], [0]]), torch.tensor([[0.1], [0.9], [0.4], [0.5]])
    assert evaluator.eval({"y_true": y_true, "y_pred": y_pred}) == {"rocauc": pytest.approx(0.75)}


@pytest.mark.parametrize(
    ("name", "split_sizes"), [("ogbg-molesol", (902, 113, 113)), ("ogbg-molfreesolv", (513, 64, 65))]
)
def test_molecules_to_regress(data_root, name, split_sizes):
    graphs, evaluator = _check_graph_set(data_root, name, split_sizes)
    assert graphs[0].y.dtype == torch.float32
    y_true, y_pred = torch.tensor([[0.0], [1.0]]), torch.tensor([[1.0], [4.0]])
    assert evaluator.eval({"y_true": y_true, "y_pred": y_pred}) == {"rmse": pytest.approx(5**0.5)}


@pytest.mark.slow
def test_molhiv(data_root):
    graphs, _ = _check_graph_set(data_root, "ogbg-molhiv", (32901, 4113, 4113))
    split = graphs.get_idx_split()
    assert [int(graphs.y[split[part]].sum()) for part in ("train", "valid", "test")] == [1232, 81, 130]


def test_a_graph_set_written_by_ogbs_saver(tmp_path):
    graphs = [
        {
            "edge_index": np.array([[0, 1], [1, 0]]),
            "num_nodes": 2 + k,
            "node_feat": np.full((2 + k, 1), k, dtype=np.float32),
            "edge_feat": None,
        }
        for k in range(4)
    ]
    split = {"train": np.array([2, 0]), "valid": np.array([1]), "test": np.array([3])}
    meta = sets.save_with_ogb(
        *(tmp_path, "ogbg-molbace", graphs, np.array([[0], [1], [1], [0]]), split),
        **{"task": ("binary classification", "rocauc", 2), "split_name": "random"},
    )
    for _ in range(2):
        dataset, _ = load_ogb("ogbg-molbace", meta_dict=meta)
        assert [graph.num_nodes for graph in dataset] == [2, 3, 4, 5]
        assert {part: index.tolist() for part, index in dataset.get_idx_split().items()} == {
            **{"train": [2, 0], "valid": [1], "test": [3]}
        }


def _as_numpy_1(file):
    """Rewrite a file of ``torch.save`` as NumPy 1 would have, in which OGB's archives were made."""
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    changed = {name: data.replace(b"numpy._core.", b"numpy.core.") for name, data in members.items()}
    assert changed != members
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, data in changed.items():
            archive.writestr(name, data)


DDI = {
    "train": {"edge": (1_067_911, 2)},
    "valid": {"edge": (133_489, 2), "edge_neg": (101_882, 2)},
    "test": {"edge": (133_489, 2), "edge_neg": (95_599, 2)},
}


def test_ddi(data_root, tmp_path, loads):
    source, folder = data_root / "ogb" / "ogbl_ddi", tmp_path / "ogbl_ddi"
    shutil.copytree(source, folder, copy_function=shutil.copyfile)
    with np.load(source / "split/target/ddi_split.npz") as stored:
        arrays = {key: stored[key].astype(np.int64) for key in stored.files}
    edges = _read(folder / "raw/edge.csv.gz").astype(np.int64)
    target = folder / "split" / "target"
    torch.save({"edge": edges}, target / "train.pt")
    for part in ("valid", "test"):
        split = {"edge": arrays[f"{part}_edge"], "edge_neg": arrays[f"{part}_edge_neg"]}
        torch.save(split, target / f"{part}.pt")
    _as_numpy_1(target / "valid.pt")

    before = sets.snapshot(folder)
    for _ in range(2):  # the second time from the processed copy
        data, evaluator = load_ogb("ogbl-ddi", tmp_path, download=False)
        assert isinstance(data, Data)
        assert (data.num_nodes, data.num_edges, data.name) == (4267, 2 * 1_067_911, "ogbl-ddi")
        for part, shapes in DDI.items():
            assert {key: tuple(edge.shape) for key, edge in data.split_edge[part].items()} == shapes
        for part in ("valid", "test"):
            assert torch.equal(data.split_edge[part]["edge_neg"], torch.from_numpy(arrays[f"{part}_edge_neg"]))
    assert sets.snapshot(folder) == before
    assert any(file.endswith("valid.pt") for file in loads)
    np.testing.assert_array_equal(data.split_edge["train"]["edge"], edges)
    both = np.concatenate([edges, edges[:, ::-1]]) @ [4267, 1]
    np.testing.assert_array_equal(np.sort(data.edge_index.t().numpy() @ [4267, 1]), np.sort(both))
    # the 20th best of the negatives scores 21, and two of the four positives score more
    scores = {"y_pred_pos": torch.tensor([22.0, 21.0, 41.0, 0.0]), "y_pred_neg": torch.arange(1.0, 41.0)}
    assert evaluator.eval(scores) == {"hits@20": pytest.approx(0.5)}


def _check_arxiv(data, arrays):
    assert torch.equal(data.edge_index.t(), torch.from_numpy(arrays["raw/edge"]))
    assert torch.allclose(data.x, torch.from_numpy(arrays["raw/node-feat"]).float())
    assert data.y.dtype == torch.int64
    assert data.y.tolist() == arrays["raw/node-label"][:, 0].tolist()
    assert data.node_year.tolist() == arrays["raw/node_year"].tolist()
    for mask, part in (("train_mask", "train"), ("val_mask", "valid"), ("test_mask", "test")):
        assert data[mask].dtype == torch.bool
        assert data[mask].nonzero().flatten().tolist() == sorted(arrays[f"split/time/{part}"].tolist())
    assert (data.num_nodes, data.num_classes, data.num_tasks, data.name) == (12, 40, 1, "ogbn-arxiv")


def test_a_node_set_in_the_layout_of_the_archives(tmp_path, loads, monkeypatch):
    arrays = sets.write_arxiv(tmp_path)
    before, globals_before = sets.snapshot(tmp_path), set(map(str, torch.serialization.get_safe_globals()))
    data, evaluator = load_ogb("ogbn-arxiv", tmp_path)
    _check_arxiv(data, arrays)
    assert any(file.endswith("geometric_data_processed.pt") for file in loads)
    assert sets.snapshot(tmp_path) == before
    assert set(map(str, torch.serialization.get_safe_globals())) == globals_before
    guess = data.y.clone()
    guess[0] += 1
    result = evaluator.eval({"y_true": data.y[:, None], "y_pred": guess[:, None]})
    assert result == {"acc": pytest.approx(11 / 12)}

    monkeypatch.setattr(module, "_process", lambda *args: pytest.fail("processed a second time"))
    data, _ = load_ogb("ogbn-arxiv", tmp_path)
    _check_arxiv(data, arrays)


def test_the_default_root_is_the_folder_ogb_of_the_data_root(tmp_path, monkeypatch):
    arrays = sets.write_arxiv(tmp_path / "ogb")
    monkeypatch.setenv("GRAPHSPARSE_DATA", str(tmp_path))
    _check_arxiv(load_ogb("ogbn-arxiv")[0], arrays)
    monkeypatch.delenv("GRAPHSPARSE_DATA")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"data/ogb/ogbn_arxiv"):
        load_ogb("ogbn-arxiv", download=False)


def _node_graph():
    rng = np.random.default_rng(1)
    return {
        "edge_index": rng.integers(0, 10, (2, 25)),
        "num_nodes": 10,
        "node_feat": rng.normal(size=(10, 3)).astype(np.float32),
        "edge_feat": rng.normal(size=(25, 2)).astype(np.float32),
    }


SPLIT = {"train": np.array([5, 1, 2]), "valid": np.array([0]), "test": np.array([9, 8])}


def test_a_node_set_written_by_ogbs_saver(tmp_path):
    graph, labels = _node_graph(), np.arange(10).reshape(-1, 1) % 3
    meta = sets.save_with_ogb(tmp_path, "ogbn-arxiv", [graph], labels, SPLIT)
    before = sets.snapshot(meta["dir_path"])
    for _ in range(2):
        data, _ = load_ogb("ogbn-arxiv", meta_dict=meta)
        assert torch.equal(data.edge_index, torch.from_numpy(graph["edge_index"]))
        assert torch.equal(data.edge_attr, torch.from_numpy(graph["edge_feat"]))
        assert torch.equal(data.x, torch.from_numpy(graph["node_feat"]))
        assert data.y.tolist() == (labels[:, 0]).tolist()
        assert type(data.num_nodes) is int
        assert data.num_classes == 3
        assert data.train_mask.nonzero().flatten().tolist() == [1, 2, 5]
    assert sets.snapshot(meta["dir_path"]) == before


def test_nodes_without_a_label_get_minus_one_and_several_tasks_stay_as_they_are(tmp_path):
    labels = np.array([0.0, np.nan, 2.0, *[1.0] * 7]).reshape(-1, 1)
    (tmp_path / "one").mkdir()
    meta = sets.save_with_ogb(tmp_path / "one", "ogbn-arxiv", [_node_graph()], labels, SPLIT)
    data, _ = load_ogb("ogbn-arxiv", meta_dict=meta)
    assert data.y.dtype == torch.int64
    assert data.y.tolist() == [0, -1, 2, *[1] * 7]
    (tmp_path / "two").mkdir()
    labels = np.arange(20).reshape(10, 2) % 2
    task = ("binary classification", "rocauc", 2)
    meta = sets.save_with_ogb(tmp_path / "two", "ogbn-proteins", [_node_graph()], labels, SPLIT, task=task)
    data, _ = load_ogb("ogbn-proteins", meta_dict=meta)
    assert data.y.tolist() == labels.tolist()
    assert data.num_tasks == 2


def test_a_heterogeneous_node_set(tmp_path):
    rng = np.random.default_rng(0)
    edges = {
        ("author", "writes", "paper"): rng.integers(0, 5, (2, 12)),
        ("paper", "cites", "paper"): rng.integers(0, 6, (2, 9)),
    }
    graph = {
        "num_nodes_dict": {"paper": 6, "author": 5},
        "edge_index_dict": edges,
        "node_feat_dict": {"paper": rng.normal(size=(6, 4)).astype(np.float32)},
    }
    split = {"train": {"paper": np.array([0, 2])}, "valid": {"paper": np.array([1])}, "test": {"paper": np.array([5])}}
    labels = {"paper": np.arange(6).reshape(-1, 1) % 3}
    meta = sets.save_with_ogb(tmp_path, "ogbn-mag", [graph], labels, split, version=2, hetero=True)
    for _ in range(2):
        data, _ = load_ogb("ogbn-mag", meta_dict=meta)
        assert isinstance(data, HeteroData)
        assert data.validate()
        assert (data["paper"].num_nodes, data["author"].num_nodes) == (6, 5)
        for kind, edge_index in edges.items():
            assert torch.equal(data[kind].edge_index, torch.from_numpy(edge_index))
        assert data["paper"].y.tolist() == [0, 1, 2, 0, 1, 2]
        assert data["paper"].train_mask.tolist() == [True, False, True, False, False, False]
        assert "train_mask" not in data["author"]


def test_a_heterogeneous_link_set(tmp_path):
    kind = ("drug", "treats", "disease")
    graph = {
        "num_nodes_dict": {"drug": 3, "disease": 4},
        "edge_index_dict": {kind: np.array([[0, 1, 2], [3, 0, 1]])},
        "edge_reltype": {kind: np.zeros((3, 1), dtype=np.int64)},
    }
    part = {"head_type": ["drug", "drug"], "head": np.array([0, 2]), "tail_neg": np.array([[1, 2], [0, 3]])}
    split = {"train": part, "valid": part, "test": part}
    meta = sets.save_with_ogb(tmp_path, "ogbl-biokg", [graph], None, split, hetero=True, task=("KG completion", "mrr"))
    meta["additional edge files"] = "edge_reltype"
    for _ in range(2):
        data, _ = load_ogb("ogbl-biokg", meta_dict=meta)
        assert torch.equal(data[kind].edge_index, torch.tensor([[0, 1, 2], [3, 0, 1]]))
        assert data[kind].edge_reltype.shape == (3, 1)
        assert (data["drug"].num_nodes, data["disease"].num_nodes) == (3, 4)
        assert data.split_edge["test"]["head_type"] == ["drug", "drug"]
        assert torch.equal(data.split_edge["test"]["tail_neg"], torch.tensor([[1, 2], [0, 3]]))


class _Dangerous:
    """What an attacker would put into a file: it makes a folder when it is unpickled without care."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.mkdir, (self.path,)


def test_a_file_with_code_in_it_is_refused_and_not_run(tmp_path):
    meta = sets.save_with_ogb(tmp_path, "ogbn-arxiv", [_node_graph()], np.zeros((10, 1), int), SPLIT)
    torch.save(_Dangerous(tmp_path / "harm"), Path(meta["dir_path"]) / "split" / "time" / "split_dict.pt")
    with pytest.raises(ValueError, match=r"split_dict.pt' cannot be read: it would run getattr"):
        load_ogb("ogbn-arxiv", meta_dict=meta)
    assert not (tmp_path / "harm").exists()


def test_an_absent_set_is_downloaded_into_the_root(tmp_path, monkeypatch):
    arrays = sets.write_arxiv(tmp_path / "server")
    (tmp_path / "server" / "ogbn_arxiv").rename(tmp_path / "server" / "arxiv")
    archive = shutil.make_archive(tmp_path / "arxiv", "zip", tmp_path / "server")
    fetched = []

    def fetch(url, folder):
        fetched.append(url)
        return shutil.copy(archive, folder)

    monkeypatch.setattr(module, "download_url", fetch)
    for _ in range(2):
        _check_arxiv(load_ogb("ogbn-arxiv", tmp_path / "new")[0], arrays)
    assert fetched == ["https://snap.stanford.edu/ogb/data/nodeproppred/arxiv.zip"]
