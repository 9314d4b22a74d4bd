"""The function that compares methods with the dense model."""

import pytest
import torch
from models import MODELS
from torch_geometric.nn import GCN

from graphsparse.nn.linear import set_dropout
from graphsparse.testing import random_graph
from graphsparse.tickets import OneShot, Untrained, compare_tickets, find_ticket
from graphsparse.training import Training, build_model, fit

TRAINING = Training(epochs=4, fast=False)


def dense(dropout, data):
    model = build_model(MODELS["GCN"], 0)
    set_dropout(model, dropout)
    return fit(model, data, TRAINING)


def test_dense_takes_the_dropout_that_is_best_on_validation():
    data = random_graph()
    (row,) = compare_tickets(MODELS["GCN"], data, [], training=TRAINING, dropouts=(0.0, 0.3, 0.9))
    results = {dropout: dense(dropout, data) for dropout in (0.0, 0.3, 0.9)}
    best = max(results, key=lambda dropout: results[dropout].val)
    assert (row["method"], row["dropout"]) == ("dense", best)
    for key in ("val", "test", "best_epoch"):
        assert row[key] == getattr(results[best], key)


def test_a_model_without_dropout_is_trained_once():
    rows = []
    training = Training(epochs=4, log=rows.append)
    compare_tickets(MODELS["BatchNorm and a tied weight"], random_graph(), [], training=training)
    assert len(rows) == 4


def test_rows_are_the_tickets_of_the_methods():
    data, options = random_graph(), {"edge_sparsity": 0.3, "weight_sparsity": 0.6}
    methods = ["teddy", "magnitude", OneShot("degree"), Untrained(epochs=3), "random_untrained"]
    rows = compare_tickets(MODELS["GCN"], data, methods, training=TRAINING, dropouts=(0.0,), **options)
    assert [row["method"] for row in rows] == [
        "dense",
        "teddy",
        "magnitude",
        "OneShot",
        "Untrained",
        "random_untrained",
    ]
    make_model = lambda: GCN(8, 16, 2, 3, dropout=0.0)  # noqa: E731
    for row, method in zip(rows[1:], methods, strict=True):
        kinds = ("edge_sparsity", "weight_sparsity")
        own = {"edges", "weights"} if method == "teddy" else getattr(method, "prunes", {"weights"})
        sparsities = {kind: options[kind] for kind in kinds if f"{kind.partition('_')[0]}s" in own}
        ticket = find_ticket(make_model, data, method=method, training=TRAINING, **sparsities)
        assert {key: row[key] for key in ticket.metrics} == ticket.metrics
        assert set(row) >= {"val", "test", "best_epoch", *kinds}


def test_test_labels_have_no_say():
    def rows(value):
        data = random_graph()
        data.y = torch.where(data.test_mask, torch.tensor(value), data.y)
        return compare_tickets(MODELS["GCN"], data, ["random"], weight_sparsity=0.5, training=TRAINING)

    first, second = rows(0), rows(2)
    for ours, theirs in zip(first, second, strict=True):
        assert ours["test"] != theirs["test"]
        assert {**ours, "test": 0} == {**theirs, "test": 0}


def test_a_comparison_goes_on(tmp_path):
    rows = []
    training = Training(epochs=4, checkpoint=tmp_path, log=rows.append)
    options = {"weight_sparsity": 0.5, "training": training}
    first = compare_tickets(MODELS["GCN"], random_graph(), ["random", "magnitude"], **options)
    rows.clear()
    assert compare_tickets(MODELS["GCN"], random_graph(), ["random", "magnitude"], **options) == first
    assert not rows
    assert {path.name for path in tmp_path.iterdir()} == {"dense", "random", "magnitude"}


def test_bad_methods():
    with pytest.raises(ValueError, match="'method' must be one of"):
        compare_tickets(MODELS["GCN"], random_graph(), ["best"], training=TRAINING)
