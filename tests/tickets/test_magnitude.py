"""Masks of the largest trained weights."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from models import MODELS

from graphsparse.testing import random_graph
from graphsparse.tickets import Magnitude, TicketRun, find_ticket, find_tickets
from graphsparse.training import Masks, NodeTask, Training, build_model, fit

TRAINING = Training(epochs=4)


@pytest.fixture
def trained(monkeypatch):
    """Keep what every training of a search starts and ends with."""
    runs, train = [], TicketRun.train

    def keep(run, model, tag, **options):
        weights = options["weights"]
        result = train(run, model, tag, **options)
        runs.append((weights, result.state_dict))
        return result

    monkeypatch.setattr(TicketRun, "train", keep)
    return runs


def flat(tensors):
    """The matrices of a GCN as one vector."""
    return np.concatenate([tensor.numpy().ravel() for name, tensor in tensors.items() if name.endswith("lin.weight")])


def test_the_smallest_trained_weights_are_left_out(trained):
    ticket = find_ticket(MODELS["GCN"], random_graph(), weight_sparsity=0.6, method=Magnitude(), training=TRAINING)
    ((_, dense),) = trained
    size = np.abs(flat(dense))
    smallest = np.argsort(size, kind="stable")[: int(0.6 * size.size)]
    assert set(np.flatnonzero(~flat(ticket.weight_masks))) == set(smallest)


def test_one_dense_training_serves_all_targets(trained):
    targets = [(0, 0.3), (0, 0.6), (0, 0.9)]
    find_tickets(MODELS["GCN"], random_graph(), targets=targets, method=Magnitude(), training=TRAINING)
    assert len(trained) == 1


def test_rounds_take_equal_shares_of_at_most_a_fifth(trained):
    options = {"method": Magnitude(per_round=0.2), "training": TRAINING}
    ticket = find_ticket(MODELS["GCN"], random_graph(), weight_sparsity=0.5, **options)
    kept = [flat(weights) for weights, _ in trained] + [flat(ticket.weight_masks)]
    for mask, left in zip(kept, (0.5 ** (i / 4) for i in range(5)), strict=True):
        assert (~mask).sum() == int((1 - left) * mask.size)
    for (before, after), (_, state) in zip(pairwise(kept), trained, strict=True):
        assert (before | ~after).all()  # nothing comes back
        size = np.abs(flat(state))
        assert not size[~before].any()
        assert size[after].min() >= size[before & ~after].max()


@pytest.mark.parametrize("per_round", [0.4, 1.0])
def test_late_rewinding(per_round):
    """Every training but the first starts from the weights after epoch 3 and takes the epochs that are left."""
    run = TicketRun(MODELS["BatchNorm and a tied weight"], NodeTask(random_graph()), [(0, 0.3), (0, 0.8)], TRAINING)
    seen, after_three = [], {}

    def note(model, epoch):
        if epoch == 0:
            seen.append({name: entry.clone() for name, entry in model.state_dict().items()})

    def keep(model, epoch):
        if epoch == 2:
            after_three.update((name, entry.clone()) for name, entry in model.state_dict().items())

    run.train(run.model(), "whole", after_step=[keep])
    found = list(Magnitude(per_round, rewind=3).find(run))
    for entry in found:
        assert entry.epochs == 1
        assert list(entry.start) == list(after_three)
        assert all(torch.equal(value, after_three[name]) for name, value in entry.start.items())
        run.train(run.model(entry.start), "final", weights=entry.weights, lr=0.0, weight_decay=0.0, after_step=[note])
        masked = Masks(entry.weights).apply(after_three)
        for name in run.names:  # buffers of normalisation move with every pass
            assert torch.equal(seen[-1][name], masked[name])


def test_a_target_before_the_first_round_takes_the_whole_training():
    targets, method = [(0, 0.0), (0, 0.5)], Magnitude(rewind=2)
    dense, _ = find_tickets(MODELS["GCN"], random_graph(), targets=targets, method=method, training=TRAINING)
    result = fit(build_model(MODELS["GCN"], 0), random_graph(), training=replace(TRAINING, fast=False))
    (plain,) = find_tickets(MODELS["GCN"], random_graph(), targets=[(0, 0)], method=method, training=TRAINING)
    assert dense.metrics == plain.metrics
    assert dense.metrics["val"] == result.val


def test_bad_rewind():
    for rewind, error in ((-1, ValueError), (1.5, TypeError)):
        with pytest.raises(error, match="'rewind' must be"):
            Magnitude(rewind=rewind)
    with pytest.raises(ValueError, match="'rewind' must be below the 4 epochs of 'training'"):
        find_ticket(MODELS["GCN"], random_graph(), method=Magnitude(rewind=4), training=TRAINING)


def test_biases_are_not_masked():
    ticket = find_ticket(MODELS["GIN"], random_graph(), weight_sparsity=0.9, method=Magnitude(), training=TRAINING)
    assert not [name for name in ticket.weight_masks if name.endswith("bias")]
    assert torch.cat([t for n, t in ticket.state_dict.items() if n.endswith("bias")]).count_nonzero() > 0


def test_masks_are_on_the_run_s_names():
    run = TicketRun(MODELS["BatchNorm and a tied weight"], NodeTask(random_graph()), [], TRAINING)
    assert list(run.everything().weights) == run.names
    assert "third.lin.weight" not in run.names
