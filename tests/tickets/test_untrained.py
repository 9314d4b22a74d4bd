import pytest
import torch
from graphsparse.tickets.untrained import search_supermask
from models import MODELS
from torch_geometric.data import Data
from torch_geometric.loader import RandomNodeLoader
from torch_geometric.nn import GAT, GCN, global_mean_pool

from graphsparse.datasets import synthetic_citation
from graphsparse.nn import Supermask
from graphsparse.testing import random_graph
from graphsparse.tickets import Ticket, find_untrained_ticket
from graphsparse.training import predict
from graphsparse.utils import layerwise_inference

GCN_MODEL = MODELS["GCN"]


def citation(num=400):
    return synthetic_citation(num, num_features=32, num_val=100, num_test=100)


def small_gcn():
    return GCN(32, 16, 2, 7, bias=False)


def same(first, second):
    assert first.metrics == second.metrics
    assert first.state_dict.keys() == second.state_dict.keys()
    for name, tensor in first.state_dict.items():
        assert torch.equal(tensor, second.state_dict[name])


@pytest.mark.parametrize("preset", ["ugt", "edge_popup", "edge_popup_original", "multicoated"])
def test_exact_sparsity_and_metrics_of_what_comes_out(preset):
    data = citation()
    ticket = find_untrained_ticket(small_gcn, data, sparsity=0.6, preset=preset, epochs=6)
    masks = ticket.weight_masks
    sizes = [mask.numel() for mask in masks.values()]
    removed = [int((mask == 0).sum()) for mask in masks.values()]
    if "edge_popup" in preset:
        assert removed == [int(0.6 * size) for size in sizes]
    assert abs(sum(removed) - int(0.6 * sum(sizes))) < len(sizes)
    assert ticket.metrics["weight_sparsity"] == sum(removed) / sum(sizes)
    logits = predict(ticket.materialize(small_gcn), data)
    correct = logits.argmax(1) == data.y
    for part in ("val", "test"):
        assert ticket.metrics[f"{part}_accuracy"] == pytest.approx(float(correct[data[f"{part}_mask"]].float().mean()))
    assert ticket.config["preset"] == preset
    assert ticket.config["method"] == "untrained"


def test_weights_are_those_of_the_seed_and_nothing_else():
    ticket = find_untrained_ticket(small_gcn, citation(), sparsity=0.5, epochs=4, seed=7)
    drawn = Supermask(small_gcn(), 0.0, seed=7).materialize().state_dict()
    for name, mask in ticket.weight_masks.items():
        assert torch.equal(ticket.state_dict[name], drawn[name] * mask)


def test_two_searches_are_equal_and_seeds_differ():
    data = citation()
    first, second, other = (
        find_untrained_ticket(small_gcn, data, sparsity=0.5, epochs=4, seed=s, controls=["dense", "random_trained"])
        for s in (0, 0, 1)
    )
    same(first, second)
    assert not torch.equal(first.state_dict["convs.0.lin.weight"], other.state_dict["convs.0.lin.weight"])


def test_a_search_finds_what_a_random_mask_does_not():
    controls = ["random_untrained", "dense"]
    ticket = find_untrained_ticket(
        lambda: GCN(32, 256, 2, 7, bias=False), citation(), sparsity=0.5, epochs=100, controls=controls
    )
    assert ticket.metrics["test_accuracy"] > ticket.metrics["random_untrained_test_accuracy"] + 0.2
    assert ticket.metrics["test_accuracy"] > ticket.metrics["dense_test_accuracy"] - 0.1


def test_test_labels_have_no_say():
    data, poisoned = citation(), citation()
    poisoned.y = torch.where(poisoned.test_mask, (poisoned.y + 1) % 7, poisoned.y)
    first, second = (find_untrained_ticket(small_gcn, d, sparsity=0.5, epochs=10) for d in (data, poisoned))
    assert first.metrics["test_accuracy"] != second.metrics["test_accuracy"]
    for name, mask in first.weight_masks.items():
        assert torch.equal(mask, second.weight_masks[name])


@pytest.mark.parametrize("name", list(MODELS))
def test_any_model(name):
    data = random_graph()
    options = {"fast": name != "GCNII"}  # its layers are not ours, which is said with a warning
    ticket = find_untrained_ticket(MODELS[name], data, sparsity=0.5, epochs=3, **options)
    assert ticket.materialize(MODELS[name])(data.x, data.edge_index).shape == (60, 3)


def test_layers_left_as_they_are_are_named():
    with pytest.warns(UserWarning, match="GATv2Conv"):
        find_untrained_ticket(lambda: GAT(8, 16, 2, 3, v2=True), random_graph(), sparsity=0.5, epochs=1)


def test_dropout_is_off_in_the_search_unless_wanted():
    data = random_graph()

    def without():
        return GCN(8, 16, 2, 3)

    first, second, third = (
        find_untrained_ticket(make, data, sparsity=0.5, epochs=5, dropout=dropout)
        for make, dropout in ((GCN_MODEL, 0.0), (without, None), (GCN_MODEL, None))
    )
    same(first, second)
    assert not torch.equal(first.state_dict["convs.0.lin.weight"], third.state_dict["convs.0.lin.weight"])


