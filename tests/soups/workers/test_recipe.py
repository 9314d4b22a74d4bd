import functools

import numpy as np
import pytest
import torch
from ingredient_runs import Net, NotedBatches
from torch import nn
from torch_geometric.nn import GCN, GraphSAGE

from graphsparse.loader import make_loader
from graphsparse.soups.store.description import describe_model
from graphsparse.soups.store.stored_graph import graph_digests, training_graph
from graphsparse.soups.workers.recipe import Recipe, weights_name
from graphsparse.testing import random_graph

DEFAULTS = {
    "make_model": Net,
    "sampler": "full",
    "sampler_options": {},
    "epochs": 5,
    "lr": 0.01,
    "weight_decay": 0.0,
    "jitter": None,
    "init": "shared",
    "inference": "full",
    "eval_every": 1,
    "accelerate": True,
    "seed": 0,
}


def keys(num=3, data=None, **options):
    recipe = Recipe(**{**DEFAULTS, **options})
    recipe.check()
    model = recipe.build(0)
    graph = training_graph(random_graph() if data is None else data)
    content = {"model": describe_model(model), "graph": graph_digests(graph)}
    return [key for key, _, _ in recipe.ingredients(num, model, content)]


def other_graph():
    data = random_graph()
    data.y[data.val_mask.nonzero()[0]] += 1
    data.y %= 3
    return data


def infer(model, data):
    return model(data.x, data.edge_index)


@pytest.mark.parametrize(
    "options",
    [
        {"epochs": 6},
        {"lr": 0.02},
        {"weight_decay": 1e-3},
        {"seed": 1},
        {"eval_every": 2},
        {"accelerate": False},
        {"inference": "layerwise"},
        {"inference": infer},
        {"init": "independent"},
        {"sampler": "cluster"},
        {"sampler": "random_node"},
        {"sampler": NotedBatches},
        {"make_model": lambda: Net(hidden=8)},
        {"make_model": lambda: Net(dropout=0.4)},
        {"make_model": lambda: GCN(8, 16, 2, 3)},
        {"jitter": {"dropout": [0.5]}},
        {"jitter": {"lr": [0.03]}},
        {"data": other_graph()},
    ],
)
def test_the_key_changes_with_whatever_changes_the_weights(options):
    assert not set(keys(**options)) & set(keys())


def test_the_key_changes_with_options_of_the_sampler():
    tensor = torch.arange(60)
    options = [{}, {"num_parts": 4}, {"num_parts": 5}, {"node_weight": tensor}, {"node_weight": tensor.flip(0)}]
    found = [keys(1, sampler="cluster", sampler_options=option)[0] for option in options]
    assert len(set(found)) == len(found)
    assert keys(1, sampler="cluster", sampler_options={"num_parts": np.int64(4)}) == [found[1]]


def test_the_key_stays_the_same_otherwise():
    data = random_graph()
    data.test_mask = None
    assert len(set(keys())) == 3
    for options in (
        {},
        {"lr": 1e-2, "weight_decay": 0},
        {"seed": np.int64(0), "epochs": np.int64(5), "eval_every": np.int64(1)},
        {"data": data},
        {"make_model": lambda: Net()},
        {"jitter": {"lr": [0.01], "epochs": [5]}},
        {"num": 2},
    ):
        assert keys(**options) == keys()[: options.get("num", 3)]
    first, second = ({"save_dir": folder, "num_parts": 4} for folder in ("a", "b"))
    assert keys(sampler="cluster", sampler_options=first) == keys(sampler="cluster", sampler_options=second)


def test_shared_start_and_streams_of_each_own():
    recipe = Recipe(**{**DEFAULTS, "jitter": {"lr": [0.1, 0.2, 0.3]}})
    model = recipe.build(0)
    specs = [spec for _, spec, _ in recipe.ingredients(20, model, {"model": {}, "graph": {}})]
    assert {spec["initial"] for spec in specs} == {weights_name(model)} == {recipe.start(model)["weights"]}
    for name in ("data_seed", "dropout_seed"):
        assert len({spec[name] for spec in specs}) == 20
    assert {spec["lr"] for spec in specs} == {0.1, 0.2, 0.3}


