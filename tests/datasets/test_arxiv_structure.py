import importlib.util
from pathlib import Path

import numpy as np
import ogb_sets
import pytest
import torch
from torch_geometric.utils import homophily

from graphsparse.datasets.arxiv_structure import arxiv_structure
from graphsparse.testing import assert_undirected


def _module(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_counts_of_ogbn_arxiv(data_root):
    data = arxiv_structure(data_root, dim=8, undirected=False)
    assert (data.num_nodes, data.num_edges, data.num_classes) == (169_343, 1_166_243, 40)
    assert data.name == "ogbn-arxiv-structure"
    masks = torch.stack([data.train_mask, data.val_mask, data.test_mask])
    assert masks.sum(1).tolist() == [90_941, 29_799, 48_603]
    assert (masks.sum(0) == 1).all()
    # the official split is by year
    assert torch.equal(data.train_mask, data.node_year <= 2017)
    assert torch.equal(data.val_mask, data.node_year == 2018)
    assert data.y.shape == data.node_year.shape == (169_343,)
    assert (data.y.min(), data.y.max()) == (0, 39)
    assert homophily(data.edge_index, data.y, method="edge") == pytest.approx(0.655, abs=5e-4)


def test_features_and_both_directions(data_root):
    data = arxiv_structure(str(data_root), dim=16, seed=3)
    assert data.num_edges == 2_315_598
    assert not data.has_self_loops()
    assert data.is_undirected()
    assert (data.x.shape, data.x.dtype) == ((169_343, 16), torch.float32)
    assert torch.allclose(data.x.norm(dim=1), torch.ones(169_343))
    other = arxiv_structure(data_root, dim=16, seed=4)
    assert not torch.equal(data.x, other.x)


def test_a_missing_file(tmp_path, monkeypatch):
    monkeypatch.setenv("GRAPHSPARSE_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError) as caught:
        arxiv_structure()
    assert str(tmp_path / "ogb" / "ogbn_arxiv" / "ogbn_arxiv.npz") in str(caught.value)
    assert "prepare_ogbn_arxiv_structure.py" in str(caught.value)


def test_the_script_makes_the_file_from_the_official_set(tmp_path, capsys):
    arrays = ogb_sets.write_arxiv(tmp_path / "ogb")
    script = _module(Path(__file__).parents[2] / "datasets" / "prepare_ogbn_arxiv_structure.py")
    result = script.main(["--root", str(tmp_path), "--no-download"])
    assert str(result["file"]) in capsys.readouterr().out

    data = arxiv_structure(tmp_path, dim=4, undirected=False)
    np.testing.assert_array_equal(data.edge_index.t(), arrays["raw/edge"])
    assert data.y.tolist() == arrays["raw/node-label"][:, 0].tolist()
    assert data.node_year.tolist() == arrays["raw/node_year"][:, 0].tolist()
    for mask, part in (("train_mask", "train"), ("val_mask", "valid"), ("test_mask", "test")):
        assert data[mask].nonzero().flatten().tolist() == sorted(arrays[f"split/time/{part}"].tolist())
    assert_undirected(arxiv_structure(tmp_path, dim=4).edge_index)
