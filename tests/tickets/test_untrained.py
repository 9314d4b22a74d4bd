"""Masks over weights that are never trained."""

import pytest
import torch
from models import MODELS
from resuming import same_state
from torch_geometric.nn import GAT, GCN

from graphsparse.datasets import synthetic_citation
from graphsparse.nn import Supermask, coat_sparsities, layerwise_inference
from graphsparse.testing import random_graph
from graphsparse.tickets import Ticket, TicketRun, Untrained, find_ticket
from graphsparse.training import NodeTask, Training, fit, predict

PRESETS = ["ugt", "edge_popup", "edge_popup_original", "multicoated"]


def citation(num=400):
    return synthetic_citation(num, num_features=32, num_val=100, num_test=100)


def small_gcn():
    return GCN(32, 16, 2, 7, bias=False)


def find(data, sparsity=0.5, make_model=small_gcn, training=None, **options):
    return find_ticket(make_model, data, weight_sparsity=sparsity, method=Untrained(**options), training=training)


def same(first, second):
    assert first.metrics == second.metrics
    assert same_state(first.state_dict, second.state_dict)


@pytest.mark.parametrize("preset", PRESETS)
def test_exact_sparsity_and_metrics_of_what_comes_out(preset):
    data = citation()
    ticket = find(data, 0.6, preset=preset, epochs=6)
    masks = ticket.weight_masks
    sizes = [mask.numel() for mask in masks.values()]
    removed = [int((mask == 0).sum()) for mask in masks.values()]
    if "edge_popup" in preset:
        assert removed == [int(0.6 * size) for size in sizes]
    assert abs(sum(removed) - int(0.6 * sum(sizes))) < len(sizes)
    assert ticket.metrics["weight_sparsity"] == sum(removed) / sum(sizes)
    correct = predict(ticket.materialize(small_gcn), data).argmax(1) == data.y
    for part in ("val", "test"):
        assert ticket.metrics[part] == pytest.approx(float(correct[data[f"{part}_mask"]].float().mean()))
    assert ticket.config["Untrained"]["preset"] == preset


@pytest.mark.parametrize("preset", PRESETS)
def test_what_a_preset_searches(preset):
    ticket = find(citation(), preset=preset, epochs=2)
    config = ticket.config
    uniform = preset in ("ugt", "edge_popup")
    assert len(config["sparsities"]) == (3 if preset == "multicoated" else 1)
    assert config["scope"] == ("layer" if "edge_popup" in preset else "global")
    assert config["transform"] == ("identity" if uniform else "abs")
    assert ticket.frozen.law == ("kaiming_uniform" if uniform else "signed_constant")
    assert config["Untrained"]["weight_decay"] == (1e-4 if preset == "edge_popup_original" else 0)


def test_arguments_replace_those_of_the_preset():
    ticket = find(citation(), preset="multicoated", coats=5, scaled="first", epochs=2, lr=0.5)
    assert len(ticket.config["sparsities"]) == 5
    assert ticket.config["Untrained"]["lr"] == 0.5
    assert ticket.frozen.mean_square == 0.5  # of the first coat alone
    assert len(find(citation(), scope="2:4", epochs=2, make_model=lambda: GCN(32, 16, 2, 8)).weight_masks) == 2


def test_how_scores_are_trained(monkeypatch):
    """Scores of the original edge-popup have momentum and a cosine schedule, those of the others AdamW."""
    seen = {}

    def spy(run, model, tag, **options):
        seen[model.plan.transform] = options["optimizer"]([torch.nn.Parameter(torch.ones(2))], 0.1, 0.0)
        return train(run, model, tag, **options)

    train = TicketRun.train
    monkeypatch.setattr(TicketRun, "train", spy)
    find(citation(), preset="edge_popup_original", epochs=4)
    find(citation(), preset="ugt", epochs=4)
    sgd, schedule = seen["abs"]
    assert sgd.defaults["momentum"] == 0.9
    rates = []
    for _ in range(4):
        rates.append(sgd.param_groups[0]["lr"])
        sgd.step()
        schedule.step()
    torch.testing.assert_close(torch.tensor(rates), 0.05 * (1 + torch.cos(torch.pi * torch.arange(4) / 4)))
    assert isinstance(seen["identity"], torch.optim.AdamW)


def test_weights_are_those_of_the_seed_and_nothing_else():
    ticket = find(citation(), epochs=4, training=Training(seed=7))
    drawn = Supermask(small_gcn(), 0.0, seed=7).materialize().state_dict()
    for name, mask in ticket.weight_masks.items():
        assert torch.equal(ticket.state_dict[name], drawn[name] * mask)


