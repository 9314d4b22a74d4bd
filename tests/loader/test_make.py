import random

import numpy as np
import pytest
import torch
from models import MODELS
from resuming import Kill, assert_same_result, kill_in, no_kill, same_state
from torch_geometric.nn import GCN
from torch_geometric.transforms import GCNNorm

from graphsparse.loader import SAMPLERS, make_loader
from graphsparse.testing import random_graph
from graphsparse.training import build_model, fit
from graphsparse.training.node_task import own_generators

PLAIN = random_graph(num_nodes=90)
WEIGHTED = GCNNorm()(random_graph(num_nodes=90))
OPTIONS = {
    "full": {},
    "cluster": {"num_parts": 6, "parts_per_batch": 2},
    "neighbor": {"num_neighbors": [3, 2], "batch_size": 8},
    "saint_rw": {"roots": 10, "walk_length": 2, "coverage": 20},
    "random_node": {"num_parts": 3},
    "fastgcn": {"batch_size": 8, "layer_size": 20},
    "ladies": {"batch_size": 8, "layer_size": 20},
}
ALL = pytest.mark.parametrize("sampler", OPTIONS)


def data_of(sampler):
    return WEIGHTED if SAMPLERS[sampler].needs_weighted_sums or sampler == "saint_rw" else PLAIN


def loader_of(sampler, seed=5):
    return make_loader(sampler, data_of(sampler), seed=seed, **OPTIONS[sampler])


def weighted_gcn():
    return GCN(8, 16, 2, 3, dropout=0.3, normalize=False)


def train(sampler, checkpoint=None, hook=no_kill, seed=5, epochs=6):
    """Train with everything made afresh, as a new process would."""
    weighted = data_of(sampler) is WEIGHTED
    model = build_model(
        (lambda: GCN(8, 16, 2, 3, dropout=0.3, normalize=False)) if weighted else MODELS["GraphSAGE"], 0
    )
    return fit(
        model,
        data_of(sampler),
        epochs=epochs,
        loader=loader_of(sampler, seed),
        after_step=[hook],
        checkpoint=checkpoint,
        checkpoint_every=None if checkpoint is None else 1,
        seed=2,
    )


def test_every_sampler_has_a_name():
    assert set(OPTIONS) == set(SAMPLERS)


@ALL
def test_trains_as_well_as_it_must(sampler):
    """Whatever sees the right labels finds at least 18 of 30 classes, where a guess does so once in 300 times."""
    assert train(sampler, epochs=25).test >= 0.6


@ALL
def test_killed_and_resumed_is_like_undisturbed(sampler, tmp_path):
    whole = train(sampler)
    path = tmp_path / "training.pt"
    for epoch, saved in ((0, 0), (3, 3)):
        with pytest.raises(Kill):
            train(sampler, path, kill_in(epoch, 1 if sampler == "full" else 2))
        assert torch.load(path, weights_only=True)["epochs_run"] == saved
    assert_same_result(whole, train(sampler, path))


@ALL
def test_all_randomness_is_that_of_the_generator(sampler):
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    loader = loader_of(sampler)
    assert own_generators(loader) == [loader.generator]
    start = loader.generator.get_state()
    first, second = list(loader), list(loader)
    loader.generator.set_state(start)
    again = list(loader)
    assert len(first) == len(second) == len(loader)
    assert contents(first) == contents(again)
    assert contents(first) == contents(loader_of(sampler))
    if sampler != "full":
        assert contents(first) != contents(second)
        assert contents(first) != contents(loader_of(sampler, 6))
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()
    assert np.array_equal(states[2], np.random.get_state()[1])  # noqa: NPY002


def contents(batches):
    """Everything in some batches as text."""
    return [sorted((key, str(value)) for key, value in batch.to_dict().items()) for batch in batches]


@ALL
def test_the_graph_is_left_alone(sampler):
    data = data_of(sampler)
    before = {key: value.clone() for key, value in data.to_dict().items()}
    list(loader_of(sampler))
    assert list(data.to_dict()) == list(before)
    assert all(torch.equal(data[key], value) for key, value in before.items())


def test_seeds_of_a_training_and_of_a_loader_are_apart():
    assert not same_state(train("random_node", seed=5).state_dict, train("random_node", seed=6).state_dict)


@pytest.mark.parametrize("sampler", ["saint_rw", "fastgcn", "ladies"])
def test_fit_refuses_models_that_normalise_again(sampler):
    with pytest.raises(ValueError, match="normalises the weights again"):
        fit(GCN(8, 16, 2, 3), WEIGHTED, epochs=1, loader=loader_of(sampler))
    with pytest.raises(ValueError, match=r"T.GCNNorm\(\)\(data\).*normalize=False"):
        make_loader(sampler, PLAIN, seed=0)


def test_plain_saint_takes_any_model():
    loader = make_loader("saint_rw", PLAIN, seed=0, coverage=0, roots=10)
    assert fit(build_model(MODELS["GAT"], 0), PLAIN, epochs=10, loader=loader).test > 0.6


def test_unknown_names():
    with pytest.raises(ValueError, match=r"'sampler' must be one of \['cluster', .*\(got 'saint'\)"):
        make_loader("saint", PLAIN, seed=0)
    with pytest.raises(ValueError, match="'sampler'"):
        make_loader(None, PLAIN, seed=0)
    with pytest.raises(TypeError, match="the sampler 'cluster' has no option 'parts'; it has .*'num_parts'"):
        make_loader("cluster", PLAIN, seed=0, parts=3)
    with pytest.raises(TypeError, match="the sampler 'full' has no option 'batch_size'"):
        make_loader("full", PLAIN, seed=0, batch_size=3)


@ALL
def test_a_loader_needs_a_graph(sampler):
    with pytest.raises(TypeError, match="'data' must be a torch_geometric Data"):
        make_loader(sampler, [PLAIN], seed=0)
    with pytest.raises(ValueError, match="'seed'"):
        make_loader(sampler, data_of(sampler), seed=-1)
