"""Trainings on a device that is not the CPU: equal to those on it, resumed there, refused where parts are apart."""

import copy

import pytest
import torch
from both_devices import assert_equal, there
from models import MODELS
from resuming import Kill, kill_in, no_kill
from torch_geometric.nn import GCN, GraphSAGE
from torch_geometric.transforms import GCNNorm

from graphsparse.loader import SAMPLERS, make_loader
from graphsparse.nn import accelerate, layerwise_inference
from graphsparse.soups.workers.train_ingredients import train_ingredients
from graphsparse.soups.workers.workers import Workers
from graphsparse.testing import random_graph
from graphsparse.training import (
    DropAndGrow,
    FixedMask,
    GraphTask,
    L0Projection,
    LinkTask,
    Masks,
    NMProjection,
    NodeTask,
    Training,
    build_model,
    fit,
    predict,
)
from graphsparse.training.link_task import LinkNeighborBatches, links_of
from graphsparse.utils.call_model import call_model

pytestmark = pytest.mark.cuda

PLAIN = random_graph()
WEIGHTED = GCNNorm()(random_graph())
SAMPLER_OPTIONS = {
    "full": {},
    "cluster": {"num_parts": 4, "parts_per_batch": 2},
    "neighbor": {"num_neighbors": [3, 2], "batch_size": 8},
    "saint_rw": {"roots": 10, "walk_length": 2, "coverage": 5},
    "random_node": {"num_parts": 2},
    "fastgcn": {"batch_size": 10, "layer_size": 20},
    "ladies": {"batch_size": 10, "layer_size": 20},
}


def sgd(parameters, lr, weight_decay):
    """No step of Adam: it makes much of gradients that are rounding errors."""
    return torch.optim.SGD(parameters, lr)


SHORT = Training(epochs=2, lr=0.1, optimizer=sgd)


def result_of(result):
    return {"logits": result.logits, **result.state_dict, **{f"mask {n}": m for n, m in result.weight_masks.items()}}


@pytest.mark.parametrize("place", ["cpu", "device"])
@pytest.mark.parametrize("sampler", SAMPLER_OPTIONS)
def test_nodes_with_every_sampler(sampler, place, device):
    """Batches are drawn on the CPU from a graph that may be anywhere."""
    assert list(SAMPLER_OPTIONS) == list(SAMPLERS)
    weighted = SAMPLERS[sampler].needs_weighted_sums or sampler == "saint_rw"
    data = WEIGHTED if weighted else PLAIN
    make = (lambda: GCN(8, 16, 2, 3, normalize=False)) if weighted else MODELS["GraphSAGE"]

    def run(where, drawn_where):
        loader = make_loader(sampler, there(data, drawn_where), seed=5, **SAMPLER_OPTIONS[sampler])
        return fit(build_model(make, 0).to(where), there(data, where), SHORT, loader=loader)

    assert_equal(result_of(run(device, "cpu" if place == "cpu" else device)), result_of(run("cpu", "cpu")), 1e-3)


@pytest.mark.parametrize("target", ["multiclass", "binary", "regression"])
@pytest.mark.parametrize("inductive", [False, True])
def test_nodes_with_every_target(target, inductive, device):
    data = random_graph()
    if target != "multiclass":
        data.y = torch.nn.functional.one_hot(data.y, 3).float()
        data.y[::7, 0] = torch.nan
    make = MODELS["GraphSAGE"]
    here, away = (
        fit(build_model(make, 0).to(where), NodeTask(there(data, where), target=target, inductive=inductive), SHORT)
        for where in ("cpu", device)
    )
    assert_equal(result_of(away), result_of(here), 1e-3, device)
    assert (away.val, away.test) == pytest.approx((here.val, here.test), rel=1e-3)


def link_task(where, neighbors=None):
    data = random_graph()
    links = links_of(data)[0]
    split = {name: (links[:, part], links[:, part].flip(0).roll(3, 1)) for name, part in (("val", slice(9)),)}
    graph = there(data, where)
    loader = None if neighbors is None else LinkNeighborBatches(graph, num_neighbors=neighbors, batch_size=40)
    return LinkTask(graph, split, loader=loader, link_weight=torch.rand(data.num_edges).to(where), links_per_epoch=100)


@pytest.mark.parametrize("neighbors", [None, [3, 3], [-1, -1]])
def test_links(neighbors, device):
    results = []
    for where in ("cpu", device):
        torch.manual_seed(0)
        results.append(fit(build_model(lambda: GraphSAGE(8, 16, 2), 0).to(where), link_task(where, neighbors), SHORT))
    assert_equal(result_of(results[1]), result_of(results[0]), 1e-3, device)


