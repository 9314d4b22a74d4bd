import pytest
import torch
from safetensors.torch import save_file

from graphsparse.utils.files import read_tensors, write_tensors

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
