import json
import struct

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from graphsparse.tickets import format as ticket_format


@given(st.lists(st.booleans(), max_size=70))
def test_bits_round_trip(bits):
    packed = ticket_format.pack_bits(torch.tensor(bits, dtype=torch.bool))
    assert packed.numel() == (len(bits) + 7) // 8
    assert ticket_format.unpack_bits(packed, len(bits)).tolist() == bits


def test_bits_of_the_wrong_number():
    with pytest.raises(ValueError, match="2 bytes .* 3 entries"):
        ticket_format.unpack_bits(torch.zeros(2, dtype=torch.uint8), 3)


def state():
    weight = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    mask = weight.abs() > 0.8
    shared = torch.randn(3)
    state_dict = {
        "weight": weight * mask,
        "half": torch.randn(4).to(torch.bfloat16),
        "bias": shared,
        "tied": shared,
        "transposed": torch.randn(2, 3).t(),
        "num_batches_tracked": torch.tensor(7),
        "empty": torch.empty(0, 3),
    }
    return state_dict, {"weight": mask}


def write(path):
    state_dict, masks = state()
    shapes = {name: list(tensor.shape) for name, tensor in state_dict.items()}
    ticket_format.write(path, ticket_format.pack_state(state_dict, masks), {"shapes": shapes})
    return state_dict, masks


def test_state_round_trips_bit_for_bit(tmp_path):
    path = tmp_path / "t"
    state_dict, masks = write(path)
    tensors, header = ticket_format.read(path)
    loaded, loaded_masks = ticket_format.unpack_state(tensors, header["shapes"])
    assert loaded.keys() == state_dict.keys()
    for name, tensor in state_dict.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor)
    assert torch.equal(loaded_masks["weight"], masks["weight"])


def test_shapes_of_tensors_that_are_stored_whole_need_not_be_told():
    state_dict, masks = state()
    tensors = ticket_format.pack_state(state_dict, masks)
    shapes = {name: [5, 7] if name == "weight" else None for name in state_dict}
    loaded, _ = ticket_format.unpack_state(tensors, shapes | {"elsewhere": None})
    assert list(loaded) == list(state_dict)
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state_dict.items())


def test_every_cut_is_refused(tmp_path):
    path = tmp_path / "t"
    write(path)
    whole = path.read_bytes()
    for length in [*range(0, 64, 7), *range(64, len(whole), 41), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="not a ticket|damaged"):
            ticket_format.read(path)


def test_every_changed_byte_is_refused(tmp_path):
    path = tmp_path / "t"
    write(path)
    whole = path.read_bytes()
    for position in range(0, len(whole), 5):
        changed = bytearray(whole)
        changed[position] ^= 1
        path.write_bytes(changed)
        try:
            ticket_format.read(path)
        except ValueError:
            continue
        # Only the padding of the header carries no meaning.
        assert whole[position : position + 1] == b" ", position


def test_changed_header_is_refused(tmp_path):
    path = tmp_path / "t"
    write(path)
    whole = path.read_bytes()
    size = struct.unpack("<Q", whole[:8])[0]
    header = json.loads(whole[8 : 8 + size])
    header["__metadata__"]["header"] = header["__metadata__"]["header"].replace("5", "6", 1)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + whole[8 + size :])
    with pytest.raises(ValueError, match="damaged"):
        ticket_format.read(path)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "t"
    with pytest.raises(FileNotFoundError, match="no ticket at"):
        ticket_format.read(path)
    save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="but not a ticket"):
        ticket_format.read(path)
    save_file({"a": torch.zeros(2)}, path, {"format": ticket_format.FORMAT, "version": "99"})
    with pytest.raises(ValueError, match="version 99 .* reads 1 and 2"):
        ticket_format.read(path)
    torch.save({"a": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="not a ticket"):
        ticket_format.read(path)


def test_nan_in_the_header_is_refused_and_the_old_file_stays(tmp_path):
    path = tmp_path / "t"
    write(path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="JSON"):
        ticket_format.write(path, {}, {"x": float("nan")})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