@pytest.mark.parametrize("name", ["on the device", "evaluated on the CPU", "anywhere"])
def test_inference_layer_by_layer(name, device):
    """Labels and masks are where the graph is that is evaluated, and inference may leave its logits elsewhere."""
    data = random_graph()
    options = {"inference": layerwise_inference}
    if name == "evaluated on the CPU":
        options["eval_data"] = data
    elif name == "anywhere":
        options["inference"] = lambda model, graph: layerwise_inference(model, there(graph, "cpu"))
    result = fit(build_model(MODELS["GraphSAGE"], 0).to(device), NodeTask(there(data, device), **options), SHORT)
    expected = fit(build_model(MODELS["GraphSAGE"], 0), data, SHORT)
    assert_equal(result.logits, expected.logits, 1e-3)
    assert result.test == expected.test


@pytest.mark.parametrize("sampler", ["full", "cluster"])
def test_ingredients_layer_by_layer(sampler, device, tmp_path, monkeypatch):
    monkeypatch.setattr(Workers, "device", property(lambda self: str(device)))
    options = {} if sampler == "full" else {"sampler_options": {"num_parts": 4, "parts_per_batch": 2}}
    store = train_ingredients(
        MODELS["GraphSAGE"], random_graph(), 2, tmp_path, training=Training(epochs=2), sampler=sampler,
        inference="layerwise", workers=Workers("here"), **options,
    )  # fmt: skip
    assert len(store) == 2
    assert store.meta(0)["device"] == str(device)


PROJECTIONS = {
    "l0": lambda optimizer: L0Projection(optimizer, 0.6),
    "l0, tensor": lambda optimizer: L0Projection(optimizer, 0.6, scope="tensor"),
    "l0, ramp": lambda optimizer: L0Projection(optimizer, 0.6, schedule="cubic", total_steps=3),
    "l0, frozen": lambda optimizer: L0Projection(optimizer, 0.6, freeze_after=2),
    "random": lambda optimizer: FixedMask(optimizer, 0.6, seed=3),
    "moving": lambda optimizer: DropAndGrow(optimizer, 0.6, end=4, every=2, accumulate=2),
    "moving by chance": lambda optimizer: DropAndGrow(optimizer, 0.6, end=4, every=1, growth="random"),
    "2:4": lambda optimizer: NMProjection(optimizer),
}


@pytest.mark.parametrize("name", PROJECTIONS)
def test_projections_killed_and_resumed(name, device, tmp_path):
    def run(where=device, hook=no_kill, **options):
        training = Training(epochs=4, lr=0.1, optimizer=sgd, **options)
        model = accelerate(build_model(lambda: GCN(8, 16, 2, 3), 0)).to(where)
        return fit(model, there(PLAIN, where), training, project=PROJECTIONS[name], after_step=[hook])

    whole, path = run(), tmp_path / "a.pt"
    with pytest.raises(Kill):
        run(hook=kill_in(3), checkpoint=path, checkpoint_every=1)
    for result in (run(checkpoint=path, checkpoint_every=1), run(checkpoint=path)):  # the last one is finished
        assert_equal(result_of(result), there(result_of(whole), "cpu"), 1e-4, device)
        assert result.history == [pytest.approx(row, rel=1e-4) for row in whole.history]
    assert_equal(result_of(whole), result_of(run("cpu")), 1e-3, device)


def test_masks(device):
    results = []
    for where in ("cpu", device):
        model, data = build_model(lambda: GCN(8, 16, 2, 3), 0).to(where), there(PLAIN, where)
        masks = Masks.everything(model, data)
        sizes = {name: model.get_parameter(name).abs() for name in masks.weights}
        scores = torch.arange(masks.edges.numel(), device=where).float()
        masks = masks.prune(weights=sizes, weight_sparsity=0.5, edges=scores, edge_sparsity=0.3)
        model.load_state_dict(masks.apply(model.state_dict()))
        result = fit(
            model, data, SHORT, project=lambda optimizer, masks=masks, model=model: masks.hold(model, optimizer)
        )
        results.append({"edges": masks.edges, "entries": masks.edge_mask(data), **result_of(result)})
        assert masks.within(Masks.everything(model, data))
    assert_equal(results[1], results[0], 1e-3, device)
    assert Masks(edges=results[1]["edges"]).fingerprint() == Masks(edges=results[0]["edges"]).fingerprint()


@pytest.mark.parametrize("logits_there", [True, False])
def test_resumed_with_logits_elsewhere(logits_there, device, tmp_path):
    """What is evaluated on the CPU is judged there after a kill, too."""

    def run(hook=no_kill, **options):
        training = Training(epochs=4, lr=0.1, optimizer=sgd, **options)
        task = NodeTask(
            there(PLAIN, device),
            inference=layerwise_inference,
            eval_data=there(PLAIN, device if logits_there else "cpu"),
        )
        return fit(build_model(MODELS["GraphSAGE"], 0).to(device), task, training, after_step=[hook])

    whole, path = run(), tmp_path / "a.pt"
    with pytest.raises(Kill):
        run(kill_in(3), checkpoint=path, checkpoint_every=1)
    for result in (run(checkpoint=path, checkpoint_every=1), run(checkpoint=path)):
        assert result.logits.device == whole.logits.device == (device if logits_there else torch.device("cpu"))
        assert_equal(result.logits, there(whole.logits, "cpu"))
        assert result.test == whole.test


