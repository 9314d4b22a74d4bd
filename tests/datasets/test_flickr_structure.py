import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from graphsparse.datasets.flickr_structure import flickr_structure


def test_the_counts_of_flickr(data_root):
    data = flickr_structure(data_root, dim=8)
    assert (data.num_nodes, data.num_edges, data.num_classes, data.name) == (89_250, 899_756, 7, "flickr-structure")
    masks = torch.stack([data.train_mask, data.val_mask, data.test_mask])
    assert masks.sum(1).tolist() == [44_625, 22_312, 22_313]
    assert (masks.sum(0) == 1).all()
    assert data.x.shape == (89_250, 8)
    assert (float(data.y.bincount().max()) / data.num_nodes) == pytest.approx(0.42, abs=0.005)  # as published


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="prepare_flickr_structure.py"):
        flickr_structure(tmp_path)


def test_the_script_makes_the_file_from_the_official_set(tmp_path, capsys):
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
    path = Path(__file__).parents[2] / "datasets" / "prepare_flickr_structure.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    result = script.main(["--root", str(tmp_path)])
    assert str(result["file"]) in capsys.readouterr().out
    data = flickr_structure(tmp_path, dim=2)
    assert data.edge_index.tolist() == [[0, 1, 1, 2], [1, 0, 2, 1]]
    assert data.y.tolist() == [0, 1, 1]
    assert data.train_mask.tolist() == [False, False, True]
    assert data.val_mask.tolist() == [True, False, False]
