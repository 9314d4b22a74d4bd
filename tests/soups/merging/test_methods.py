"""What every method of merging promises; a new one is tested by being registered."""

import warnings
from pathlib import Path

import pytest
import torch
from models import MODELS
from resuming import same_state
from soup_helpers import CountedStates, random_states
from torch_geometric.nn import GCN

from graphsparse.soups import MERGES, combine, merge, merge_method
from graphsparse.testing import random_graph

pytestmark = pytest.mark.once

#: Short options of what takes long; a method that is new needs none to be tested.
OPTIONS = {"distil": {"epochs": 3}, "fisher": {"nodes": 4}}
OURS = [name for name, made in MERGES.items() if made.__module__.startswith("graphsparse.soups.")]
#: Methods for the models that are known layer by layer; all others take any model.
FAMILY = {"gnnmerge", "rounds", "condense", "repair"}
ANY = [name for name in OURS if name not in FAMILY]
#: Methods that draw, train, smooth or rescale, so that of equal networks they make another one.
CHANGING = {"dare", "della", "distil", "rounds", "condense", "repair"}
KEEPING = [name for name in OURS if name not in CHANGING]
#: What has methods trim nothing.
WHOLE = {"ties": {"sparsity": 0.0}, "breadcrumbs": {"sparsity": 0.0, "outliers": 0.0}}


