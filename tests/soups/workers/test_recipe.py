import dataclasses
import functools

import numpy as np
import pytest
import torch
import torch_geometric.nn as pyg
from ingredient_runs import TRAINING, Net, NotedBatches
from torch import nn
from torch_geometric.nn import GCN, GraphSAGE

from graphsparse.loader import make_loader
from graphsparse.soups import train_ingredients
from graphsparse.soups.store.key import describe_model
from graphsparse.soups.store.stored_graph import graph_digests, training_graph
from graphsparse.soups.workers.recipe import Recipe, weights_name
from graphsparse.testing import random_graph
from graphsparse.training import Training


def make(**options):
    training = {"epochs": 5, "weight_decay": 0.0, **{name: options.pop(name) for name in TRAINING & options.keys()}}
    recipe = Recipe(**{"make_model": Net, "training": Training(**training), **options})
    recipe.check()
    return recipe


def keys(num=3, data=None, **options):
    recipe = make(**options)
    model = recipe.build(0)
    graph = graph_digests(training_graph(random_graph() if data is None else data))
    return [key for key, _, _ in recipe.ingredients(num, model, graph, describe_model(model, recipe.tag))]


def check_loader(recipe, folder, data):
    recipe.check_loader(recipe.build(0), training_graph(data), folder)


def other_graph():
    data = random_graph()
    data.y[data.val_mask.nonzero()[0]] += 1
    data.y %= 3
    return data


def infer(model, data):
    return model(data.x, data.edge_index)


def sgd(parameters, lr, weight_decay):
    return torch.optim.SGD(parameters, lr, weight_decay=weight_decay)


@pytest.mark.parametrize(
    "options",
    [
        {"epochs": 6},
        {"lr": 0.02},
        {"weight_decay": 1e-3},
        {"seed": 1},
        {"eval_every": 2},
        {"fast": False},
        {"inference": "layerwise"},
        {"inference": infer},
        {"patience": 3},
        {"optimizer": sgd},
        {"tag": "second"},
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
        {"progress": True, "log": print},
    ):
        assert keys(**options) == keys()[: options.get("num", 3)]
    first, second = ({"save_dir": folder, "num_parts": 4} for folder in ("a", "b"))
    assert keys(sampler="cluster", sampler_options=first) == keys(sampler="cluster", sampler_options=second)


def test_shared_start_and_streams_of_each_own():
    recipe = make(jitter={"lr": [0.1, 0.2, 0.3]})
    model = recipe.build(0)
    specs = [spec for _, spec, _ in recipe.ingredients(20, model, {}, {})]
    assert {spec["initial"] for spec in specs} == {weights_name(model)} == {recipe.start(model)["weights"]}
    for name in ("data_seed", "dropout_seed"):
        assert len({spec[name] for spec in specs}) == 20
    assert {spec["lr"] for spec in specs} == {0.1, 0.2, 0.3}


def test_independent_starts():
    recipe = make(init="independent")
    model = recipe.build(0)
    assert recipe.start(model) == {"init": "independent"}
    found = list(recipe.ingredients(4, model, {}, {}))
    assert len({spec["initial"] for _, spec, _ in found}) == 4
    for index, (_, spec, state) in enumerate(found):
        again = recipe.build(index + 1).state_dict()
        assert all(torch.equal(state[name], again[name]) for name in again)
        assert spec["initial"] == weights_name(recipe.build(index + 1))


def once(data, seed):
    return iter([data])


def nothing(data, seed):
    return None


class WithExtraState(Net):
    def get_extra_state(self):
        return {"version": 1}

    def set_extra_state(self, state):
        pass


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"training": {"epochs": 3}}, TypeError, "'training' must be a Training"),
        ({"checkpoint": "a.pt"}, ValueError, "'training.checkpoint' must be None"),
        ({"tag": 3}, TypeError, "'tag' must be a text"),
        ({"sampler_options": 5}, TypeError, r"'sampler_options' must map names of options to values \(got 5\)"),
        ({"seed": -1}, ValueError, "'seed'"),
        ({"init": "random"}, ValueError, r"'init' must be one of \['shared', 'independent'\] \(got 'random'\)"),
        ({"inference": "fast"}, ValueError, "'inference' must be one of"),
        ({"inference": 3}, TypeError, "'inference' must be a function"),
        ({"sampler": 3}, TypeError, "'sampler' must be a function"),
        ({"sampler_options": {"num_parts": 3}}, TypeError, "'full' has no options"),
        (
            {"sampler": "cluster", "sampler_options": {"a": object()}},
            TypeError,
            r"'sampler_options\['a'\]' must be told from others .*object at 0x.* give 'tag'",
        ),
        ({"inference": lambda model, data: 0}, TypeError, "'inference' must be told from others .*lambda.* give 'tag'"),
        ({"optimizer": lambda p, lr, decay: 0}, TypeError, "'training.optimizer' must be told from others"),
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
    with pytest.raises(error, match=message):
        make(**options).build(0)


