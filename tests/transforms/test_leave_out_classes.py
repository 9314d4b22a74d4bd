import copy
import pickle

import pytest
import torch
import torch_geometric.transforms as T
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Data, HeteroData
from torch_geometric.nn import GCN

from graphsparse.metrics import auroc, energy_score, max_softmax_score
from graphsparse.testing import random_graph
from graphsparse.transforms import LeaveOutClasses


def assert_unchanged(data, before):
    assert data.to_dict().keys() == before.to_dict().keys()
    for key, value in before.to_dict().items():
        assert torch.equal(data[key], value) if isinstance(value, torch.Tensor) else data[key] == value


def leaving_out(*classes, of):
    """The transform whose seed draws these classes."""
    fraction = (len(classes) + 0.1) / of
    for seed in range(1000):
        drawn = torch.randperm(of, generator=torch.Generator().manual_seed(seed))[: len(classes)]
        if set(drawn.tolist()) == set(classes):
            return LeaveOutClasses(fraction, seed)
    raise AssertionError("no seed draws them")


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(4, 12), st.floats(0.25, 0.5))
def test_equals_a_loop_over_the_nodes(seed, num_classes, fraction):
    data = random_graph(200, num_features=12, num_classes=num_classes, seed=seed % 7)
    out = LeaveOutClasses(fraction, seed)(data)
    left_out = out.left_out_classes.tolist()
    assert left_out == sorted(left_out)
    assert len(left_out) == len(set(left_out)) == int(fraction * num_classes)
    kept = [c for c in range(num_classes) if c not in left_out]
    assert out.kept_classes.tolist() == kept
    assert out.num_classes == len(kept)
    for i, label in enumerate(data.y.tolist()):
        inside = label in kept
        assert out.y[i] == (kept.index(label) if inside else -1)
        for key in ("train_mask", "val_mask", "test_mask"):
            assert out[key][i] == (data[key][i] and inside)
        assert out.ood_mask[i] == (data.test_mask[i] and not inside)
    assert torch.equal(out.edge_index, data.edge_index)
    assert torch.equal(out.x, data.x)


@pytest.mark.parametrize(("num_classes", "expected"), [(7, 2), (6, 2), (3, 1), (40, 16), (5, 2)])
def test_share_of_the_classes(num_classes, expected):
    data = random_graph(400, num_features=40, num_classes=num_classes)
    assert len(LeaveOutClasses()(data).left_out_classes) == expected


def test_real_graph(data_root):
    from graphsparse.datasets import load

    data = load("cora", data_root)
    out = LeaveOutClasses(seed=3)(data)
    assert out.num_classes == 5
    assert int(out.train_mask.sum()) == 100
    assert torch.equal(out.test_mask | out.ood_mask, data.test_mask)
    assert not (out.test_mask & out.ood_mask).any()
    assert out.y[out.train_mask | out.val_mask | out.test_mask].min() == 0
    assert data.num_classes == 7


def test_input_is_not_changed():
    data = random_graph()
    data.num_classes = 3
    before = copy.deepcopy(data)
    LeaveOutClasses()(data)
    assert_unchanged(data, before)


def test_seeds():
    data = random_graph(300, num_features=10, num_classes=10)
    chosen = {seed: tuple(LeaveOutClasses(seed=seed)(data).left_out_classes.tolist()) for seed in range(20)}
    assert chosen[4] == tuple(LeaveOutClasses(seed=4)(data).left_out_classes.tolist())
    assert len(set(chosen.values())) > 15
    assert {c for classes in chosen.values() for c in classes} == set(range(10))
    state = torch.get_rng_state()
    more = LeaveOutClasses(0.7, seed=4)(data).left_out_classes.tolist()
    assert set(chosen[4]) < set(more)
    assert torch.equal(torch.get_rng_state(), state)


def test_kept_classes_are_numbered_in_their_old_order():
    data = random_graph(num_classes=4)
    out = leaving_out(0, 3, of=4)(data)
    assert out.left_out_classes.tolist() == [0, 3]
    assert torch.equal(out.y == 0, data.y == 1)
    assert torch.equal(out.y == -1, (data.y == 0) | (data.y == 3))


def test_a_class_without_nodes_counts_where_the_graph_says_so():
    data = random_graph(num_classes=4)
    data.num_classes = 5
    out = leaving_out(0, of=5)(data)
    assert out.num_classes == 4
    assert out.kept_classes.tolist() == [1, 2, 3, 4]


def test_nodes_without_a_label_are_on_neither_side():
    data = random_graph(num_classes=4)
    data.y[5] = -100
    out = leaving_out(0, of=4)(data)
    assert out.y[5] == -100
    assert data.test_mask[5]
    assert not out.ood_mask[5]


