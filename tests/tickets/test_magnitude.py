"""Masks of the largest trained weights."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from models import MODELS

from graphsparse.testing import random_graph
from graphsparse.tickets import Magnitude, TicketRun, find_ticket, find_tickets
from graphsparse.training import NodeTask, Training

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


def test_biases_are_not_masked():
    ticket = find_ticket(MODELS["GIN"], random_graph(), weight_sparsity=0.9, method=Magnitude(), training=TRAINING)
    assert not [name for name in ticket.weight_masks if name.endswith("bias")]
    assert torch.cat([t for n, t in ticket.state_dict.items() if n.endswith("bias")]).count_nonzero() > 0


def test_masks_are_on_the_run_s_names():
    run = TicketRun(MODELS["BatchNorm and a tied weight"], NodeTask(random_graph()), [], TRAINING)
    assert list(run.everything().weights) == run.names
    assert "third.lin.weight" not in run.names
