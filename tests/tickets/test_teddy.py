import math

import pytest
import torch
from models import MODELS
from resuming import Kill, same_state

from graphsparse.edges import sparsify_edge
from graphsparse.testing import random_graph
from graphsparse.tickets import find_random_ticket, find_teddy_ticket, train_teacher

OPTIONS = {"edge_sparsity": 0.4, "weight_sparsity": 0.6, "epochs": 4}


def test_edges_are_those_of_the_score():
    data = random_graph()
    for score in ("teddy", "reverse_teddy", lambda edge_index, num_nodes: edge_index.sum(0).float()):
        ticket = find_teddy_ticket(MODELS["GCN"], data, score=score, **OPTIONS)
        expected = sparsify_edge(data.edge_index, 0.4, score, num_nodes=data.num_nodes)[1]
        assert torch.equal(ticket.edge_mask, expected)


def test_same_seed_same_ticket_and_the_generator_is_left_alone():
    data, state = random_graph(), torch.get_rng_state()
    first, again, other = (find_teddy_ticket(MODELS["GCN"], data, seed=s, **OPTIONS) for s in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    for name, tensor in first.state_dict.items():
        assert torch.equal(again.state_dict[name], tensor)
    assert any(not torch.equal(other.state_dict[name], tensor) for name, tensor in first.state_dict.items())


def test_given_teacher_equals_the_one_it_would_train():
    data = random_graph()
    logits, _ = train_teacher(MODELS["GCN"], data, epochs=4, seed=2)
    with_teacher = find_teddy_ticket(MODELS["GCN"], data, seed=2, teacher=logits, **OPTIONS)
    without = find_teddy_ticket(MODELS["GCN"], data, seed=2, **OPTIONS)
    for name, tensor in without.state_dict.items():
        assert torch.equal(with_teacher.state_dict[name], tensor)


def test_empty_masks_when_nothing_is_pruned():
    ticket = find_teddy_ticket(MODELS["GCN"], random_graph(), edge_sparsity=0, weight_sparsity=0, epochs=2)
    assert ticket.edge_mask.all()
    assert not ticket.weight_masks


def test_user_loop_settings_reach_the_training():
    rows = []
    find_teddy_ticket(MODELS["GCN"], random_graph(), log=rows.append, distill=0.0, patience=1, lr=0.0, **OPTIONS)
    assert len(rows) == 2  # the second epoch is no better than the first


def poisoned(value):
    data = random_graph()
    data.y = torch.where(data.test_mask, torch.tensor(value), data.y)
    return data


def test_test_labels_change_nothing_but_the_test_accuracy():
    first, second = (find_teddy_ticket(MODELS["GCN"], poisoned(v), **OPTIONS) for v in (0, 2))
    for name, tensor in first.state_dict.items():
        assert torch.equal(second.state_dict[name], tensor)
    assert first.metrics["val_accuracy"] == second.metrics["val_accuracy"]


BAD = {
    "edge sparsity of 1": ({"edge_sparsity": 1.0}, ValueError, "'edge_sparsity'.*got 1.0"),
    "negative edge sparsity": ({"edge_sparsity": -0.1}, ValueError, "'edge_sparsity'"),
    "NaN": ({"weight_sparsity": math.nan}, ValueError, "'weight_sparsity'"),
    "text": ({"weight_sparsity": "0.5"}, TypeError, "'weight_sparsity' must be a number"),
    "scope": ({"scope": "layer"}, ValueError, "'scope' must be"),
    "distill": ({"distill": -1.0}, ValueError, "'distill'"),
    "distill nodes": ({"distill_nodes": "test"}, ValueError, "'train', 'observed' or 'all'"),
    "all nodes of an inductive split": ({"distill_nodes": "all", "inductive": True}, ValueError, "hidden nodes"),
    "temperature": ({"temperature": 0.0}, ValueError, "'temperature' must be positive"),
    "teacher": ({"teacher": torch.zeros(3, 3)}, ValueError, r"\[60, C\] \(got \[3, 3\]\)"),
    "teacher of another width": ({"teacher": torch.zeros(60, 5)}, ValueError, "student_logits"),
    "score": ({"score": "tedy"}, ValueError, "'score'"),
    "score of the wrong length": ({"score": lambda e, n: torch.ones(3)}, ValueError, "one value per edge"),
    "epochs": ({"epochs": 0}, ValueError, "'epochs' must be at least 1"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_argument(case):
    options, error, message = BAD[case]
    with pytest.raises(error, match=message):
        find_teddy_ticket(MODELS["GCN"], random_graph(), **{**OPTIONS, **options})


def without(key):
    data = random_graph()
    del data[key]
    return data


def changed(key, value):
    data = random_graph()
    data[key] = value(data[key])
    return data


def with_nan(x):
    return torch.where(torch.arange(x.numel()).view_as(x) == 17, torch.nan, x)


BAD_DATA = {
    "no edges given": (lambda: without("edge_index"), ValueError, "'edge_index'"),
    "edges transposed": (lambda: changed("edge_index", lambda e: e.t()), ValueError, r"\[2, E\]"),
    "edges as floats": (lambda: changed("edge_index", lambda e: e.float()), TypeError, "float32"),
    "ids out of range": (lambda: changed("edge_index", lambda e: e + 5), ValueError, "not below 'num_nodes'"),
    "no features": (lambda: without("x"), ValueError, "'data.x'"),
    "NaN in features": (lambda: changed("x", with_nan), ValueError, "NaN"),
    "no training nodes": (lambda: changed("train_mask", torch.zeros_like), ValueError, "marks no node"),
    "no validation mask": (lambda: without("val_mask"), ValueError, "'data.val_mask' is missing"),
    "labels out of range": (lambda: changed("y", lambda y: y + 1), ValueError, "out of range"),
    "negative labels": (lambda: changed("y", lambda y: y - 1), ValueError, "out of range"),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data(case):
    make, error, message = BAD_DATA[case]
    with pytest.raises(error, match=message):
        find_teddy_ticket(MODELS["GCN"], make(), **OPTIONS)


def test_bad_models():
    from torch_geometric.nn import GCN

    data = random_graph()
    for make_model, error, message in [
        (lambda: GCN(8, 16, 2, 2), ValueError, "wrong width"),
        (lambda: GCN(-1, 16, 2, 3), ValueError, "lazy"),
        (lambda: "model", TypeError, "must return a torch.nn.Module"),
        (MODELS["GCN"](), TypeError, "function that builds a fresh model"),
    ]:
        with pytest.raises(error, match=message):
            find_teddy_ticket(make_model, data, **OPTIONS)


@pytest.mark.parametrize("find", [find_teddy_ticket, find_random_ticket])
@pytest.mark.parametrize("killed", [3, 11])
def test_a_killed_search_goes_on(find, killed, tmp_path):
    """The teacher trains in the first 8 epochs."""
    data, path, seen = random_graph(), tmp_path / "ticket.pt", []
    options = OPTIONS | {"epochs": 8}
    whole = find(MODELS["GCN"], data, **options)

    def kill(row):
        seen.append(row)
        if len(seen) == killed:
            raise Kill

    with pytest.raises(Kill):
        find(MODELS["GCN"], data, checkpoint=path, log=kill, **options)
    assert (tmp_path / "ticket.pt.teacher").is_file()
    rows = []
    found = find(MODELS["GCN"], data, checkpoint=path, log=rows.append, **options)
    assert len(rows) <= (16 if killed == 3 else 8)  # a teacher that is done is not trained again
    assert found.metrics == whole.metrics
    assert same_state(found.state_dict, whole.state_dict)
    again = find(MODELS["GCN"], data, checkpoint=path, log=rows.append, **options)
    assert torch.equal(again.edge_mask, whole.edge_mask)


@pytest.mark.parametrize(
    "other", [{"distill": 1.0}, {"temperature": 2.0}, {"edge_sparsity": 0.2}, {"weight_sparsity": 0.3}, {"lr": 0.1}]
)
def test_the_checkpoint_of_another_ticket_is_refused(other, tmp_path):
    data = random_graph()
    teacher, _ = train_teacher(MODELS["GCN"], data, epochs=2)
    find_teddy_ticket(MODELS["GCN"], data, teacher=teacher, checkpoint=tmp_path / "a.pt", **OPTIONS)
    with pytest.raises(ValueError, match="belongs to another training"):
        find_teddy_ticket(MODELS["GCN"], data, teacher=teacher, checkpoint=tmp_path / "a.pt", **{**OPTIONS, **other})
    with pytest.raises(TypeError, match="'checkpoint' must be a path"):
        find_teddy_ticket(MODELS["GCN"], data, teacher=teacher, checkpoint=3, **OPTIONS)