def test_a_search_finds_what_a_random_mask_does_not():
    data, model = citation(), lambda: GCN(32, 256, 2, 7, bias=False)
    ticket = find(data, make_model=model, epochs=100)
    random = find_ticket(model, data, weight_sparsity=0.5, method="random_untrained")
    dense = fit(model(), data, epochs=50)
    assert ticket.metrics["test"] > random.metrics["test"] + 0.2
    assert ticket.metrics["test"] > dense.test - 0.1


def test_random_mask_is_not_trained():
    initial = Supermask(small_gcn(), 0.5, total_steps=None)
    ticket = find_ticket(small_gcn, citation(), weight_sparsity=0.5, method="random_untrained")
    assert same_state(ticket.weight_masks, initial.masks())


@pytest.mark.parametrize("name", list(MODELS))
def test_any_model(name):
    data = random_graph()
    ticket = find(data, make_model=MODELS[name], epochs=3)
    assert ticket.materialize(MODELS[name])(data.x, data.edge_index).shape == (60, 3)


def test_layers_left_as_they_are_are_named():
    with pytest.warns(UserWarning, match="GATv2Conv"):
        find(random_graph(), make_model=lambda: GAT(8, 16, 2, 3, v2=True), epochs=1)


def test_dropout_is_off_in_the_search_unless_wanted():
    first, second, third = (
        find(random_graph(), make_model=make, epochs=5, dropout=dropout)
        for make, dropout in ((MODELS["GCN"], 0.0), (lambda: GCN(8, 16, 2, 3), None), (MODELS["GCN"], None))
    )
    same(first, second)
    assert not same_state(first.state_dict, third.state_dict)


def test_adaptive_coats_are_spaced_by_a_first_search(tmp_path):
    logged = []
    training = Training(log=logged.append, checkpoint=tmp_path)
    options = {"preset": "multicoated", "epochs": 8}
    ticket = find(citation(), 0.8, training=training, coats=3, coat_spacing="adaptive_linear", **options)
    assert len(logged) == 16
    scores = torch.load(tmp_path / "mask-1-one-coat.pt", weights_only=True)["result"]["state_dict"]["scores"]
    spaced = coat_sparsities(0.8, 3, "adaptive_linear", scores=scores)
    assert ticket.config["sparsities"] == list(spaced) != list(coat_sparsities(0.8, 3))


def test_batches_of_nodes_and_inference_layer_by_layer():
    from torch_geometric.loader import RandomNodeLoader

    data = citation(600)
    loader = RandomNodeLoader(data, num_parts=3, shuffle=True)  # one that needs no compiled extension

    def layerwise(model, data):
        assert type(model) is not Supermask
        return layerwise_inference(model, data)

    ticket = find(NodeTask(data, loader=loader, inference=layerwise), epochs=20)
    whole = predict(ticket.materialize(small_gcn), data)
    accuracy = float((whole.argmax(1) == data.y)[data.test_mask].float().mean())
    assert ticket.metrics["test"] == pytest.approx(accuracy, abs=0.011)
    assert accuracy > 0.3


def test_tables_of_embeddings_are_masked_by_columns():
    class Table(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.gnn = torch.nn.Embedding(5, 8), GCN(8, 8, 2, 3)

        def forward(self, x, edge_index):
            return self.gnn(self.table((x[:, 0] > 0).long()), edge_index)

    mask = find(random_graph(), make_model=Table, epochs=3).weight_masks["table.weight"]
    assert mask.any(0).equal(mask.all(0))


def test_ticket_file(tmp_path):
    data = citation()
    ticket = find(data, 0.9, epochs=5)
    ticket.save(tmp_path / "ticket.safetensors")
    loaded = Ticket.load(tmp_path / "ticket.safetensors")
    same(ticket, loaded)
    assert loaded.sparsify(data).num_edges == data.num_edges


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"sparsity": 1.0}, ValueError, "'weight_sparsity'"),
        ({"preset": "best"}, ValueError, "'preset' must be one of"),
        ({"epochs": 0}, ValueError, "'epochs' must be at least 1"),
        ({"lr": -1.0}, ValueError, "'lr'"),
        ({"dropout": 1.5}, ValueError, r"'dropout' must be in \[0, 1\)"),
        ({"coats": 0}, ValueError, "'coats' must be at least 1"),
        ({"coat": 2}, TypeError, "'coat'"),
        ({"scope": "2:4", "sparsity": 0.9}, ValueError, "'sparsity' must be 0.5"),
        ({"training": Training(seed=-1)}, ValueError, "'seed'"),
    ],
)
def test_bad_arguments(change, error, message):
    with pytest.raises(error, match=message):
        find(citation(), **{"epochs": 2, **change})
