"""Raw files that are cut off, empty, of another kind or inconsistent: one error, which names the file."""

import gzip
import os
import pickle
import shutil

import numpy as np
import ogb_sets
import pytest
import scipy.sparse
import torch

from graphsparse.datasets import IntersectingGraphs, load, load_ogb
from graphsparse.datasets.plain_pickle import read_pickle, read_torch_arrays

pytestmark = pytest.mark.once


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GRAPHSPARSE_CACHE", str(tmp_path / "cache"))


FILES = {
    "citeseer": ["planetoid/CiteSeer/raw/ind.citeseer.allx", "planetoid/CiteSeer/raw/ind.citeseer.test.index"],
    "texas": ["webkb/texas/raw/texas_split_0.6_0.2_7.npz", "webkb/texas/raw/out1_graph_edges.txt"],
    "cora_ml": ["citation_full/cora_ml/raw/cora_ml.npz"],
    "airports-brazil": ["airports/brazil/raw/labels-brazil-airports.txt"],
    "ogbg-molfreesolv": ["ogb/ogbg_molfreesolv/raw/edge.csv.gz", "ogb/ogbg_molfreesolv/split/scaffold/test.csv.gz"],
}


def _read(name, root):
    return load_ogb(name, root / "ogb", download=False) if name.startswith("ogbg") else load(name, root)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_damaged(name, data_root, tmp_path):
    folder = FILES[name][0].split("/raw")[0]
    shutil.copytree(data_root / folder, tmp_path / folder, copy_function=shutil.copyfile)
    for file in FILES[name]:
        path = tmp_path / file
        whole = path.read_bytes()
        for content in (b"", b"\n", whole[: len(whole) // 2 - 1], bytes(range(256)), None):
            path.unlink()
            if content is None:
                path.mkdir()
            else:
                path.write_bytes(content)
            with pytest.raises((ValueError, FileNotFoundError)) as caught:
                _read(name, tmp_path)
            assert str(path) in str(caught.value)
            assert caught.value.__cause__ is None or isinstance(caught.value, FileNotFoundError)
            path.rmdir() if content is None else path.unlink()
            path.write_bytes(whole)
    _read(name, tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="the administrator may read everything")
def test_a_file_that_may_not_be_read(tmp_path):
    path = tmp_path / "airports" / "brazil" / "raw" / "labels-brazil-airports.txt"
    path.parent.mkdir(parents=True)
    path.with_name("brazil-airports.edgelist").write_text("0 1\n")
    path.write_text("node label\n0 0\n1 1\n")
    path.chmod(0)
    with pytest.raises(PermissionError, match="labels-brazil"):
        load("airports-brazil", tmp_path)


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("attr_indices", lambda a: a + 10**6, "indices"),
        ("attr_indices", lambda a: a - 10**6, "indices"),
        ("adj_indptr", lambda a: a[::-1].copy(), "index pointer"),
        ("adj_indices", lambda a: a[:-1], "indices and data"),
        ("attr_shape", lambda a: np.array([len(a), -1]), "negative"),
        ("labels", lambda a: a[:-1], "labels are no class for each of 2995 nodes"),
        ("labels", lambda a: a - 1, "labels are no class"),
        ("labels", lambda a: a.astype(str), "'labels' is of type <U"),
        ("attr_data", lambda a: a * np.nan, "finite"),
        ("labels", None, "it lacks 'labels'"),
    ],
)
def test_compressed_rows_that_do_not_fit(field, value, told, data_root, tmp_path):
    """Such indices make SciPy write to memory that is not the matrix's."""
    file = "citation_full/cora_ml/raw/cora_ml.npz"
    names = [f"{part}_{name}" for part in ("attr", "adj") for name in ("data", "indices", "indptr", "shape")]
    with np.load(data_root / file) as stored:
        arrays = {name: stored[name] for name in [*names, "labels"]}
    arrays |= {} if value is None else {field: value(arrays[field])}
    if value is None:
        del arrays[field]
    if told == "finite":  # PyG makes 1 of what is above 0
        arrays["attr_data"] = np.full_like(arrays["attr_data"], np.nan)
    (tmp_path / file).parent.mkdir(parents=True)
    np.savez(tmp_path / file, **arrays)
    with pytest.raises(ValueError, match=told) as caught:
        load("cora_ml", tmp_path)
    assert str(tmp_path / file) in str(caught.value)


@pytest.mark.parametrize("part", ["adjacency", "range", "shape", "text"])
def test_planetoid_pickles_that_do_not_fit(part, data_root, tmp_path):
    folder = "planetoid/Cora/raw"
    shutil.copytree(data_root / folder, tmp_path / folder, copy_function=shutil.copyfile)
    name = "graph" if part in ("adjacency", "text") else "allx"
    path = tmp_path / folder / f"ind.cora.{name}"
    content = read_pickle(path)
    if part == "adjacency":
        content[0].append(10**9)
    elif part == "text":
        content[0].append("one")
    elif part == "range":
        content.indices[0] = 10**8
    else:
        content = content[:, :-1]
    path.write_bytes(pickle.dumps(content, protocol=2).replace(b"_codecs\nencode", b"_codecs\nencode"))
    with pytest.raises(ValueError, match=r"cannot be read") as caught:
        load("cora", tmp_path)
    assert str(path) in str(caught.value)