def test_independent_starts():
    recipe = Recipe(**{**DEFAULTS, "init": "independent"})
    model = recipe.build(0)
    assert recipe.start(model) == {"init": "independent"}
    found = list(recipe.ingredients(4, model, {"model": {}, "graph": {}}))
    assert len({spec["initial"] for _, spec, _ in found}) == 4
    for index, (_, spec, state) in enumerate(found):
        again = recipe.build(index + 1).state_dict()
        assert all(torch.equal(state[name], again[name]) for name in again)
        assert spec["initial"] == weights_name(recipe.build(index + 1))


class WithExtraState(Net):
    def get_extra_state(self):
        return {"version": 1}

    def set_extra_state(self, state):
        pass


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"epochs": 0}, ValueError, "'epochs' must be at least 1"),
        ({"lr": 0.0}, ValueError, "'lr' must be positive"),
        ({"lr": "0.1"}, TypeError, "'lr' must be a number"),
        ({"weight_decay": -1.0}, ValueError, "'weight_decay' must be at least 0"),
        ({"eval_every": 0}, ValueError, "'eval_every'"),
        ({"seed": -1}, ValueError, "'seed'"),
        ({"init": "random"}, ValueError, r"'init' must be one of \['shared', 'independent'\] \(got 'random'\)"),
        ({"inference": "fast"}, ValueError, "'inference' must be one of"),
        ({"inference": 3}, TypeError, "'inference' must be a function"),
        ({"sampler": 3}, TypeError, "'sampler' must be a function"),
        ({"sampler_options": {"num_parts": 3}}, TypeError, "'full' has no options"),
        (
            {"sampler": "cluster", "sampler_options": {"a": object()}},
            TypeError,
            r"'sampler_options\['a'\]' must be made",
        ),
        ({"seed": True}, TypeError, "'seed' must be an integer"),
        ({"seed": 2**63}, ValueError, r"'seed' must be between 0 and 2\*\*63 - 1"),
        ({"jitter": {"momentum": [1]}}, ValueError, "'jitter'"),
        ({"make_model": Net()}, TypeError, "'make_model' must be a function"),
        ({"make_model": lambda: 3}, TypeError, "'make_model' must return"),
        ({"make_model": lambda: Net().requires_grad_(False)}, ValueError, "no parameter to train"),
        ({"make_model": lambda: GCN(-1, 8, 2, 3)}, ValueError, "is lazy"),
        ({"make_model": WithExtraState}, TypeError, "'_extra_state' in its state dict, which is no tensor"),
        ({"make_model": lambda: Net().to("meta")}, ValueError, "must build the model on CPU"),
    ],
)
def test_refuses_what_cannot_be_trained(options, error, message):
    def make(recipe):
        recipe.check()
        recipe.build(0)

    with pytest.raises(error, match=message):
        make(Recipe(**{**DEFAULTS, **options}))


def test_tries_model_and_graph_out():
    graph = training_graph(random_graph())
    Recipe(**{**DEFAULTS, "jitter": {"dropout": [0.1]}}).try_out(graph)
    with pytest.raises(ValueError, match="2 classes"):
        Recipe(**{**DEFAULTS, "make_model": lambda: GCN(8, 16, 2, 2)}).try_out(graph)
    with pytest.raises(ValueError, match="'jitter' draws 'dropout', but the model has none"):
        Recipe(**{**DEFAULTS, "jitter": {"dropout": [0.1]}, "make_model": lambda: nn.Linear(8, 3)}).try_out(graph)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"sampler": "clusters"}, ValueError, "'sampler' must be one of"),
        ({"sampler": "cluster", "sampler_options": {"parts": 3}}, TypeError, "no option 'parts'"),
        ({"sampler": "cluster", "sampler_options": {"parts_per_batch": 0}}, ValueError, "'parts_per_batch'"),
        ({"sampler": "ladies"}, ValueError, "edge_weight' is missing"),
        ({"sampler": "saint_rw"}, ValueError, "edge_weight' is missing"),
        ({"sampler": "saint_rw", "sampler_options": {"coverage": "a"}}, TypeError, "'coverage' must be a number"),
        ({"sampler": "saint_rw", "sampler_options": {"coverage": -1}}, ValueError, "'coverage' must be a finite"),
        ({"sampler": lambda data, seed: iter([data])}, TypeError, "'sampler' must return a loader"),
        ({"sampler": lambda data, seed: None}, TypeError, "'sampler' must return a loader"),
    ],
)
def test_tries_the_sampler_out(tmp_path, options, error, message):
    recipe = Recipe(**{**DEFAULTS, **options})
    model = recipe.build(0)
    with pytest.raises(error, match=message):
        recipe.check_loader(recipe.job(model, tmp_path, "cpu", None), model, training_graph(random_graph()))


