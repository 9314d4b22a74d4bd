import dataclasses
import subprocess
import sys

import pytest
import torch
from models import MODELS
from torch_geometric.nn import GCN

from graphsparse.testing import random_graph
from graphsparse.tickets import Ticket, find_ticket
from graphsparse.tickets.frozen import FrozenTensor, FrozenWeights
from graphsparse.training import Masks, Training, fit, predict


def find(model="GCN", **options):
    given = {"edge_sparsity": 0.4, "weight_sparsity": 0.6, "training": Training(epochs=4), **options}
    return find_ticket(MODELS[model], random_graph(), **given)


@pytest.mark.parametrize("model", MODELS)
def test_save_and_load_give_the_same_logits_for_every_model(model, tmp_path):
    ticket = find(model)
    data = ticket.sparsify(random_graph())
    before = predict(ticket.materialize(MODELS[model]), data)
    ticket.save(tmp_path / "t.safetensors")
    again = Ticket.load(tmp_path / "t.safetensors")
    assert torch.equal(predict(again.materialize(MODELS[model]), again.sparsify(random_graph())), before)
    assert again.config == ticket.config
    assert again.metrics == ticket.metrics
    assert again.summary() == ticket.summary()
    plain = MODELS[model]()
    assert list(again.state_dict) == list(plain.state_dict())
    plain.load_state_dict(again.state_dict, strict=True)


@pytest.mark.parametrize("model", MODELS)
def test_weights_are_zero_exactly_where_the_masks_say(model):
    ticket = find(model)
    named = dict(MODELS[model]().named_parameters(remove_duplicate=True))
    covered = sum(p.numel() for p in named.values() if p.dim() >= 2)
    kept = sum(int(ticket.state_dict[name].count_nonzero()) for name, p in named.items() if p.dim() >= 2)
    assert kept == covered - int(0.6 * covered)
    for name, mask in ticket.weight_masks.items():
        assert torch.equal(ticket.state_dict[name] != 0, mask)
    assert all(name.endswith(("weight", "att_src", "att_dst", "weight1")) for name in ticket.weight_masks)


FRESH = """
import sys, torch
sys.path.insert(0, sys.argv[2])
from models import MODELS
from graphsparse.testing import random_graph
from graphsparse.tickets import Ticket
from graphsparse.training import Masks, Training, fit, predict
ticket = Ticket.load(sys.argv[1])
torch.save(predict(ticket.materialize(MODELS["GAT"]), ticket.sparsify(random_graph())), sys.argv[1] + ".logits")
"""


def test_fresh_process_gives_bit_identical_logits(tmp_path, request):
    ticket = find("GAT")
    path = tmp_path / "t.safetensors"
    ticket.save(path)
    logits = predict(ticket.materialize(MODELS["GAT"]), ticket.sparsify(random_graph()))
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FRESH, str(path), str(request.path.parents[1] / "helpers")], check=True
    )
    assert torch.equal(torch.load(f"{path}.logits"), logits)


def test_file_is_much_smaller_than_the_dense_model(tmp_path):
    make_model = lambda: GCN(8, 256, 3, 3, bias=False)  # noqa: E731
    ticket = find_ticket(make_model, random_graph(), weight_sparsity=0.9, training=Training(epochs=2))
    ticket.save(tmp_path / "t")
    scalars = sum(p.numel() for p in make_model().parameters())
    # A tenth of the weights at 4 bytes, one bit for each, and a header.
    assert (tmp_path / "t").stat().st_size < scalars * (0.4 + 1 / 8) + 4000


def test_other_graphs_are_refused():
    ticket, data = find(), random_graph()
    reordered, more_nodes, changed = data.clone(), data.clone(), data.clone()
    reordered.edge_index = data.edge_index.flip(1)
    more_nodes.x = torch.cat([data.x, data.x[:1]])
    changed.edge_index[0, 0] = (changed.edge_index[0, 0] + 1) % data.num_nodes
    for other in (reordered, more_nodes, changed, random_graph(seed=1)):
        with pytest.raises(ValueError, match="not the graph the ticket was made for"):
            ticket.sparsify(other)
    before = data.edge_index.clone()
    ticket.sparsify(data)
    assert torch.equal(data.edge_index, before)


def test_other_models_are_refused():
    ticket = find()
    with pytest.raises(ValueError, match=r"another model.*convs\.0"):
        ticket.materialize(lambda: GCN(8, 17, 2, 3))
    with pytest.raises(ValueError, match="missing"):
        ticket.materialize(MODELS["GIN"])
    with pytest.raises(TypeError, match="function that builds"):
        ticket.materialize(MODELS["GCN"]())


def test_materialize_leaves_the_generator_alone():
    ticket, state = find(), torch.get_rng_state()
    ticket.materialize(MODELS["GCN"])
    assert torch.equal(torch.get_rng_state(), state)


