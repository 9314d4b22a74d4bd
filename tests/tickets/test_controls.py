from itertools import pairwise

import numpy as np
import pytest
import torch
from models import MODELS

from graphsparse.nn.dropout import set_dropout
from graphsparse.testing import random_graph
from graphsparse.tickets import controls
from graphsparse.tickets.controls import run_controls
from graphsparse.tickets.mask_search import mask_search
from graphsparse.tickets.search_task import SearchTask
from graphsparse.training import build_model, fit

UGT = mask_search("ugt", {}, epochs=None, lr=None, weight_decay=None)


@pytest.fixture
def trained(monkeypatch):
    """Keep what every training of a control starts and ends with."""
    runs, run = [], SearchTask.run

    def keep(task, model, optimizer, **options):
        start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        result = run(task, model, optimizer, **options)
        runs.append({"start": start, "end": result.state_dict, "result": result, "task": task})
        return result

    monkeypatch.setattr(SearchTask, "run", keep)
    return runs


def weights(state):
    """The matrices of a GCN as one vector."""
    return np.concatenate([tensor.numpy().ravel() for name, tensor in state.items() if name.endswith("lin.weight")])


def run(name, sparsity=0.6, make_model=MODELS["GCN"], search=UGT, **options):
    return run_controls([name], make_model, SearchTask(random_graph(), epochs=4, **options), sparsity, search)


def test_dense_takes_the_dropout_that_is_best_on_validation():
    found = run("dense")
    data, best = random_graph(), None
    for dropout in controls.DROPOUTS:
        model = build_model(MODELS["GCN"], 0)
        set_dropout(model, dropout)
        result = fit(model, data, epochs=4)
        if best is None or result.val > best[1].val:
            best = (dropout, result)
    assert found["dense_dropout"] == best[0]
    assert found["dense_val_accuracy"] == best[1].val
    assert found["dense_test_accuracy"] == best[1].test


def test_test_labels_have_no_say(trained):
    run("dense")
    assert len(trained) == len(controls.DROPOUTS)
    assert all(one["task"].data.get("test_mask") is None for one in trained)


def test_one_dense_training_serves_all(trained):
    run_controls(
        ["dense", "random_trained", "magnitude"], MODELS["GCN"], SearchTask(random_graph(), epochs=4), 0.6, UGT
    )
    assert len(trained) == len(controls.DROPOUTS) + 2


def test_random_mask_of_exact_sparsity_is_trained(trained):
    found = run("random_trained")
    start, end = weights(trained[-1]["start"]), weights(trained[-1]["end"])
    assert (start == 0).sum() == int(0.6 * start.size)
    assert ((end == 0) == (start == 0)).all()
    assert not (end == start)[start != 0].any()
    assert found["random_trained_test_accuracy"] == trained[-1]["result"].test


@pytest.mark.parametrize(("scope", "shared"), [("global", False), ("layer", True)])
def test_random_mask_follows_the_scope(trained, scope, shared):
    run("random_trained", search=mask_search("ugt", {"scope": scope}, epochs=None, lr=None, weight_decay=None))
    state = trained[-1]["start"]
    each = [int((t == 0).sum()) == int(0.6 * t.numel()) for name, t in state.items() if name.endswith("lin.weight")]
    assert all(each) == shared


def test_untrained_random_mask_is_not_trained(trained):
    found = run("random_untrained", sparsity=0.5)
    assert torch.equal(trained[0]["start"]["scores"], trained[0]["end"]["scores"])
    assert found["random_untrained_val_accuracy"] == trained[0]["result"].val
    assert len(trained) == 1


def test_magnitude_leaves_out_the_smallest_trained_weights_and_rewinds(trained):
    run("magnitude")
    dense = max(trained[: len(controls.DROPOUTS)], key=lambda one: one["result"].val)
    size = np.abs(weights(dense["end"]))
    smallest = np.argsort(size, kind="stable")[: int(0.6 * size.size)]
    start, initial = weights(trained[-1]["start"]), weights(build_model(MODELS["GCN"], 0).state_dict())
    assert set(np.flatnonzero(start == 0)) == set(smallest)
    assert (start == initial)[start != 0].all()


def test_iterative_magnitude_goes_down_by_a_fifth_a_round(trained):
    found = run("magnitude_iterative", sparsity=0.5)
    assert found["magnitude_iterative_rounds"] == 4  # 0.8, 0.64, 0.512, 0.5
    rounds = trained[len(controls.DROPOUTS) :]
    num = weights(rounds[0]["start"]).size
    gone = [(weights(one["start"]) == 0) for one in rounds]
    for mask, left in zip(gone, (0.8, 0.64, 0.512, 0.5), strict=True):
        assert abs(mask.sum() - (1 - left) * num) < 1
    for before, after in pairwise(gone):
        assert (after | ~before).all()  # nothing comes back


def test_biases_are_not_masked(trained):
    run("random_trained", make_model=MODELS["GIN"], sparsity=0.9)
    assert all(tensor.count_nonzero() for name, tensor in trained[-1]["start"].items() if name.endswith("bias"))


@pytest.mark.parametrize("bad", ["dense", ["best"], [1]])
def test_unknown_controls(bad):
    with pytest.raises(ValueError, match="'controls' must be a list of names among"):
        controls.check_controls(bad)