def test_refuses_a_model_that_a_weighted_sampler_does_not_fit(tmp_path):
    data = random_graph()
    data.edge_weight = torch.ones(data.num_edges)
    options = {"sampler": "ladies", "sampler_options": {"num_layers": 2, "layer_size": 10}}
    recipe = Recipe(**{**DEFAULTS, **options, "make_model": lambda: GraphSAGE(8, 16, 2, 3)})
    model = recipe.build(0)
    with pytest.raises(ValueError, match="layer 'convs.0' of 'model', a SAGEConv, takes no edge weights"):
        recipe.check_loader(recipe.job(model, tmp_path, "cpu", None), model, training_graph(data))


@pytest.mark.parametrize(("coverage", "counted"), [({}, 1), ({"coverage": 1000}, 1), ({"coverage": 0}, 0)])
def test_does_not_count_for_a_loader_that_is_thrown_away(tmp_path, monkeypatch, coverage, counted):
    made = []
    monkeypatch.setattr(
        "graphsparse.soups.workers.job.make_loader", lambda *a, **k: made.append(make_loader(*a, **k)) or made[0]
    )
    data = random_graph()
    data.edge_weight = torch.ones(data.num_edges)
    options = {"sampler": "saint_rw", "sampler_options": {"roots": 3, **coverage}}
    recipe = Recipe(**{**DEFAULTS, **options, "make_model": lambda: GCN(8, 16, 2, 3, normalize=False)})
    model = recipe.build(0)
    recipe.check_loader(recipe.job(model, tmp_path, "cpu", None), model, training_graph(data))
    assert [loader.num_counted for loader in made] == [counted]


def test_the_partition_is_kept_in_the_store(tmp_path):
    recipe = Recipe(**{**DEFAULTS, "sampler": "cluster", "sampler_options": {"num_parts": 4}})
    model = recipe.build(0)
    recipe.check_loader(recipe.job(model, tmp_path, "cpu", None), model, training_graph(random_graph()))
    assert len(list((tmp_path / "partitions").glob("partition-*.pt"))) == 1


class Settings:
    """Options of a user in a plain class, with methods that use them."""

    def __init__(self, rate, file=None):
        self.rate, self.file = rate, file

    def make(self, data, seed=0):
        return make_loader("random_node", data, seed=seed, num_parts=self.rate)

    def infer(self, model, data):
        return model(data.x, data.edge_index) * self.rate

    __call__ = make


class OwnNet(Net):
    def __init__(self, rate):
        super().__init__()
        self.cfg = Settings(rate)


def calling(factor):
    """A class whose code is another one for every factor, as if it had been edited."""
    name = {"__name__": "edited"}
    exec(f"class Own:\n    def __call__(self, model, data):\n        return model(data.x) * {factor}", name)
    return name["Own"]


@pytest.mark.parametrize(
    "make",
    [
        lambda rate: {"sampler": Settings(rate).make},
        lambda rate: {"sampler": Settings(rate)},
        lambda rate: {"sampler": functools.partial(lambda cfg, data, seed: cfg.make(data, seed), Settings(rate))},
        lambda rate: {"sampler": (lambda cfg: lambda data, seed: cfg.make(data, seed))(Settings(rate))},
        lambda rate: {"sampler": calling(rate)},
        lambda rate: {"sampler": calling(rate)()},
        lambda rate: {"inference": Settings(rate).infer},
        lambda rate: {"inference": calling(rate)().__call__},
        lambda rate: {"sampler": "cluster", "sampler_options": {"metric": Settings(rate).make}},
        lambda rate: {"make_model": lambda: OwnNet(rate)},
    ],
)
def test_the_key_changes_with_the_content_of_objects(make):
    assert keys(1, **make(2)) == keys(1, **make(2)) != keys(1, **make(6))


@pytest.mark.parametrize("name", ["sampler", "inference"])
def test_refuses_what_ingredients_cannot_be_told_apart_by(name):
    held = Settings(2, file=(i for i in range(3)))
    with pytest.raises(TypeError, match=f"^'file' of '__self__' of '{name}' is a builtins.generator, whose content"):
        Recipe(**{**DEFAULTS, name: held.make}).check()
