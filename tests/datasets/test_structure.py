import importlib.util
import json
from pathlib import Path

import numpy as np
import ogb_sets
import pytest
import torch
from torch_geometric.utils import homophily

from graphsparse.datasets import load
from graphsparse.datasets.structure import read_structure

SCRIPTS = Path(__file__).parents[2] / "datasets"
ARXIV = Path("ogb", "ogbn_arxiv", "ogbn_arxiv.npz")


def script(name):
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write(root, **more):
    arrays = {"edge_index": [[0, 1], [1, 2]], "y": [0, 2, 1, 1], "split": [0, 1, 2, 0]} | more
    (root / ARXIV).parent.mkdir(parents=True)
    np.savez(root / ARXIV, **{name: np.array(value, dtype=np.uint8) for name, value in arrays.items()})


def test_what_the_file_holds(tmp_path):
    write(tmp_path)
    data = load("ogbn-arxiv-structure", tmp_path)
    assert data.edge_index.tolist() == [[0, 1, 1, 2], [1, 0, 2, 1]]
    assert (data.num_nodes, data.num_classes, data.name) == (4, 3, "ogbn-arxiv-structure")
    assert (data.x.shape, data.x.dtype) == ((4, 128), torch.float32)
    assert "node_year" not in data
    assert data.train_mask.tolist() == [True, False, False, True]
    assert (data.val_mask.nonzero().item(), data.test_mask.nonzero().item()) == (1, 2)
    assert not torch.equal(load("ogbn-arxiv-structure", tmp_path, seed=1).x, data.x)
    assert read_structure("ogbn-arxiv-structure", tmp_path)["edge_index"].tolist() == [[0, 1], [1, 2]]


def test_years(tmp_path):
    write(tmp_path, year=[1, 2, 3, 4])
    assert load("ogbn-arxiv-structure", tmp_path).node_year.tolist() == [1, 2, 3, 4]


def test_the_counts_of_ogbn_arxiv(data_root):
    data = load("ogbn-arxiv-structure", data_root)
    assert (data.num_nodes, data.num_edges, data.num_classes) == (169_343, 2_315_598, 40)
    assert read_structure("ogbn-arxiv-structure", data_root)["edge_index"].shape == (2, 1_166_243)
    masks = torch.stack([data.train_mask, data.val_mask, data.test_mask])
    assert masks.sum(1).tolist() == [90_941, 29_799, 48_603]
    assert (masks.sum(0) == 1).all()
    # the official split is by year
    assert torch.equal(data.train_mask, data.node_year <= 2017)
    assert torch.equal(data.val_mask, data.node_year == 2018)
    assert homophily(data.edge_index, data.y, method="edge") == pytest.approx(0.655, abs=5e-3)
    assert not data.has_self_loops()
    assert data.is_undirected()
    assert torch.allclose(data.x.norm(dim=1), torch.ones(169_343))


def test_the_counts_of_flickr(data_root):
    data = load("flickr-structure", data_root)
    assert (data.num_nodes, data.num_edges, data.num_classes) == (89_250, 899_756, 7)
    masks = torch.stack([data.train_mask, data.val_mask, data.test_mask])
    assert masks.sum(1).tolist() == [44_625, 22_312, 22_313]
    assert (masks.sum(0) == 1).all()
    assert (float(data.y.bincount().max()) / data.num_nodes) == pytest.approx(0.42, abs=0.005)  # as published


@pytest.mark.parametrize(
    ("name", "official", "file"),
    [("ogbn-arxiv", "ogbn_arxiv", ARXIV), ("flickr", "flickr", Path("large", "Flickr-GraphSAINT.npz"))],
)
def test_a_missing_file(name, official, file, tmp_path, monkeypatch):
    monkeypatch.setenv("GRAPHSPARSE_DATA", str(tmp_path))
    message = f"official {name} with datasets/prepare_{official}_structure.py"
    with pytest.raises(FileNotFoundError, match=message) as caught:
        load(f"{name}-structure")
    assert str(tmp_path / file) in str(caught.value)


def test_the_script_makes_arxiv_from_the_official_set(tmp_path, capsys):
    arrays = ogb_sets.write_arxiv(tmp_path / "ogb")
    result = script("prepare_ogbn_arxiv_structure").main(["--root", str(tmp_path), "--no-download"])
    assert str(result["file"]) in capsys.readouterr().out

    found = read_structure("ogbn-arxiv-structure", tmp_path)
    np.testing.assert_array_equal(found["edge_index"].t(), arrays["raw/edge"])
    assert found["y"].tolist() == arrays["raw/node-label"][:, 0].tolist()
    assert found["node_year"].tolist() == arrays["raw/node_year"][:, 0].tolist()
    for mask, part in (("train_mask", "train"), ("val_mask", "valid"), ("test_mask", "test")):
        assert found[mask].nonzero().flatten().tolist() == sorted(arrays[f"split/time/{part}"].tolist())


def test_the_script_makes_flickr_from_the_official_set(tmp_path, capsys):
    raw = tmp_path / "flickr" / "raw"
    raw.mkdir(parents=True)
    # 0-1, 1-2, both directions, as compressed rows
    np.savez(
        raw / "adj_full.npz",
        data=np.ones(4),
        indices=np.array([1, 0, 2, 1]),
        indptr=np.array([0, 1, 3, 4]),
        shape=np.array([3, 3]),
    )
    np.save(raw / "feats.npy", np.zeros((3, 2)))
    (raw / "class_map.json").write_text(json.dumps({"0": 0, "1": 1, "2": 1}))
    (raw / "role.json").write_text(json.dumps({"tr": [2], "va": [0], "te": [1]}))
    result = script("prepare_flickr_structure").main(["--root", str(tmp_path)])
    assert str(result["file"]) in capsys.readouterr().out
    data = load("flickr-structure", tmp_path)
    assert data.edge_index.tolist() == [[0, 1, 1, 2], [1, 0, 2, 1]]
    assert data.y.tolist() == [0, 1, 1]
    assert data.train_mask.tolist() == [False, False, True]
    assert data.val_mask.tolist() == [True, False, False]
