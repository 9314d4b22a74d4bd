import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from models import MODELS

from graphsparse.soups.states.prune_state import apply_masks, magnitude_masks, maskable_names, num_nonzero
from graphsparse.training import L0Projection

# Few different values, so that there are ties and zeros.
VALUES = st.lists(st.sampled_from([-2.0, -1.0, 0.0, 0.5, 1.0, 2.0]), min_size=1, max_size=12)


def sorted_reference(parts, num_kept, within):
    """Mark what is kept with a stable sort: what may not be kept goes first, then the smallest, then the first."""
    size = np.concatenate([np.where(allowed, np.abs(part), -1) for part, allowed in zip(parts, within, strict=True)])
    keep = np.ones(size.size, bool)
    keep[np.argsort(size, kind="stable")[: size.size - num_kept]] = False
    return np.split(keep, np.cumsum([len(part) for part in parts])[:-1])


@given(st.lists(VALUES, min_size=1, max_size=3), st.data())
def test_masks_are_those_of_a_stable_sort(parts, draw):
    within = [draw.draw(st.lists(st.booleans(), min_size=len(p), max_size=len(p))) for p in parts]
    allowed = sum(map(sum, within))
    num_kept = draw.draw(st.integers(0, allowed))
    names = [str(i) for i in range(len(parts))]
    state = {name: torch.tensor(part) for name, part in zip(names, parts, strict=True)}
    limits = {name: torch.tensor(part) for name, part in zip(names, within, strict=True)}
    found = magnitude_masks(state, names, num_kept, limits)
    for name, expected in zip(names, sorted_reference(parts, num_kept, within), strict=True):
        np.testing.assert_array_equal(found[name].numpy(), expected)


def test_what_is_left_is_what_the_projection_leaves():
    model = MODELS["GCN"]()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    names = maskable_names(model)
    total = sum(state[name].numel() for name in names)
    L0Projection(torch.optim.Adam(model.parameters()), 0.7).project()
    apply_masks(state, magnitude_masks(state, names, num_nonzero(model.state_dict(), names)))
    assert num_nonzero(state, names) == total - int(0.7 * total)
    for name, value in model.state_dict().items():
        assert torch.equal(state[name], value)


def test_a_tied_weight_counts_once():
    names = maskable_names(MODELS["BatchNorm and a tied weight"]())
    assert names == ["first.lin.weight", "second.lin.weight", "last.weight"]
    chosen = maskable_names(MODELS["BatchNorm and a tied weight"](), ["third.lin.weight", "last.bias"])
    assert chosen == ["second.lin.weight", "last.bias"]


def test_half_precision():
    state = {"w": torch.tensor([1.0, -3.0, 2.0], dtype=torch.bfloat16)}
    assert magnitude_masks(state, ["w"], 2)["w"].tolist() == [False, True, True]


@pytest.mark.parametrize("num_kept", [-1, 3])
def test_too_many_or_too_few(num_kept):
    within = {"w": torch.tensor([True, True, False])}
    with pytest.raises(ValueError, match="between 0 and 2"):
        magnitude_masks({"w": torch.ones(3)}, ["w"], num_kept, within)


def test_bad_names():
    model = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"\['nothing'\]"):
        maskable_names(model, ["nothing"])
    with pytest.raises(ValueError, match="nothing to prune"):
        maskable_names(model, [])
    with pytest.raises(ValueError, match="nothing to prune"):
        maskable_names(torch.nn.BatchNorm1d(2))
    for masked in ("weight", [1]):
        with pytest.raises(TypeError, match="list of names"):
            maskable_names(model, masked)