def test_structures_and_pairs(tmp_path):
    file = tmp_path / "ogb" / "ogbn_arxiv" / "ogbn_arxiv.npz"
    file.parent.mkdir(parents=True)
    good = {"edge_index": [[0, 1], [1, 2]], "y": [0, 2, 1], "split": [0, 1, 2]}
    for wrong in (
        {"edge_index": [[0, 1], [1, 3]]},
        {"edge_index": [[0, 1], [1, -1]]},
        {"edge_index": [0, 1]},
        {"y": [0, -1, 1]},
        {"split": [0, 1]},
        {"year": [1]},
        {"y": ["a", "b", "c"]},
    ):
        np.savez(file, **{key: np.array(value) for key, value in (good | wrong).items()})
        with pytest.raises(ValueError, match="cannot be read") as caught:
            load("ogbn-arxiv-structure", tmp_path)
        assert str(file) in str(caught.value)
    for gone in good:
        np.savez(file, **{key: np.array(value) for key, value in good.items() if key != gone})
        with pytest.raises(ValueError, match=f"it lacks '{gone}'"):
            load("ogbn-arxiv-structure", tmp_path)
    pair = tmp_path / "multirel" / "heco_acm.npz"
    pair.parent.mkdir()
    for edges in ([[0], [3]], [0, 1], [[-1], [0]]):
        np.savez(pair, num_nodes=np.array(3), edges_psp=np.array(edges), edges_pap=np.array([[0], [1]]))
        with pytest.raises(ValueError, match="heco_acm.npz' cannot be read: its edges are wrong"):
            IntersectingGraphs("acm-psp-pap", root=tmp_path)


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("raw/edge", "0,99\n" * 30, "its edges are wrong"),
        ("raw/edge", "0,-1\n" * 30, "its edges are wrong"),
        ("split/time/train", "99\n", "its split holds other than numbers of its 12 nodes"),
        ("split/time/test", "-1\n", "its split holds other than numbers of its 12 nodes"),
        ("split/time/test", "a\nb\n", "cannot be read"),
        ("raw/node-label", "a\nb\n", "cannot be read"),
    ],
)
def test_tables_of_ogb_that_do_not_fit(file, text, told, tmp_path):
    ogb_sets.write_arxiv(tmp_path)
    (tmp_path / "ogbn_arxiv" / f"{file}.csv.gz").write_bytes(gzip.compress(text.encode()))
    with pytest.raises(ValueError, match=told) as caught:
        load_ogb("ogbn-arxiv", tmp_path)
    assert str(tmp_path / "ogbn_arxiv") in str(caught.value)


def test_an_edge_outside_of_its_graph(tmp_path):
    graph = {"edge_index": np.array([[0], [2]]), "num_nodes": 2, "node_feat": np.ones((2, 1)), "edge_feat": None}
    split = {"train": np.array([0]), "valid": np.array([1]), "test": np.array([1])}
    labels = np.array([[0], [1]])
    meta = ogb_sets.save_with_ogb(tmp_path, "ogbg-molbace", [graph, graph], labels, split, split_name="random")
    with pytest.raises(ValueError, match="an edge joins a node that its graph does not have"):
        load_ogb("ogbg-molbace", meta_dict=meta)


ARRAYS = [
    np.arange(6).reshape(2, 3),
    np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
    np.array([True, False]),
    np.arange(3, dtype=">i4"),
    np.float64(2.5),
    np.zeros((0, 4), dtype=np.uint8),
]


@pytest.mark.parametrize("array", ARRAYS, ids=str)
def test_arrays_in_files_of_torch_are_what_they_were(array, tmp_path):
    torch.save({"a": [array], "text": "x", "tensor": torch.ones(2)}, tmp_path / "a.pt")
    found = read_torch_arrays(tmp_path / "a.pt")
    assert (found["text"], found["tensor"].tolist()) == ("x", [1.0, 1.0])
    value = found["a"][0]
    assert isinstance(value, torch.Tensor) == isinstance(array, np.ndarray)
    np.testing.assert_array_equal(np.asarray(value), array)
    assert np.asarray(value).dtype == np.asarray(array).dtype.newbyteorder("=")


class _Record:
    def __reduce__(self):  # a type with fields of objects that says it has none: memory is read as addresses
        return np.dtype, ("V8", False, True), (3, "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 0)


@pytest.mark.parametrize(
    "content",
    [
        np.array([object], dtype=object),
        np.array(["text"]),
        np.zeros(2, dtype=[("a", "i4")]),
        np.array(["2020-01-01"], dtype="datetime64[D]"),
        _Record(),
        np.dtype("i4"),
        {1, 2},
        1j,
        slice(1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_other_things_are_refused(content, tmp_path):
    torch.save({"a": content}, tmp_path / "a.pt")
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"a": content}, protocol=2))
    for read, file in ((read_torch_arrays, "a.pt"), (read_pickle, "a.pkl")):
        with pytest.raises(ValueError, match=f"{file}' cannot be read: it "):
            read(tmp_path / file)


def test_what_planetoid_writes_is_read(data_root):
    for part in ("x", "ty", "allx", "graph"):
        path = data_root / "planetoid/PubMed/raw" / f"ind.pubmed.{part}"
        found, expected = read_pickle(path), pickle.loads(path.read_bytes(), encoding="latin1")
        if part == "graph":
            assert found == expected
        elif scipy.sparse.issparse(expected):
            assert (found != expected).nnz == 0
        else:
            np.testing.assert_array_equal(found, expected)
