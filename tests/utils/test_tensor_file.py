from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from graphsparse.utils import files
from graphsparse.utils.files import read_arrays, read_tensors, read_torch, safe_names, write_tensors

HEADER = {"name": "a", "numbers": [1, 2.5], "nothing": None}


def written(path):
    shared = torch.arange(6.0)
    tensors = {"x": shared, "view": shared.view(2, 3).t(), "flag": torch.tensor([True, False]), "one": torch.tensor(3)}
    write_tensors(path, "thing", tensors, HEADER)
    return tensors


def test_what_is_written_is_read(tmp_path):
    tensors = written(tmp_path / "new" / "a.safetensors")
    found, header = read_tensors(tmp_path / "new" / "a.safetensors", "thing")
    assert header == HEADER
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.safetensors"]


def test_what_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    with pytest.raises(FileNotFoundError, match=f"no thing at {path}"):
        read_tensors(path, "thing")
    written(path)
    with pytest.raises(ValueError, match="is a safetensors file, but not a other"):
        read_tensors(path, "other")
    save_file({"x": torch.ones(2)}, tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match="is a safetensors file, but not a thing"):
        read_tensors(tmp_path / "b.safetensors", "thing")
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    with pytest.raises(ValueError, match="is not a thing, or only a part of one"):
        read_tensors(path, "thing")
    path.write_bytes(b"no tensors")
    with pytest.raises(ValueError, match="is not a thing"):
        read_tensors(path, "thing")


@pytest.mark.parametrize("place", [-1, -20, "name"])
def test_a_changed_byte_is_found(tmp_path, place):
    path = tmp_path / "a.safetensors"
    written(path)
    data = bytearray(path.read_bytes())
    place = data.index(b"numbers") if place == "name" else place
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="damaged or was edited"):
        read_tensors(path, "thing")


def test_nan_is_no_plain_value(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_tensors(tmp_path / "a", "thing", {}, {"number": float("nan")})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("header", ["[1]", "{", "", "[" * 100_000, "1"])
def test_a_header_that_was_edited_together_with_its_checksum(tmp_path, header):
    path = tmp_path / "a.safetensors"
    tensors = {"x": torch.ones(2)}
    metadata = {"format": "graphsparse-thing", "version": "1", "header": header}
    save_file(tensors, path, metadata | {"checksum": files._checksum(tensors, header)})
    with pytest.raises(ValueError, match=r"a\.safetensors' cannot be read"):
        read_tensors(path, "thing")


def test_a_folder_in_the_place_of_a_file(tmp_path):
    for read in (lambda path: read_tensors(path, "thing"), read_torch, read_arrays):
        with pytest.raises(ValueError, match=str(tmp_path)):
            read(tmp_path)
        with pytest.raises(FileNotFoundError, match="nowhere"):
            read(tmp_path / "nowhere")


def test_sparse_matrices_of_torch_are_checked(tmp_path):
    good = torch.eye(3).to_sparse_csr()
    parts = (good.crow_indices(), good.col_indices() + 7, good.values())
    wrong = torch.sparse_csr_tensor(*parts, (3, 3), check_invariants=False)
    for matrix, whole in ((good, True), (wrong, False)):
        torch.save({"a": matrix}, tmp_path / "a.pt")
        if whole:
            assert torch.equal(read_torch(tmp_path / "a.pt")["a"].to_dense(), torch.eye(3))
        else:
            with pytest.raises(ValueError, match=r"a\.pt' cannot be read"):
                read_torch(tmp_path / "a.pt")
    assert not torch.sparse.check_sparse_tensor_invariants.is_enabled()


def test_arrays_of_numbers(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=np.arange(3), text=np.array(["a"]), objects=np.array([None]))
    assert read_arrays(path, "x", optional=["y"])["x"].tolist() == [0, 1, 2]
    for names, told in ((["y"], "it lacks 'y'"), (["text"], "only numbers are read"), (["objects"], "Python objects")):
        with pytest.raises(ValueError, match=told) as caught:
            read_arrays(path, *names)
        assert str(path) in str(caught.value)
        assert "allow_pickle" not in str(caught.value)


def test_names_that_were_allowed_before_stay_allowed():
    with torch.serialization.safe_globals([Path]):
        with safe_names([Path, Counter]):
            assert {Path, Counter} <= set(torch.serialization.get_safe_globals())
        allowed = set(torch.serialization.get_safe_globals())
        assert Path in allowed
        assert Counter not in allowed
