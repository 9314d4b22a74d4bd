import numpy as np
import pytest
import torch

from graphsparse.datasets.structure_file import read_structure


def write(path, **more):
    arrays = {"edge_index": [[0, 1], [1, 2]], "y": [0, 2, 1, 1], "split": [0, 1, 2, 0]} | more
    np.savez(path, **{name: np.array(value, dtype=np.uint8) for name, value in arrays.items()})


def test_what_the_file_holds(tmp_path):
    write(tmp_path / "a.npz")
    data = read_structure(tmp_path / "a.npz", "a-structure", "a.py", dim=4, seed=0, undirected=True)
    assert data.edge_index.tolist() == [[0, 1, 1, 2], [1, 0, 2, 1]]
    assert (data.num_nodes, data.num_classes, data.name) == (4, 3, "a-structure")
    assert data.x.shape == (4, 4)
    assert "node_year" not in data
    assert data.train_mask.tolist() == [True, False, False, True]
    assert (data.val_mask.nonzero().item(), data.test_mask.nonzero().item()) == (1, 2)
    directed = read_structure(tmp_path / "a.npz", "a-structure", "a.py", dim=4, seed=0, undirected=False)
    assert directed.edge_index.tolist() == [[0, 1], [1, 2]]
    assert torch.equal(directed.x, data.x)


def test_years(tmp_path):
    write(tmp_path / "a.npz", year=[1, 2, 3, 4])
    data = read_structure(tmp_path / "a.npz", "a-structure", "a.py", dim=4, seed=0, undirected=True)
    assert data.node_year.tolist() == [1, 2, 3, 4]


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"official a with datasets/a\.py"):
        read_structure(tmp_path / "a.npz", "a-structure", "a.py", dim=4, seed=0, undirected=True)