class Secret(torch.Tensor):
    """Labels that nobody may look at."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        raise AssertionError(f"{func} looked at a label")


def close(make_model, num):
    """Networks that lie near each other, so that methods for a shared start do not warn."""
    return random_states(make_model, num, spread=0.2)


def run(name, states, make_model, data=None, **options):
    """Merge with all that any method may need."""
    if name == "slerp":
        states = [states[i] for i in range(2)]
    owner = torch.arange(60) % len(states)
    base = random_states(make_model, 1)[0]
    options = {**OPTIONS.get(name, {}), **options}
    return merge(states, make_model(), data or random_graph(), method=name, responsibility=owner, base=base, **options)


@pytest.mark.parametrize("name", OURS)
def test_a_state_of_the_model_and_the_same_again(name):
    states = close(MODELS["GCN"], 3)
    before = [{key: value.clone() for key, value in state.items()} for state in states]
    data = random_graph()
    data.x = data.x * (torch.rand(60, 8) < 0.08)  # layers keep a sparse form of such features
    first, second, third = (run(name, states, MODELS["GCN"], data, seed=5) for _ in range(3))
    for other in (second, third):
        assert same_state(first.state_dict, other.state_dict)
        assert first.trace == other.trace
    model = MODELS["GCN"]()
    assert {k: (v.shape, v.dtype) for k, v in first.state_dict.items()} == {
        k: (v.shape, v.dtype) for k, v in model.state_dict().items()
    }
    assert all(value.isfinite().all() for value in first.state_dict.values())
    for value in first.state_dict.values():
        value.fill_(7)  # shares no memory with anything that came in
    assert all(same_state(state, old) for state, old in zip(states, before, strict=True))


def test_what_a_method_hands_on_is_copied():
    states = close(MODELS["GCN"], 1)
    merge_method("handed on")(lambda run: run[0])
    try:
        found = merge(states, MODELS["GCN"](), method="handed on").state_dict
    finally:
        del MERGES["handed on"]
    assert all(value.data_ptr() != states[0][name].data_ptr() for name, value in found.items())


@pytest.mark.parametrize("name", OURS)
def test_the_model_and_the_graph_stay_as_they_are(name):
    model, data = GCN(8, 16, 2, 3, cached=True).train(), random_graph()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    states = close(lambda: GCN(8, 16, 2, 3), 2)
    merge(states, model, data, method=name, base=states[0], **OPTIONS.get(name, {}))
    assert same_state(model.state_dict(), before)
    assert model.training
    assert model.convs[0]._cached_edge_index is None
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    other = random_graph()
    assert all(torch.equal(data[key], other[key]) for key in other.keys())  # noqa: SIM118 - of a Data


@pytest.mark.parametrize("name", OURS)
def test_labels_are_never_read(name):
    data = random_graph()
    found = run(name, close(MODELS["GCN"], 2), MODELS["GCN"], data)
    for key in ("y", "train_mask", "val_mask", "test_mask"):
        data[key] = torch.zeros(60).as_subclass(Secret)
    assert same_state(run(name, close(MODELS["GCN"], 2), MODELS["GCN"], data).state_dict, found.state_dict)
    for key in ("y", "train_mask", "val_mask", "test_mask"):
        del data[key]
    assert same_state(run(name, close(MODELS["GCN"], 2), MODELS["GCN"], data).state_dict, found.state_dict)


@pytest.mark.parametrize("name", KEEPING)
@pytest.mark.parametrize("kind", ["GCN", "GAT", "BatchNorm and a tied weight"])
def test_copies_give_the_copy(name, kind):
    if name in FAMILY and kind != "GCN":
        pytest.skip("another kind of model")
    state = close(MODELS[kind], 1)[0]
    for num in (2,) if name == "slerp" else (1, 2, 3, 5):
        copies = [{key: value.clone() for key, value in state.items()} for _ in range(num)]
        assert same_state(run(name, copies, MODELS[kind], **WHOLE.get(name, {})).state_dict, state), num


@pytest.mark.parametrize("name", OURS)
def test_weights_rebuild_the_state(name):
    for kind in ("GCN", "BatchNorm and a tied weight") if name in ANY else ("GCN",):
        states = close(MODELS[kind], 2)
        found = run(name, states, MODELS[kind])
        assert (found.weights is not None) == (name in ("mean", "slerp", "karcher"))
        if found.weights is not None:
            again = combine(states, found.weights)
            for key, value in found.state_dict.items():
                torch.testing.assert_close(again[key], value)


@pytest.mark.parametrize("name", ANY)
def test_statistics_integers_and_ties(name):
    states = close(MODELS["BatchNorm and a tied weight"], 2)
    for i, state in enumerate(states):
        state["norm.running_mean"] = torch.full((16,), float(i))
    found = run(name, states, MODELS["BatchNorm and a tied weight"]).state_dict
    assert found["third.lin.weight"] is found["second.lin.weight"]
    assert found["norm.num_batches_tracked"].dtype == torch.int64
    if name != "distil":  # which trains on statistics of its own
        assert torch.equal(found["norm.running_mean"], torch.full((16,), 0.5))
        assert torch.equal(found["norm.num_batches_tracked"], states[0]["norm.num_batches_tracked"])


@pytest.mark.parametrize("name", OURS)
def test_memory_does_not_depend_on_the_number_of_networks(name):
    def make_model():
        return GCN(8, 211, 2, 5)  # widths that nothing but a weight has

    most = []
    for num in (3, 9):
        states = CountedStates(close(make_model, num))
        with states:
            run(name, states, make_model)
        most.append(states.most)
    assert most[1] < most[0] + 0.1


@pytest.mark.parametrize("name", OURS)
def test_networks_from_other_weights(name):
    states = random_states(MODELS["GCN"], 2, spread=1.0)
    if MERGES[name].start == "shared":
        with pytest.warns(UserWarning, match="started from different weights"):
            run(name, states, MODELS["GCN"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(name, close(MODELS["GCN"], 2), MODELS["GCN"])
        if MERGES[name].start == "any":
            run(name, states, MODELS["GCN"])


@pytest.mark.parametrize("name", OURS)
def test_what_is_missing_is_named(name):
    states, model = close(MODELS["GCN"], 2), MODELS["GCN"]()
    given = {"graph": {"data": random_graph()}, "base": {"base": states[0]}}
    for need, argument in (("graph", "data"), ("base", "base")):
        rest = {key: value for other, part in given.items() if other != need for key, value in part.items()}
        if need in MERGES[name].needs:
            with pytest.raises(ValueError, match=f"'{argument}' must"):
                merge(states, model, method=name, **rest)
        else:
            merge(states, model, method=name, **rest, **OPTIONS.get(name, {}))


@pytest.mark.parametrize("name", OURS)
def test_heads_of_other_classes_are_merged_or_refused(name):
    classes = [[0, 2], [1]]
    states, model = [GCN(8, 16, 2, len(own)).state_dict() for own in classes], GCN(8, 16, 2, 3)
    given = {"method": name, "classes": classes, "base": model.state_dict(), **OPTIONS.get(name, {})}
    if MERGES[name].heads:
        model.load_state_dict(merge(states, model, random_graph(), **given).state_dict)
    else:
        with pytest.raises(ValueError, match="'classes' can be given"):
            merge(states, model, random_graph(), **given)


@pytest.mark.cuda
@pytest.mark.parametrize("name", OURS)
def test_on_a_device(name, device):
    states, data = close(MODELS["GCN"], 2), random_graph()
    expected = run(name, states, MODELS["GCN"], data).state_dict
    there = [{key: value.to(device) for key, value in state.items()} for state in states]
    found = run(name, there, lambda: MODELS["GCN"]().to(device), data.to(device)).state_dict
    for key, value in found.items():
        assert value.device == device
        torch.testing.assert_close(value.cpu(), expected[key], rtol=1e-3, atol=1e-4)


def test_the_page_has_a_row_for_every_method():
    page = (Path(__file__).parents[3] / "docs" / "merging.md").read_text(encoding="utf-8").split("## Methods")[1]
    rows = [line.split("|")[1:5] for line in page.splitlines() if line.startswith("| `")]
    told = {
        name.strip(" `"): (set(needs.split()), start.strip(), heads.strip() == "yes")
        for name, needs, start, heads in rows
        if start.strip() in ("any", "shared")
    }
    assert told == {name: (set(MERGES[name].needs), MERGES[name].start, MERGES[name].heads) for name in OURS}
