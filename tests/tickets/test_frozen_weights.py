import dataclasses
import json

import pytest
import torch

from graphsparse.nn.weight_laws import WEIGHT_LAWS, draw_weight
from graphsparse.tickets import frozen_weights
from graphsparse.tickets.frozen_weights import FrozenTensor, FrozenWeights, digest, pack, unpack

TENSORS = {
    "a": FrozenTensor("weights", (5, 6), "a"),
    "table": FrozenTensor("columns", (7, 4), "table"),
    "whole": FrozenTensor("dense", (3, 6), "whole"),
    "bias": FrozenTensor("zero", (5,), "bias"),
    "folded": FrozenTensor("weights", (5, 6), "a"),
}
SAME = {"again": "a", "bias2": "bias"}


def frozen(law="signed_constant", **options):
    options = {"tensors": TENSORS, "same": SAME, **options}
    return FrozenWeights(3, law, **options)


def draw_masks(coats=1):
    generator = torch.Generator().manual_seed(0)
    masks = {}
    for name, shape in frozen().masked().items():
        scores = torch.rand(shape, generator=generator)
        count = sum((scores >= (n + 1) / (coats + 1)).byte() for n in range(coats))
        masks[name] = count.bool() if coats == 1 else count
    return masks


def bits(tensor):
    return tensor.contiguous().view(torch.uint8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("square", [1.0, 0.55])
@pytest.mark.parametrize("law", WEIGHT_LAWS)
def test_weights_are_those_of_the_law(law, square, dtype):
    weights = frozen(law, mean_square=square, dtype=dtype)
    masks = draw_masks(coats=3)
    state = weights.state(masks)
    assert list(state) == weights.names() == [*TENSORS, *SAME]
    assert {tensor.dtype for tensor in state.values()} == {dtype}
    a = draw_weight((5, 6), law, seed=3, name="a", mean_square=square).to(dtype)
    table = draw_weight((7, 4), law, seed=3, name="table", mean_square=square).to(dtype)
    for name, expected in {
        "a": a * masks["a"].to(dtype),
        "again": a * masks["a"].to(dtype),
        "folded": a * masks["folded"].to(dtype),
        "table": table * masks["table"].to(dtype),
        "whole": draw_weight((3, 6), law, seed=3, name="whole").to(dtype),
        "bias": torch.zeros(5, dtype=dtype),
        "bias2": torch.zeros(5, dtype=dtype),
    }.items():
        assert torch.equal(bits(state[name]), bits(expected)), name
    assert torch.equal(weights.draw("again"), a)


def test_folded_layers_draw_once(monkeypatch):
    drawn = []

    def count(shape, law, **options):
        drawn.append(options["name"])
        return draw_weight(shape, law, **options)

    monkeypatch.setattr(frozen_weights, "draw_weight", count)
    frozen().state(draw_masks())
    assert drawn == ["a", "table", "whole"]


@pytest.mark.parametrize("coats", [1, 3])
def test_what_a_file_holds_round_trips(coats):
    weights = frozen(mean_square=0.5, dtype=torch.float64)
    small = draw_masks(coats)
    state = weights.state(small)
    masks = {name: mask.expand(state[name].shape) for name, mask in small.items()} | {"again": small["a"]}
    code, description = pack(weights, state, masks)
    again, loaded, loaded_masks = unpack(code, json.loads(json.dumps(description)))
    assert again == weights
    assert loaded.keys() == state.keys()
    for name, tensor in state.items():
        assert torch.equal(bits(loaded[name]), bits(tensor))
    assert loaded_masks.keys() == masks.keys()
    for name, mask in masks.items():
        assert loaded_masks[name].dtype == mask.dtype
        assert torch.equal(loaded_masks[name], mask)


def test_table_takes_one_bit_per_column():
    table = FrozenWeights(0, "signed_constant", tensors={"t": FrozenTensor("columns", (1000, 64), "t")})
    mask = torch.rand(64, generator=torch.Generator().manual_seed(0)) < 0.5
    code, _ = pack(table, table.state({"t": mask}), {"t": mask.expand(1000, 64)})
    assert code.numel() == 4 + 1 + 9 + 8


def test_other_weights_are_refused():
    weights, masks = frozen(), draw_masks()
    state = weights.state(masks)
    masks = {name: mask.expand(state[name].shape) for name, mask in masks.items()}
    for name in state:
        changed = state | {name: state[name] + 1}
        with pytest.raises(ValueError, match=f"other weights in '{name}'"):
            pack(weights, changed, masks)
    with pytest.raises(ValueError, match="other weights"):
        pack(weights, {name: tensor.double() for name, tensor in state.items()}, masks)
    uneven = masks["table"].clone()
    uneven[1] = ~uneven[1]
    with pytest.raises(ValueError, match="other weights in 'table'"):
        pack(weights, state | {"table": state["table"] * uneven}, masks | {"table": uneven})


def test_weights_that_come_out_differently_are_refused():
    """As they would after a change of the law that a file knows nothing of."""
    weights, masks = frozen(), draw_masks()
    code, description = pack(weights, weights.state(masks), masks)
    with pytest.raises(ValueError, match="not those of the ticket"):
        unpack(code, description | {"seed": 4})
    with pytest.raises(ValueError, match="not those of the ticket"):
        unpack(code, {name: value for name, value in description.items() if name != "crc"})
    with pytest.raises(ValueError, match="damaged"):
        unpack(code[:-1], description)


def test_digest_sees_every_bit():
    state = {"a": torch.ones(3), "b": torch.zeros(2, 2)}
    assert digest(state) == digest(dict(reversed(state.items())))
    assert digest(state) != digest(state | {"b": -torch.zeros(2, 2)})
    assert digest(state) != digest(state | {"a": torch.tensor([1.0, 1.0, 1.0 + 2**-23])})


@pytest.mark.parametrize(
    "change",
    [
        {"law": "gaussian"},
        {"seed": -1},
        {"seed": "3"},
        {"mean_square": 0},
        {"mean_square": "x"},
        {"dtype": "int64"},
        {"dtype": "load"},
        {"dtype": "no_such_type"},
        {"dtype": None},
        {"tensors": {"a": ["trained", [2, 3]]}},
        {"tensors": {"a": ["weights", [2, -3]]}},
        {"tensors": {"a": ["weights", [2, 3.5]]}},
        {"tensors": {"a": ["weights", [True, 3]]}},
        {"tensors": {"a": ["weights", 6]}},
        {"tensors": {"a": ["weights"]}},
        {"tensors": {"a": ["weights", [2, 3], 5]}},
        {"tensors": {"a": ["weights", [2, 3], "b", "c"]}},
        {"tensors": {"a": "b"}},
        {"tensors": {"a": None}},
        {"tensors": []},
        {"tensors": None},
    ],
    ids=str,
)
def test_other_descriptions_are_refused(change):
    description = frozen().to_json()
    FrozenWeights.from_json(description)
    with pytest.raises(ValueError, match=r"not a description|must|says"):
        FrozenWeights.from_json(description | change)
    with pytest.raises(ValueError, match="not a description"):
        FrozenWeights.from_json({name: value for name, value in description.items() if name not in change})


def test_parts_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="must hold the latter only"):
        frozen(same={"again": "missing"})
    with pytest.raises(ValueError, match="must hold the latter only"):
        frozen(same={"table": "a"})
    with pytest.raises(TypeError, match="floating point"):
        frozen(dtype=torch.int32)
    with pytest.raises(ValueError, match="'law'"):
        dataclasses.replace(frozen(), law="normal")


@pytest.mark.cuda
def test_every_device_draws_the_same():
    masks = draw_masks(coats=3)
    for law in WEIGHT_LAWS:
        weights = frozen(law, mean_square=0.9)
        assert digest(weights.state(masks, device="cuda")) == digest(weights.state(masks))
