"""Masks that several short trainings vote for."""

import numpy as np
import pytest
from models import MODELS
from resuming import same_state

from graphsparse.edges import sparsify_edge
from graphsparse.testing import random_graph
from graphsparse.tickets import InstantSoup, Magnitude, TicketRun, find_ticket, find_tickets
from graphsparse.training import Training

TRAINING = Training(epochs=5, seed=2)


@pytest.fixture
def trained(monkeypatch):
    """Keep how every copy is trained, and what becomes of it."""
    runs, train = [], TicketRun.train

    def keep(run, model, tag, **options):
        start = {name: entry.clone() for name, entry in model.state_dict().items()}
        result = train(run, model, tag, **options)
        runs.append((tag, options, start, result.state_dict))
        return result

    monkeypatch.setattr(TicketRun, "train", keep)
    return runs


@pytest.mark.parametrize("per_round", [0.2, 1.0])
def test_one_copy_that_nothing_disturbs_is_pruning_by_magnitude(per_round):
    alone = InstantSoup(copies=1, weak_epochs=5, per_round=per_round, drop_edges=0.0)
    # In one round copies are trained for each target, but all of them alike.
    targets = [(0, 0.5), (0, 0.8)] if per_round < 1 else [(0, 0.8)]
    options = {"targets": targets, "training": TRAINING}
    ours, theirs = (
        find_tickets(MODELS["GAT"], random_graph(), method=method, **options)
        for method in (alone, Magnitude(per_round))
    )
    for first, second in zip(ours, theirs, strict=True):
        assert same_state(first.weight_masks, second.weight_masks)
        assert same_state(first.state_dict, second.state_dict)
        assert first.metrics["test"] == second.metrics["test"]


def flat(tensors):
    return np.concatenate([tensors[f"convs.{i}.lin.weight"].numpy().ravel() for i in range(2)])


def test_the_fewest_votes_go_and_ties_by_size(trained):
    method = InstantSoup(copies=4, weak_epochs=2, per_round=0.5)
    ticket = find_ticket(MODELS["GCN"], random_graph(), weight_sparsity=0.75, method=method, training=TRAINING)
    before = np.ones(flat(ticket.weight_masks).size, dtype=bool)
    for left, copies in ((0.5, trained[:4]), (0.25, trained[4:])):
        remove = int((1 - left) * before.size)
        sizes, votes = [np.abs(flat(state)) for *_, state in copies], np.zeros(before.size)
        for size in sizes:
            assert not size[~before].any()
            smallest = np.argsort(np.where(before, size, -1), kind="stable")[:remove]
            votes += ~np.isin(np.arange(before.size), smallest)
        order = np.lexsort((np.mean(np.float64(sizes), 0), np.where(before, votes, -1)))
        before = ~np.isin(np.arange(before.size), order[:remove])
        assert (votes[before] < 4).sum() > 0  # not all agree
        assert votes[before].min() >= votes[~before].max()
    assert (flat(ticket.weight_masks) == before).all()


def test_copies_start_alike_and_differ_in_rate_dropout_and_edges(trained):
    data = random_graph()
    find_ticket(
        MODELS["GCN"], data, weight_sparsity=0.4, method=InstantSoup(copies=4, per_round=0.3), training=TRAINING
    )
    assert [tag for tag, *_ in trained] == [f"round-{i}-copy-{j}" for i in range(2) for j in range(4)]
    assert [options["lr"] for _, options, *_ in trained[:4]] == [0.01, 0.005, 0.02, 0.01]
    assert [options["epochs"] for _, options, *_ in trained] == [10] * 8
    assert len({options["seed"] for _, options, *_ in trained[:4]}) == 4
    assert all(same_state(start, trained[0][2]) for _, _, start, _ in trained)
    edges = [options["edges"].kept(data) for _, options, *_ in trained]
    assert len({tuple(mask.tolist()) for mask in edges}) == 8
    total = edges[0].numel()
    assert all(int((~mask).sum()) == int(0.2 * total) for mask in edges)
    assert sparsify_edge(data.edge_index, 0.2, "random", seed=2)[0].size(1) == 2 * int(edges[0].sum())


def test_bad_options():
    bad = {"copies": 0, "weak_epochs": 0, "per_round": 0.0, "drop_edges": 1.0}
    for name, value in bad.items():
        with pytest.raises(ValueError, match=f"'{name}'"):
            InstantSoup(**{name: value})
    with pytest.raises(TypeError, match="'copies' must be an integer"):
        InstantSoup(copies=2.5)