def test_a_killed_search_goes_on(tmp_path):
    data, path = citation(), tmp_path / "search.pt"
    options = {"sparsity": 0.7, "epochs": 12}
    undisturbed = find_untrained_ticket(small_gcn, data, **options)

    class KilledError(Exception):
        pass

    def kill(row):
        if row["epoch"] == 7:
            raise KilledError

    with pytest.raises(KilledError):
        find_untrained_ticket(small_gcn, data, checkpoint=path, log=kill, **options)
    rows = []
    resumed = find_untrained_ticket(small_gcn, data, checkpoint=path, log=rows.append, **options)
    same(undisturbed, resumed)
    assert rows[-1]["epoch"] == 11


def test_adaptive_coats_are_spaced_by_a_first_search(tmp_path):
    data = citation()
    options = {"preset": "multicoated", "epochs": 8, "sparsity": 0.8, "coats": 3}
    logged = []
    ticket = find_untrained_ticket(
        small_gcn, data, coat_spacing="adaptive_linear", log=logged.append, checkpoint=tmp_path / "a.pt", **options
    )
    assert len(logged) == 16
    first = search_supermask_scores(data, options)
    expected = find_untrained_ticket(small_gcn, data, coat_spacing="adaptive_linear", coat_scores=first, **options)
    same(ticket, expected)


def search_supermask_scores(data, options):
    """Scores of the best epoch of a search with one coat, by the parts."""
    from graphsparse.tickets.mask_search import mask_search
    from graphsparse.tickets.search_task import SearchTask

    search = mask_search("multicoated", {"coats": 1}, epochs=options["epochs"], lr=None, weight_decay=None)
    task = SearchTask(data, epochs=options["epochs"])
    return search_supermask(small_gcn, task, search, options["sparsity"])[0].scores.detach()


def test_batches_of_nodes():
    data = citation(600)
    loader = RandomNodeLoader(data, num_parts=3, shuffle=True)  # one that needs no compiled extension
    ticket = find_untrained_ticket(small_gcn, data, sparsity=0.5, epochs=20, loader=loader, inference=layerwise)
    whole = predict(ticket.materialize(small_gcn), data)
    accuracy = float((whole.argmax(1) == data.y)[data.test_mask].float().mean())
    assert ticket.metrics["test_accuracy"] == pytest.approx(accuracy, abs=0.011)
    assert accuracy > 0.3


def layerwise(model, data):
    assert type(model) is not Supermask
    return layerwise_inference(model, data)


class Pooled(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.gnn, self.table = GCN(8, 8, 2, 1), torch.nn.Embedding(5, 8)

    def forward(self, x, edge_index, batch):
        return global_mean_pool(self.gnn(self.table(x[:, 0]), edge_index), batch)


def test_graphs():
    generator = torch.Generator().manual_seed(0)
    graphs = []
    for i in range(40):
        x = torch.randint(2, (6, 1), generator=generator) + 3 * (i % 2)
        edges = torch.randint(6, (2, 10), generator=generator)
        graphs.append(Data(x=x, edge_index=edges, y=torch.tensor([[float(i % 2)]])))
    split = {"train": range(20), "val": range(20, 30), "test": range(30, 40)}
    ticket = find_untrained_ticket(
        Pooled,
        graphs,
        sparsity=0.5,
        epochs=60,
        split=split,
        target="binary",
        batch_size=10,
        controls=["dense", "random_untrained"],
    )
    assert ticket.edge_mask is None
    assert ticket.metrics["val_rocauc"] > 0.9
    assert set(ticket.metrics) >= {"test_rocauc", "dense_test_rocauc", "random_untrained_test_rocauc"}
    assert ticket.weight_masks["table.weight"].any(0).equal(ticket.weight_masks["table.weight"].all(0))


def test_ticket_file(tmp_path):
    data = citation()
    ticket = find_untrained_ticket(small_gcn, data, sparsity=0.9, epochs=5)
    ticket.save(tmp_path / "ticket.safetensors")
    loaded = Ticket.load(tmp_path / "ticket.safetensors")
    same(ticket, loaded)
    assert loaded.sparsify(data).num_edges == data.num_edges


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"sparsity": 1.0}, ValueError, "'sparsity'"),
        ({"sparsity": "half"}, TypeError, "'sparsity'"),
        ({"preset": "best"}, ValueError, "'preset' must be one of"),
        ({"controls": "dense"}, ValueError, "'controls' must be a list"),
        ({"epochs": 0}, ValueError, "'epochs' must be at least 1"),
        ({"dropout": 1.5}, ValueError, r"'dropout' must be in \[0, 1\)"),
        ({"coats": 0}, ValueError, "'coats' must be at least 1"),
        ({"coat": 2}, TypeError, "'coat'"),
        ({"seed": -1}, ValueError, "'seed'"),
        ({"evaluator": 1}, ValueError, "'evaluator' is for a set of graphs"),
        ({"scope": "2:4"}, ValueError, "'sparsity' must be 0.5"),
        ({"checkpoint": 3}, TypeError, "'checkpoint'"),
    ],
)
def test_bad_arguments(change, error, message):
    options = {"sparsity": 0.9, "epochs": 2, **change}
    with pytest.raises(error, match=message):
        find_untrained_ticket(small_gcn, citation(), **options)


def test_bad_data_and_models():
    with pytest.raises(TypeError, match="'make_model' must be a function"):
        find_untrained_ticket(small_gcn(), citation(), sparsity=0.9)
    data = citation()
    del data.train_mask
    with pytest.raises(ValueError, match="'data.train_mask' is missing"):
        find_untrained_ticket(small_gcn, data, sparsity=0.9)
    with pytest.raises(ValueError, match="'split' is needed"):
        find_untrained_ticket(Pooled, [], sparsity=0.9, target="binary")