def test_a_model_detects_what_was_left_out():
    data = leaving_out(3, of=4)(random_graph(600, num_classes=4))
    torch.manual_seed(0)
    model = GCN(8, 16, 2, data.num_classes)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        logits = model(data.x, data.edge_index)
        torch.nn.functional.cross_entropy(logits[data.train_mask], data.y[data.train_mask]).backward()
        optimizer.step()
    judged = data.test_mask | data.ood_mask
    for score in (max_softmax_score, energy_score):
        assert auroc(score(logits)[judged], data.ood_mask[judged]) > 0.7


def test_label_of_what_was_left_out_is_an_error_in_a_loss():
    data = leaving_out(0, of=3)(random_graph())
    with pytest.raises(IndexError, match="out of bounds"):
        torch.nn.functional.cross_entropy(torch.randn(60, 2), data.y)


def test_compose_pickle_and_repr():
    data = random_graph(num_classes=4)
    transform = pickle.loads(pickle.dumps(T.Compose([LeaveOutClasses(0.5, seed=2)])))
    assert torch.equal(transform(data).y, LeaveOutClasses(0.5, 2)(data).y)
    assert str(LeaveOutClasses()) == "LeaveOutClasses(fraction=0.4, seed=0)"


@pytest.mark.parametrize(
    ("error", "match", "args"),
    [
        (TypeError, "'fraction' must be a number in .0, 1. .got '0.4'", ("0.4",)),
        (TypeError, "'fraction' must be a number", (True,)),
        (ValueError, "'fraction' must be in .0, 1. .got 0", (0,)),
        (ValueError, "'fraction' must be in .0, 1. .got 1", (1,)),
        (ValueError, "'fraction' must be in .0, 1. .got nan", (float("nan"),)),
        (TypeError, "'seed' must be an integer", (0.4, None)),
        (ValueError, "'seed' must be between", (0.4, -1)),
    ],
)
def test_bad_arguments(error, match, args):
    with pytest.raises(error, match=match):
        LeaveOutClasses(*args)


def changed(**values):
    data = random_graph()
    for key, value in values.items():
        data[key] = value
    return data


@pytest.mark.parametrize(
    ("error", "match", "data"),
    [
        (TypeError, "'data' must be a homogeneous Data .got HeteroData", HeteroData()),
        (TypeError, "'data.y' must be int64 class labels .got NoneType", Data(x=torch.ones(3, 1))),
        (TypeError, "'data.y' must be int64 class labels .got torch.float32", changed(y=torch.ones(60))),
        (ValueError, r"'data.y' must be \[N\]", changed(y=torch.ones(60, 2).long())),
        (ValueError, "'data.test_mask' is missing", Data(y=torch.arange(3))),
        (TypeError, "'data.val_mask' must be a bool tensor", changed(val_mask=torch.ones(60))),
        (ValueError, r"'data.test_mask' must be \[60\] .got \[5\]", changed(test_mask=torch.ones(5).bool())),
        (ValueError, "'data.y' holds the label 2, which is not below", changed(num_classes=2)),
        (ValueError, "marks no node of the left-out classes", changed(test_mask=random_graph().y != 0)),
        (ValueError, "marks no node of the kept classes", changed(test_mask=random_graph().y == 0)),
    ],
)
def test_bad_graphs(error, match, data):
    with pytest.raises(error, match=match):
        leaving_out(0, of=3)(data)


def test_too_few_classes_for_the_fraction():
    with pytest.raises(ValueError, match="'fraction' must keep at least two of 3 classes"):
        LeaveOutClasses(0.7)(random_graph())
    with pytest.raises(ValueError, match="'fraction' 0.4 of 2 classes leaves none out"):
        LeaveOutClasses()(random_graph(num_classes=2))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train_idx", torch.tensor([1, 2])),
        ("train_index", torch.tensor([1, 2])),
        ("split_idx", {"train": torch.tensor([1, 2])}),
        ("folds", [torch.tensor([1, 2])]),
        ("numbers", {"train": torch.tensor([1, 2]).numpy()}),
        ("val_nodes", [1, 2]),
    ],
)
def test_a_split_that_would_keep_left_out_nodes_is_refused(key, value):
    data = random_graph()
    data[key] = value
    with pytest.raises(ValueError, match=f"'{key}' may hold nodes of left-out classes"):
        LeaveOutClasses(0.4)(data)


def test_links_stay_as_they_are():
    data = random_graph()
    data.split_edge, data.edge_label_index = {"train": {"edge": data.edge_index.t()}}, data.edge_index[:, :4]
    out = LeaveOutClasses(0.4)(data)
    assert out.split_edge is data.split_edge
    assert out.edge_label_index is data.edge_label_index