def test_a_checkpoint_of_another_device_is_refused(device, tmp_path):
    path = tmp_path / "a.pt"
    fit(build_model(MODELS["GIN"], 0).to(device), there(PLAIN, device), epochs=1, checkpoint=path)
    with pytest.raises(ValueError, match="the device of 'model' was .* and is now cpu"):
        fit(build_model(MODELS["GIN"], 0), PLAIN, epochs=1, checkpoint=path)


def test_dropout_draws_from_the_generator_of_the_device(device):
    generators = torch.get_device_module(device)
    before = generators.get_rng_state(device), torch.get_rng_state()
    first, second, other = (
        fit(build_model(MODELS["GCN"], 0).to(device), there(PLAIN, device), epochs=3, seed=seed) for seed in (1, 1, 2)
    )
    assert_equal(first.logits, there(second.logits, "cpu"), 1e-4)
    assert not torch.allclose(first.logits, other.logits)
    assert torch.equal(generators.get_rng_state(device), before[0])
    assert torch.equal(torch.get_rng_state(), before[1])


def mixed(key, where):
    data = copy.copy(PLAIN)
    data[key] = data[key].to(where)
    return data


APART = {
    "fit": lambda model, data: fit(model, data, epochs=1),
    "predict": predict,
    "call_model": call_model,
    "another graph to evaluate": lambda model, data: fit(
        model, NodeTask(there(PLAIN, next(model.parameters()).device), eval_data=data), epochs=1
    ),
    "links": lambda model, data: fit(
        model, LinkTask(data, {"val": (torch.tensor([[0], [1]]), torch.tensor([[5], [9]]))}), epochs=1
    ),
}


@pytest.mark.parametrize("model_there", [True, False])
@pytest.mark.parametrize("name", APART)
def test_a_model_and_a_graph_on_two_devices(name, model_there, device):
    cpu = torch.device("cpu")
    own, other = (device, cpu) if model_there else (cpu, device)
    model = MODELS["GraphSAGE"]().to(own)
    with pytest.raises(ValueError, match=f"'model' is on {own}, but 'data.x' is on {other}: move"):
        APART[name](model, there(PLAIN, other))
    if name in ("predict", "call_model"):
        data = there(PLAIN, own)
        data.edge_index = data.edge_index.to(other)
        with pytest.raises(ValueError, match=f"'model' is on {own}, but 'data.edge_index' is on {other}: move"):
            APART[name](model, data)


@pytest.mark.parametrize("key", ["y", "train_mask", "val_mask", "test_mask"])
def test_a_graph_on_two_devices(key, device):
    with pytest.raises(ValueError, match=rf"'data.{key}' is on {device}, but 'data.x' is on cpu: move"):
        fit(MODELS["GIN"](), mixed(key, device), epochs=1)


def test_graphs_are_moved_batch_by_batch(device):
    """For labels of graphs the data set stays on the CPU, as everywhere in PyG."""
    from graph_models import PoolNet, random_graphs

    split = {"train": range(8), "val": range(8, 12)}
    model = PoolNet(dropout=0.0).to(device)
    result = fit(model, GraphTask(random_graphs(), split=split, target="binary"), epochs=1)
    assert result.logits.device == device


def test_a_user_may_move_things_in_call(device):
    def call(model, data):
        return model(data.x.to(device), data.edge_index.to(device)).cpu()

    assert fit(MODELS["GIN"]().to(device), NodeTask(PLAIN, call=call), epochs=1).logits.device.type == "cpu"


def test_a_loss_that_is_no_number_is_found(device):
    model, data = MODELS["GIN"]().to(device), there(PLAIN, device)
    with pytest.raises(FloatingPointError, match="the loss is nan in epoch 1"):
        fit(model, data, epochs=3, extra_loss=lambda logits, batch, epoch: logits.sum() * (torch.nan if epoch else 0))
    model = torch.nn.Linear(4, 4).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    projection = L0Projection(optimizer, 0.5)
    model.weight.grad = torch.full_like(model.weight, torch.nan)
    optimizer.step()
    with pytest.raises(FloatingPointError, match="a weight is not a number after 1 steps"):
        projection.support()


def test_a_tensor_that_is_wiped_out_is_told(device):
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 1)).to(device)
    with torch.no_grad():
        model[1].weight.fill_(1e-3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    projection = L0Projection(optimizer, 0.5)
    model(torch.ones(1, 8, device=device)).sum().backward()
    optimizer.step()
    with pytest.warns(UserWarning, match="whole tensor of shape .1, 8. to zero"):
        projection.support()