def test_tries_model_and_graph_out():
    graph = training_graph(random_graph())
    make(jitter={"dropout": [0.1]}).try_out(graph)
    with pytest.raises(ValueError, match="2 classes"):
        make(make_model=lambda: GCN(8, 16, 2, 2)).try_out(graph)
    with pytest.raises(ValueError, match="'jitter' draws 'dropout', but the model has none"):
        make(jitter={"dropout": [0.1]}, make_model=lambda: nn.Linear(8, 3)).try_out(graph)


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
        ({"sampler": once}, TypeError, "'sampler' must return a loader"),
        ({"sampler": nothing}, TypeError, "'sampler' must return a loader"),
    ],
)
def test_tries_the_sampler_out(tmp_path, options, error, message):
    recipe = make(**options)
    with pytest.raises(error, match=message):
        check_loader(recipe, tmp_path, random_graph())


def test_refuses_a_model_that_a_weighted_sampler_does_not_fit(tmp_path):
    data = random_graph()
    data.edge_weight = torch.ones(data.num_edges)
    options = {"sampler": "ladies", "sampler_options": {"num_layers": 2, "layer_size": 10}}
    recipe = make(**options, make_model=lambda: GraphSAGE(8, 16, 2, 3))
    with pytest.raises(ValueError, match="layer 'convs.0' of 'model', a SAGEConv, takes no edge weights"):
        check_loader(recipe, tmp_path, data)


@pytest.mark.parametrize(("coverage", "counted"), [({}, 1), ({"coverage": 1000}, 1), ({"coverage": 0}, 0)])
def test_does_not_count_for_a_loader_that_is_thrown_away(tmp_path, monkeypatch, coverage, counted):
    made = []
    monkeypatch.setattr(
        "graphsparse.soups.workers.recipe.make_loader", lambda *a, **k: made.append(make_loader(*a, **k)) or made[0]
    )
    data = random_graph()
    data.edge_weight = torch.ones(data.num_edges)
    options = {"sampler": "saint_rw", "sampler_options": {"roots": 3, **coverage}}
    recipe = make(**options, make_model=lambda: GCN(8, 16, 2, 3, normalize=False))
    check_loader(recipe, tmp_path, data)
    assert [loader.num_counted for loader in made] == [counted]


def test_the_partition_is_kept_in_the_store(tmp_path):
    recipe = make(sampler="cluster", sampler_options={"num_parts": 4})
    check_loader(recipe, tmp_path, random_graph())
    assert len(list((tmp_path / "partitions").glob("partition-*.pt"))) == 1


class Settings:
    """Options of a user in a plain class, with a method that uses them."""

    def __init__(self, rate):
        self.rate = rate

    def make(self, data, seed=0):
        return make_loader("random_node", data, seed=seed, num_parts=self.rate)


@dataclasses.dataclass
class Parts(Settings):
    """The same in a class that has a text."""

    rate: int


class OwnNet(Net):
    def __init__(self, rate):
        super().__init__()
        self.cfg = Parts(rate)


@pytest.mark.parametrize(
    "options",
    [
        lambda rate: {"sampler": Parts(rate).make},
        lambda rate: {"sampler": functools.partial(make_loader, "random_node", num_parts=rate)},
        lambda rate: {"sampler": "cluster", "sampler_options": {"metric": Parts(rate).make}},
        lambda rate: {"make_model": lambda: OwnNet(rate)},
    ],
)
def test_the_key_changes_with_the_content_of_objects(options):
    assert keys(1, **options(2)) == keys(1, **options(2)) != keys(1, **options(6))


def test_what_has_neither_a_name_nor_a_text_needs_a_tag():
    with pytest.raises(TypeError, match="^'sampler' must be told from others .*Settings object at 0x.* give 'tag'"):
        keys(sampler=Settings(2).make)
    assert keys(sampler=Settings(2).make, tag="2") != keys(sampler=Settings(6).make, tag="6")
    assert keys(sampler=lambda data, seed: [data], tag="2") != keys(sampler=lambda data, seed: [data], tag="3")


@pytest.mark.parametrize("make_model", [lambda: pyg.TAGConv(8, 3, K=2), lambda: pyg.GCN(8, 16, 2, 3, act="softmax")])
def test_layer_by_layer_is_refused_before_anything_is_written(make_model, tmp_path):
    with pytest.raises(ValueError, match="'inference' cannot be 'layerwise' here: "):
        train_ingredients(make_model, random_graph(), 1, tmp_path / "store", inference="layerwise", workers=0)
    assert not (tmp_path / "store").exists()
