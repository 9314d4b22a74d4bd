import pytest
import torch

from graphsparse.loader import partition_file as module
from graphsparse.loader.partition_file import partition_file, stored_partition
from graphsparse.testing import random_graph
from graphsparse.utils import partition_graph

EDGES = random_graph().edge_index


def test_is_computed_once(tmp_path, monkeypatch):
    expected = partition_graph(EDGES, 4, 60)
    assert torch.equal(stored_partition(EDGES, 4, 60), expected)
    folder = tmp_path / "new" / "folder"
    assert torch.equal(stored_partition(EDGES, 4, 60, save_dir=folder), expected)
    assert [path.name for path in folder.iterdir()] == [partition_file(EDGES, 4, 60)]
    monkeypatch.setattr(module, "partition_graph", None)
    assert torch.equal(stored_partition(EDGES, 4, 60, save_dir=str(folder)), expected)


def test_whatever_changes_the_parts_changes_the_name():
    weight = torch.ones(60)
    heavier, flipped = weight.clone(), EDGES.clone()
    heavier[0] = 2
    flipped[:, 0] = EDGES[:, 0].flip(0)
    calls = [
        ((EDGES, 4, 60), {}),
        ((EDGES[:, 1:], 4, 60), {}),
        ((flipped, 4, 60), {}),
        ((EDGES, 5, 60), {}),
        ((EDGES, 4, 61), {}),
        ((EDGES, 4, 60), {"method": "random"}),
        ((EDGES, 4, 60), {"seed": 1}),
        ((EDGES, 4, 60), {"node_weight": weight}),
        ((EDGES, 4, 60), {"node_weight": heavier}),
        ((EDGES, 4, 60), {"node_weight": weight.long()}),
    ]
    assert len({partition_file(*args, **options) for args, options in calls}) == len(calls)
    assert partition_file(EDGES, 4, 60, node_weight=weight.clone()) == partition_file(EDGES, 4, 60, node_weight=weight)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"nothing", "cannot be read as a partition"),
        (torch.zeros(59).long(), "holds no partition of 60 nodes"),
        (torch.zeros(60), "holds no partition of 60 nodes"),
        (torch.full((60,), 4), "holds other than 4 parts"),
        (torch.full((60,), -1), "holds other than 4 parts"),
    ],
)
def test_a_damaged_file_is_said_to_be_one(content, message, tmp_path):
    path = tmp_path / partition_file(EDGES, 4, 60)
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(ValueError, match=message) as error:
        stored_partition(EDGES, 4, 60, save_dir=tmp_path)
    assert str(path) in str(error.value)


def test_nothing_half_written_stays(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(module.torch, "save", fail)
    with pytest.raises(OSError, match="no space"):
        stored_partition(EDGES, 4, 60, save_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_bad_arguments_leave_no_file(tmp_path):
    with pytest.raises(TypeError, match="'node_weight' must be a dense tensor"):
        stored_partition(EDGES, 4, 60, node_weight=[1] * 60, save_dir=tmp_path)
    with pytest.raises(ValueError, match="'node_weight' must have shape"):
        stored_partition(EDGES, 4, 60, node_weight=torch.ones(3), save_dir=tmp_path)
    with pytest.raises(ValueError, match="'method'"):
        stored_partition(EDGES, 4, 60, method="x", save_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []
