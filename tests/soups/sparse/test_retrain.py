import pickle

import pytest
import torch
from models import MODELS

from graphsparse.soups.sparse.knobs import Knobs
from graphsparse.soups.sparse.retrain import Retrain, without_test
from graphsparse.soups.sparse.shared_mask import mask_digest
from graphsparse.soups.states.prune_state import apply_masks, magnitude_masks, maskable_names
from graphsparse.testing import random_graph
from graphsparse.training import fit, predict

DATA = without_test(random_graph())


def pruned(name):
    model = MODELS[name]()
    names = maskable_names(model)
    masks = magnitude_masks(model.state_dict(), names, 70)
    apply_masks(model.state_dict(), masks)
    return model, masks


@pytest.mark.parametrize("name", MODELS)
def test_what_was_pruned_stays_zero(name):
    model, masks = pruned(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    trained = Retrain(model, DATA, masks, None, predict)(Knobs(5, 0.01, 5e-4, 3))
    for key, mask in masks.items():
        assert not trained.state[key][~mask].any()
    assert trained.digest == mask_digest(masks)
    assert any(not torch.equal(trained.state[key], before[key]) for key in masks)
    # The model itself is trained by nobody.
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])


def test_in_another_process_it_is_the_same():
    model, masks = pruned("GCN")
    retrain, knobs = Retrain(model, DATA, masks, None, predict), Knobs(4, 0.02, 0.0, 7)
    here, there = retrain(knobs), pickle.loads(pickle.dumps(retrain))(knobs)
    assert here.best_epoch == there.best_epoch
    for key, value in here.state.items():
        assert torch.equal(value, there.state[key])


def test_knobs_reach_the_training():
    model = MODELS["GCN"]()
    found = Retrain(model, DATA, {}, None, predict)(Knobs(6, 0.03, 0.01, 5))
    expected = fit(model, DATA, epochs=6, lr=0.03, weight_decay=0.01, seed=5)
    assert found.best_epoch == expected.best_epoch
    for key, value in expected.state_dict.items():
        assert torch.equal(found.state[key], value)


def test_loader_gets_graph_and_seed():
    seen = []

    def make_loader(data, seed):
        seen.append((data, seed))
        return [data]

    model, masks = pruned("GraphSAGE")
    Retrain(model, DATA, masks, make_loader, predict)(Knobs(2, 0.01, 0.0, 9))
    assert seen == [(DATA, 9)]


def test_labels_of_test_nodes_are_hidden():
    data = random_graph()
    data.extra_mask = data.test_mask
    before = data.y.clone()
    hidden = without_test(data)
    assert torch.equal(hidden.y == -1, data.test_mask)
    assert torch.equal(hidden.y[~data.test_mask], data.y[~data.test_mask])
    assert {name for name in hidden.keys() if name.endswith("_mask")} == {"train_mask", "val_mask"}  # noqa: SIM118
    assert torch.equal(data.y, before)
    assert "test_mask" in data
