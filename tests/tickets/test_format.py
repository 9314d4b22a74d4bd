"""The ticket file: what goes in comes out bit by bit, in few bytes, and nothing else is taken for a ticket."""

import json
import math
import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from graphsparse.nn.weight_laws import WEIGHT_LAWS, draw_weight
from graphsparse.tickets import Ticket
from graphsparse.tickets import format as ticket_format
from graphsparse.tickets.frozen import FrozenTensor, FrozenWeights

SHAPES = st.lists(st.lists(st.integers(0, 9), max_size=3).map(tuple), max_size=4)


def draw(shape, density, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < density


def bits(tensor):
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def same(first, second):
    """Say whether two dictionaries hold the same tensors, bit by bit and in the same order."""
    return list(first) == list(second) and all(
        first[k].dtype == second[k].dtype
        and first[k].shape == second[k].shape
        and torch.equal(bits(first[k]), bits(second[k]))
        for k in first
    )


def round_trip(ticket, path):
    ticket.save(path)
    again = Ticket.load(path)
    assert same(again.state_dict, ticket.state_dict)
    assert set(again.weight_masks) == set(ticket.weight_masks)
    for name, mask in ticket.weight_masks.items():
        assert again.weight_masks[name].dtype == mask.dtype
        assert torch.equal(again.weight_masks[name], mask)
    assert (again.graph, again.frozen) == (ticket.graph, ticket.frozen)
    assert (again.config, again.metrics) == (ticket.config, ticket.metrics)
    assert (again.edge_mask is None) == (ticket.edge_mask is None)
    assert ticket.edge_mask is None or torch.equal(again.edge_mask, ticket.edge_mask)
    return path.stat().st_size


def trained(masks):
    """A ticket with weights that are not 0 wherever a mask is."""
    state = {name: torch.rand(mask.shape).add(0.5) * mask for name, mask in masks.items()}
    return Ticket(state, masks)


def entropy(p):
    return 0.0 if p in (0, 1) else -(p * math.log2(p) + (1 - p) * math.log2(1 - p))


@given(SHAPES, st.sampled_from([0.0, 0.003, 0.1, 0.5, 0.9, 0.999, 1.0]), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_masks_round_trip(tmp_path_factory, shapes, density, seed):
    masks = {str(i): draw(shape, density, seed + i) for i, shape in enumerate(shapes)}
    round_trip(trained(masks), tmp_path_factory.mktemp("t") / "t")


@pytest.mark.parametrize("density", [0.0, 0.001, 0.01, 0.1, 0.3, 0.5, 0.65, 0.95, 1.0])
def test_masks_round_trip_beyond_a_window(density, tmp_path):
    masks = {"a": draw((300, 501), density), "b": draw((7, 256), density).T, "c": draw((2, 4, 50), density)}
    round_trip(trained(masks), tmp_path / "t")


def test_every_kind_of_tensor_round_trips(tmp_path):
    weight, shared = torch.randn(5, 7, generator=torch.Generator().manual_seed(0)), torch.randn(3)
    mask = weight.abs() > 0.8
    state = {
        "weight": weight.masked_fill(~mask, 0),
        "live zero": torch.zeros(2, 2),  # a mask says more than the zeros of a tensor
        "half": torch.randn(4).to(torch.bfloat16),
        "bias": shared,
        "tied": shared,
        "transposed": torch.randn(2, 3).t(),
        "num_batches_tracked": torch.tensor(7),
        "empty": torch.empty(0, 3),
    }
    masks = {"weight": mask, "live zero": torch.eye(2, dtype=torch.bool)}
    round_trip(Ticket(state, masks, draw((70,), 0.5), "9-70-0", {"seed": 3}, {"test": 0.1}), tmp_path / "t")


TENSORS = {
    "a": FrozenTensor("weights", (5, 6)),
    "table": FrozenTensor("columns", (7, 4)),
    "whole": FrozenTensor("dense", (3, 6)),
    "bias": FrozenTensor("zero", (5,)),
}
SAME = {"again": "a", "bias2": "bias"}


def untrained(law="signed_constant", coats=1, **options):
    frozen = FrozenWeights(3, law, **{"tensors": TENSORS, "same": SAME, **options})
    generator, stored = torch.Generator().manual_seed(0), {}
    for name, entry in frozen.tensors.items():
        if entry.masked:
            shape = entry.shape[-1:] if entry.role == "columns" else entry.shape
            scores = torch.rand(shape, generator=generator)
            count = sum((scores >= (n + 1) / (coats + 1)).byte() for n in range(coats))
            stored[name] = count.bool() if coats == 1 else count
    return Ticket(frozen.state(stored), frozen.all_masks(stored), frozen=frozen)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("square", [1.0, 0.55])
@pytest.mark.parametrize("law", WEIGHT_LAWS)
def test_frozen_weights_are_those_of_the_law(law, square, dtype, tmp_path):
    ticket = untrained(law, coats=3, mean_square=square, dtype=dtype)
    masks = {name: mask.to(dtype) for name, mask in ticket.weight_masks.items()}
    a, table = (draw_weight(s, law, seed=3, name=n, mean_square=square) for n, s in (("a", (5, 6)), ("table", (7, 4))))
    expected = {
        "a": a.to(dtype) * masks["a"],
        "table": table.to(dtype) * masks["table"],
        "whole": draw_weight((3, 6), law, seed=3, name="whole").to(dtype),
        "bias": torch.zeros(5, dtype=dtype),
        "again": a.to(dtype) * masks["a"],
        "bias2": torch.zeros(5, dtype=dtype),
    }
    assert same(ticket.state_dict, expected)
    round_trip(ticket, tmp_path / "t")


@pytest.mark.parametrize("coats", [1, 2, 6])
def test_coats_round_trip(coats, tmp_path):
    round_trip(untrained(coats=coats), tmp_path / "t")


def test_frozen_and_trained_masks_side_by_side(tmp_path):
    ticket, mask = untrained(coats=3), draw((4, 3), 0.5)
    state = {"trained": torch.full((4, 3), 3.0) * mask, **ticket.state_dict, "last": torch.ones(2)}
    round_trip(Ticket(state, {"trained": mask, **ticket.weight_masks}, frozen=ticket.frozen), tmp_path / "t")


def test_other_weights_than_those_of_the_seed_are_refused(tmp_path):
    ticket = untrained()
    for name, tensor in ticket.state_dict.items():
        mask = ticket.weight_masks.get(name, torch.ones(()))
        changed = Ticket(
            dict(ticket.state_dict) | {name: (tensor + 1) * mask}, ticket.weight_masks, frozen=ticket.frozen
        )
        with pytest.raises(ValueError, match=f"other weights in '{name}'"):
            changed.save(tmp_path / "t")
    assert not list(tmp_path.iterdir())


def test_weights_that_come_out_differently_are_refused(tmp_path):
    """As they would after a change of the law that a file knows nothing of."""
    untrained().save(tmp_path / "t")
    tensors, header = ticket_format.read(tmp_path / "t")
    ticket_format.write(tmp_path / "t", tensors, header | {"frozen": header["frozen"] | {"seed": 4}})
    with pytest.raises(ValueError, match="not those of the ticket"):
        Ticket.load(tmp_path / "t")


@pytest.mark.parametrize("change", [{"law": "gaussian"}, {"dtype": "no_such_type"}, {"tensors": {"a": None}}], ids=str)
def test_descriptions_of_something_else_are_refused(change, tmp_path):
    untrained().save(tmp_path / "t")
    tensors, header = ticket_format.read(tmp_path / "t")
    ticket_format.write(tmp_path / "t", tensors, header | {"frozen": header["frozen"] | change})
    with pytest.raises(ValueError, match="lacks a part|'law' must be"):
        Ticket.load(tmp_path / "t")


def mask_bytes(path):
    return sum(tensor.numel() for name, tensor in load_file(path).items() if name.startswith("plane"))


@pytest.mark.parametrize("density", [0.002, 0.01, 0.05, 0.1, 0.3, 0.5, 0.8, 0.96])
def test_independent_bits_take_hardly_more_than_their_entropy(density, tmp_path):
    mask = draw((700, 700), density)
    trained({"w": mask}).save(tmp_path / "t")
    bound = mask.numel() * entropy(float(mask.float().mean())) / 8
    # No code can be much shorter on average; this also tells a code that loses bits.
    assert 0.99 * bound < mask_bytes(tmp_path / "t") < 1.25 * bound + 1000


def test_nested_coats_take_hardly_more_than_their_entropy(tmp_path):
    scores = torch.rand(600, 600, generator=torch.Generator().manual_seed(0))
    counts = sum((scores >= k).byte() for k in (0.55, 0.70, 0.85))
    frozen = FrozenWeights(0, "signed_constant", tensors={"w": FrozenTensor("weights", (600, 600))})
    Ticket(frozen.state({"w": counts}), {"w": counts}, frozen=frozen).save(tmp_path / "t")
    bound = counts.numel() * (entropy(0.45) + 0.45 * entropy(0.30 / 0.45) + 0.30 * entropy(0.15 / 0.30)) / 8
    assert 0.99 * bound < mask_bytes(tmp_path / "t") < 1.1 * bound


def test_emptier_columns_are_made_use_of(tmp_path):
    density = torch.where(torch.arange(1000) % 100 < 50, 0.19, 0.01)
    mask = torch.rand((256, 1000), generator=torch.Generator().manual_seed(0)) < density
    trained({"w": mask}).save(tmp_path / "t")
    assert mask_bytes(tmp_path / "t") < 0.97 * mask.numel() * entropy(0.1) / 8


def test_nothing_and_everything_take_no_space(tmp_path):
    for mask in (torch.zeros(1000, 1000, dtype=torch.bool), torch.ones(1000, 1000, dtype=torch.bool)):
        trained({"w": mask}).save(tmp_path / "t")
        assert mask_bytes(tmp_path / "t") < 100


def test_table_takes_one_bit_per_column(tmp_path):
    frozen = FrozenWeights(0, "signed_constant", tensors={"t": FrozenTensor("columns", (1000, 64))})
    mask = draw((64,), 0.5)
    Ticket(frozen.state({"t": mask}), {"t": mask.expand(1000, 64)}, frozen=frozen).save(tmp_path / "t")
    assert mask_bytes(tmp_path / "t") <= 64 / 8 + 5


def test_changed_header_is_refused(tmp_path):
    path = tmp_path / "t"
    trained({"w": draw((5, 7), 0.5)}).save(path)
    whole = path.read_bytes()
    size = struct.unpack("<Q", whole[:8])[0]
    header = json.loads(whole[8 : 8 + size])
    header["__metadata__"]["header"] = header["__metadata__"]["header"].replace("5", "6", 1)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + whole[8 + size :])
    with pytest.raises(ValueError, match="damaged"):
        Ticket.load(path)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "t"
    with pytest.raises(FileNotFoundError, match="no ticket at"):
        Ticket.load(path)
    save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="but not a ticket"):
        Ticket.load(path)
    for version in ("1", "2", "99"):
        save_file({"a": torch.zeros(2)}, path, {"format": "graphsparse-ticket", "version": version})
        with pytest.raises(ValueError, match=f"is a ticket of version {version}, and only version 3 is read"):
            Ticket.load(path)
    torch.save({"a": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="not a ticket"):
        Ticket.load(path)


def test_nan_in_the_header_is_refused_and_the_old_file_stays(tmp_path):
    path = tmp_path / "t"
    trained({"w": draw((5, 7), 0.5)}).save(path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="JSON"):
        Ticket({"w": torch.ones(2)}, {}, metrics={"x": math.nan}).save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.cuda
def test_every_device_draws_the_same(device):
    for law in WEIGHT_LAWS:
        ticket = untrained(law, coats=3, mean_square=0.9)
        stored = ticket.frozen.stored_masks(ticket.weight_masks)
        on_gpu = {k: v.cpu() for k, v in ticket.frozen.state(stored, device=device).items()}
        assert same(on_gpu, dict(ticket.state_dict))