def test_from_fit():
    data = random_graph()
    result = fit(MODELS["BatchNorm and a tied weight"](), data, epochs=3)
    everything = Masks.everything(MODELS["BatchNorm and a tied weight"](), data)
    sizes = {name: result.state_dict[name].abs() for name in everything.weights}
    masks = everything.prune(weights=sizes, weight_sparsity=0.5, edges=torch.arange(149), edge_sparsity=0.25)
    ticket = Ticket.from_fit(result, masks, data, config={"seed": 3}, metrics={"extra": 1.0})
    for name, mask in masks.weights.items():
        assert torch.equal(ticket.state_dict[name], result.state_dict[name] * mask)
    assert torch.equal(ticket.edge_mask, masks.edge_mask(data))
    expected = {"val": result.val, "test": result.test, "best_epoch": result.best_epoch, "extra": 1.0}
    counted = {"edge_sparsity": masks.edge_sparsity, "weight_sparsity": masks.weight_sparsity}
    assert ticket.metrics == expected | counted
    alone = Ticket.from_fit(result, Masks(masks.weights))
    assert alone.edge_mask is alone.graph is None
    with pytest.raises(ValueError, match="undirected edges"):
        Ticket.from_fit(result, masks, random_graph(seed=1))


def test_parts_that_do_not_fit_are_refused():
    weight, edges = torch.ones(2, 2), torch.ones(3, dtype=torch.bool)
    mask = torch.tensor([[True, False], [True, True]])
    with pytest.raises(ValueError, match="not zero where the mask"):
        Ticket({"w": weight}, {"w": mask}, edges, "")
    with pytest.raises(ValueError, match="unlike 'state_dict'"):
        Ticket({"w": weight}, {"v": mask}, edges, "")
    with pytest.raises(ValueError, match="bool vector"):
        Ticket({"w": weight}, {}, edges.float(), "")
    for edge_mask, graph in ((edges, None), (None, "3-3-0")):
        with pytest.raises(ValueError, match="together, or neither"):
            Ticket({"w": weight}, {}, edge_mask, graph)
    # Numbers of coats mean something only where the weights before them are known.
    for counts in (mask.byte(), mask.float()):
        with pytest.raises(TypeError, match="must be bool, or uint8"):
            Ticket({"w": weight * mask}, {"w": counts})


def test_trained_weights_are_not_taken_for_frozen_ones(tmp_path):
    mask = torch.tensor([[True, False], [True, True]])
    frozen = FrozenWeights(0, "kaiming_normal", tensors={"w": FrozenTensor("weights", (2, 2))})
    weight = frozen.state({"w": mask})["w"]
    ticket = Ticket({"w": weight}, {"w": mask}, frozen=frozen)
    ticket.save(tmp_path / "t")
    before = (tmp_path / "t").read_bytes()
    trained = dataclasses.replace(ticket, state_dict={"w": weight * 1.001})
    with pytest.raises(ValueError, match="other weights in 'w' than those of the seed"):
        trained.save(tmp_path / "t")
    assert (tmp_path / "t").read_bytes() == before


def test_ticket_of_no_particular_graph(tmp_path):
    found, data = find(), random_graph()
    ticket = dataclasses.replace(found, edge_mask=None, graph=None)
    ticket.save(tmp_path / "t")
    again = Ticket.load(tmp_path / "t")
    assert again.edge_mask is again.graph is None
    for graph in (data, random_graph(seed=1)):
        same = again.sparsify(graph)
        assert same is not graph
        assert same.keys() == graph.keys()
        assert all(same[key] is graph[key] for key in graph.keys())  # noqa: SIM118
    assert "edge_index" not in again.summary()
    assert again.summary().startswith("teddy: ")
    assert torch.equal(predict(again.materialize(MODELS["GCN"]), data), predict(found.materialize(MODELS["GCN"]), data))


def test_mask_that_keeps_every_edge_takes_no_space(tmp_path):
    sizes = {}
    for name, keep in (("all", 2000), ("most", 1999)):
        mask = torch.arange(2000) < keep
        Ticket({"w": torch.ones(2)}, {}, mask, "9-2000-0").save(tmp_path / name)
        sizes[name] = (tmp_path / name).stat().st_size
        assert torch.equal(Ticket.load(tmp_path / name).edge_mask, mask)
    assert sizes["most"] > sizes["all"] + 2000 // 8
    assert sizes["all"] < 1000


def test_summary_without_metrics():
    assert Ticket({"w": torch.ones(2)}, {}).summary() == "ticket: all weights left"


def test_repr_is_short():
    ticket = find()
    assert len(repr(ticket)) < 400
    assert "teddy" in repr(ticket)
    assert "all weights" in find(weight_sparsity=0.0).summary()
