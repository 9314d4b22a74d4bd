"""Finding tickets: what is asked for, what is refused, and what a method sees."""

import json
import math
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from models import MODELS
from resuming import same_state
from torch_geometric.data import Data
from torch_geometric.loader import RandomNodeLoader
from torch_geometric.nn import GCN, global_mean_pool

from graphsparse.edges import sparsify_edge
from graphsparse.metrics import accuracy
from graphsparse.testing import random_graph
from graphsparse.tickets import (
    L0,
    METHODS,
    AtInit,
    Distillation,
    Fixed,
    Found,
    InstantSoup,
    Magnitude,
    OneShot,
    TicketRun,
    Untrained,
    find_ticket,
    find_tickets,
)
from graphsparse.training import GraphTask, L0Projection, Masks, NodeTask, Training, fit, predict

SHORT = Training(epochs=4)
SPARSE = {"edge_sparsity": 0.4, "weight_sparsity": 0.6}


def sparsities(method, edges=0.4, weights=0.6):
    """Return sparsities of what a method prunes."""
    wanted = {"edges": {"edge_sparsity": edges}, "weights": {"weight_sparsity": weights}}
    return {key: value for what in method.prunes for key, value in wanted[what].items()}


def test_no_test_part_no_test_figure():
    data = random_graph()
    del data.test_mask
    for method in ("teddy", Untrained(epochs=2)):
        assert (
            "test" not in find_ticket(MODELS["GCN"], data, weight_sparsity=0.5, method=method, training=SHORT).metrics
        )


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"distillation": Distillation(weight=1.0)}, "distillation.weight was 10.0"),
        ({"distillation": Distillation(temperature=2.0)}, "distillation.temperature was 1.0"),
        ({"edge_sparsity": 0.2}, "targets was"),
        ({"weight_sparsity": 0.3}, "targets was"),
        ({"method": OneShot("degree", L0())}, "method was OneShot"),
        ({"method": OneShot("teddy", L0("tensor"))}, "method was OneShot"),
        ({"training": {"lr": 0.1}}, r"training\.lr was 0.01 and is now 0.1"),
        ({"training": {"fast": False}}, r"training\.fast was True"),
        ({"data": random_graph(seed=1)}, "data was"),
    ],
    ids=str,
)
def test_the_folder_of_another_run_is_refused(changes, name, tmp_path):
    given = SPARSE | {"method": "teddy", "distillation": Distillation(), "data": random_graph()} | changes
    data, more = given.pop("data"), given.pop("training", {})
    training = Training(epochs=2, checkpoint=tmp_path)
    first = SPARSE | {"method": "teddy", "distillation": Distillation(), "training": training}
    find_ticket(MODELS["GCN"], random_graph(), **first)
    with pytest.raises(ValueError, match=f"belongs to another run: {name}"):
        find_ticket(MODELS["GCN"], data, training=replace(training, **more), **given)
    assert json.loads((tmp_path / "run.json").read_text())["training.epochs"] == "2"
    find_ticket(MODELS["GCN"], random_graph(), **(first | {"training": replace(training, log=print, progress=False)}))


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "a").touch()
    with pytest.raises(ValueError, match="'checkpoint' must be a folder"):
        find_ticket(MODELS["GCN"], random_graph(), training=Training(epochs=2, checkpoint=tmp_path / "a"))


@pytest.mark.parametrize("score", ["teddy", "reverse_teddy", "random", lambda edges, num_nodes: edges.sum(0).float()])
def test_edges_are_those_of_the_score(score):
    data, training = random_graph(), Training(epochs=2, seed=5)
    ticket = find_ticket(MODELS["GCN"], data, edge_sparsity=0.4, method=OneShot(score), training=training)
    expected = sparsify_edge(data.edge_index, 0.4, score, num_nodes=data.num_nodes, seed=5)[1]
    assert torch.equal(ticket.edge_mask, expected)


@pytest.mark.parametrize("ratio", ["erk", "uniform", "global"])
def test_random_choice_follows_the_seed_and_not_the_training(ratio):
    masks = [
        find_ticket(MODELS["GCN"], random_graph(), method=OneShot(None, Fixed(ratio)), weight_sparsity=0.6, training=t)
        for t in (Training(epochs=2), Training(epochs=2, lr=0.1), Training(epochs=2, seed=1))
    ]
    first, again, other = (ticket.weight_masks for ticket in masks)
    assert same_state(first, again)
    assert not same_state(first, other)


def test_random_keeps_as_many_of_each_tensor_as_erdos_renyi_graphs():
    """Of a GCN for Cora at 98 %; a fair share of the last layer would be 35 of 1792 weights, with which none learns."""
    parameters = [torch.nn.Parameter(torch.ones(shape)) for shape in ((256, 1433), (7, 256))]
    for rule in (METHODS["random"].weights, Fixed()):
        mask = rule(torch.optim.SGD(parameters), 0.98, seed=0)
        assert [int(kept.sum()) for kept in mask.kept] == [6380, 993]


@pytest.mark.parametrize("scope", ["global", "tensor"])
def test_scope_of_the_projection(scope):
    ticket = find_ticket(
        MODELS["GCN"], random_graph(), weight_sparsity=0.6, method=OneShot(None, L0(scope)), training=SHORT
    )
    each = [int((~mask).sum()) == int(0.6 * mask.numel()) for mask in ticket.weight_masks.values()]
    assert all(each) == (scope == "tensor")


def test_settings_reach_the_training():
    rows = []
    training = Training(epochs=4, log=rows.append, patience=1, lr=0.0)
    find_ticket(MODELS["GCN"], random_graph(), training=training, **SPARSE)
    assert len(rows) == 2  # the second epoch is no better than the first


def test_config_says_all_that_was_asked_for():
    ticket = find_ticket(MODELS["GCN"], random_graph(), training=SHORT, distillation=Distillation(), **SPARSE)
    assert ticket.config["method"] == "teddy"
    assert ticket.config["seed"] == 0
    assert ticket.config["weight_sparsity"] == 0.6
    assert ticket.config["OneShot"] == {"edges": "teddy", "weights": "L0(scope='global')"}
    assert (ticket.config["Training"]["epochs"], ticket.config["Distillation"]["nodes"]) == (4, "train")
    json.dumps(ticket.config)
    assert "Distillation" not in find_ticket(MODELS["GCN"], random_graph(), training=SHORT).config


def partly_labelled():
    """A graph with nodes that are in none of the three sets."""
    data = random_graph()
    unlabelled = torch.arange(60) % 5 == 0
    for key in ("train_mask", "val_mask", "test_mask"):
        data[key] = data[key] & ~unlabelled
    return data


def disturb(data, nodes):
    """Change features and edges of the given nodes."""
    data = data.clone()
    data.x = torch.where(nodes.view(-1, 1), data.x.flip(1) * 3, data.x)
    touched = nodes[data.edge_index].any(0)
    data.edge_index = data.edge_index[:, ~touched]
    return data


@pytest.mark.parametrize("name", ["teddy", "random", "magnitude", "snip", "instant_soup"])
def test_inductive_training_cannot_see_hidden_nodes(name):
    data, method = partly_labelled(), InstantSoup(2, 1, 0.5) if name == "instant_soup" else METHODS[name]
    other = disturb(data, data.val_mask | data.test_mask)
    # Labels decide which epoch is kept, so one epoch leaves no choice.
    options = sparsities(method) | {"method": method, "training": Training(epochs=1)}
    if name == "teddy":
        options["distillation"] = Distillation(nodes="observed")
    first, second = (find_ticket(MODELS["GCN"], NodeTask(d, inductive=True), **options) for d in (data, other))
    assert same_state(first.state_dict, second.state_dict)
    first, second = (find_ticket(MODELS["GCN"], d, **options) for d in (data, other))
    assert not same_state(first.state_dict, second.state_dict)


def test_inductive_ticket_is_of_the_whole_graph():
    data = partly_labelled()
    ticket = find_ticket(MODELS["GCN"], NodeTask(data, inductive=True), edge_sparsity=0.4, training=SHORT)
    assert torch.equal(ticket.edge_mask, sparsify_edge(data.edge_index, 0.4, num_nodes=60)[1])
    logits = predict(ticket.materialize(MODELS["GCN"]), ticket.sparsify(data))
    assert ticket.metrics["test"] == accuracy(logits, data.y, data.test_mask)


class Pooled(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.gnn, self.table = GCN(8, 8, 2, 1), torch.nn.Embedding(5, 8)

    def forward(self, x, edge_index, batch):
        return global_mean_pool(self.gnn(self.table(x[:, 0]), edge_index), batch)


def graphs(metric=None):
    generator, found = torch.Generator().manual_seed(0), []
    for i in range(40):
        x = torch.randint(2, (6, 1), generator=generator) + 3 * (i % 2)
        edges = torch.randint(6, (2, 10), generator=generator)
        found.append(Data(x=x, edge_index=edges, y=torch.tensor([[float(i % 2)]])))
    split = {"train": range(20), "val": range(20, 30), "test": range(30, 40)}
    return GraphTask(found, split=split, target="binary", batch_size=10, metric=metric)


@pytest.mark.parametrize("name", ["teddy", "magnitude", "grasp", "synflow", "instant_soup", "untrained"])
def test_graphs(name):
    slow = {"synflow": AtInit("synflow", rounds=3), "instant_soup": InstantSoup(2, 2, 0.5)}
    method = Untrained(epochs=30) if name == "untrained" else slow.get(name, METHODS[name])
    ticket = find_ticket(Pooled, graphs(), weight_sparsity=0.5, method=method, training=Training(epochs=30))
    assert ticket.edge_mask is ticket.graph is None
    assert ticket.config["metric"] == "rocauc"
    assert ticket.metrics["val"] > 0.9
    assert ticket.metrics["test"] > 0.9


@pytest.mark.parametrize("name", ["teddy", "untrained"])
def test_batches_of_nodes(name):
    data = random_graph(200)
    task = NodeTask(data, loader=RandomNodeLoader(data, num_parts=3, shuffle=True))
    training = Training(epochs=20, lr=0.05)
    method = OneShot(None, L0()) if name == "teddy" else Untrained(epochs=20)
    ticket = find_ticket(lambda: GCN(8, 16, 2, 3), task, weight_sparsity=0.5, method=method, training=training)
    assert ticket.metrics["test"] > 0.5
    with pytest.raises(ValueError, match="give a function of the graph as 'loader'"):
        find_ticket(MODELS["GCN"], task, edge_sparsity=0.4, training=training)
    with pytest.raises(ValueError, match="trained on as a whole"):
        find_ticket(MODELS["GCN"], task, distillation=Distillation(), training=training)


@dataclass(frozen=True)
class Ramp:
    """A rule whose sparsity grows, as a user writes it."""

    nested: ClassVar[bool] = False

    def __call__(self, optimizer, sparsity, *, steps, seed):
        return L0Projection(optimizer, sparsity, schedule="cubic", total_steps=20)


def test_no_epoch_of_a_ramp_becomes_the_ticket():
    method = OneShot(None, Ramp())
    ticket = find_ticket(
        MODELS["GCN"], random_graph(), weight_sparsity=0.9, method=method, training=Training(epochs=30, lr=0.05)
    )
    assert ticket.metrics["best_epoch"] >= 19
    assert round(ticket.metrics["weight_sparsity"] * 176) == int(0.9 * 176)


@dataclass(frozen=True)
class Given:
    """A method that yields what it is given."""

    edges: object = None
    weights: object = None
    prunes: ClassVar[frozenset[str]] = frozenset({"edges", "weights"})
    nested: ClassVar[bool] = True

    __hash__ = None

    def find(self, run):
        for target in run.targets:
            yield Found(target, self.edges, self.weights)


def test_masks_of_a_method_are_held():
    data = random_graph()
    everything = Masks.everything(MODELS["GCN"](), data)
    scores = {n: torch.rand(m.shape, generator=torch.Generator().manual_seed(0)) for n, m in everything.weights.items()}
    masks = everything.prune(
        weights=scores, weight_sparsity=0.6, edges=torch.arange(everything.edges.numel()), edge_sparsity=0.4
    )
    ticket = find_ticket(MODELS["GCN"], data, method=Given(masks.edges, masks.weights), training=SHORT, **SPARSE)
    assert same_state(ticket.weight_masks, masks.weights)
    assert torch.equal(ticket.edge_mask, masks.edge_mask(data))
    with pytest.raises(ValueError, match="says nothing of another graph"):
        find_ticket(MODELS["GCN"], NodeTask(data, inductive=True), method=Given(masks.edges), edge_sparsity=0.4)


def test_what_is_not_as_sparse_as_asked_for_is_refused():
    data = random_graph()
    everything = Masks.everything(MODELS["GCN"](), data)
    with pytest.raises(ValueError, match="removed 0 of 0 weights"):
        find_ticket(MODELS["GCN"], data, method=Given(), training=SHORT, weight_sparsity=0.6)
    with pytest.raises(ValueError, match="removed 0 of 176 weights"):
        find_ticket(MODELS["GCN"], data, method=Given(None, everything.weights), training=SHORT, weight_sparsity=0.6)
    for edges in (None, everything.edges):
        with pytest.raises(ValueError, match="removed 0 of .* edges for a sparsity of 0.6"):
            find_ticket(MODELS["GCN"], data, method=Given(edges), training=SHORT, edge_sparsity=0.6)
    with pytest.raises(ValueError, match="found 0 tickets for 1 targets"):
        find_ticket(MODELS["GCN"], data, method=Nothing(), training=SHORT)


class Nothing(Given):
    def find(self, run):
        return iter(())


def run_on(task, **options):
    return TicketRun(MODELS["GCN"], task, [], Training(epochs=3, **options))


def test_a_run_shows_no_test_part():
    assert run_on(NodeTask(random_graph())).task.eval_data.get("test_mask") is None
    assert "test" not in TicketRun(Pooled, graphs(), [], SHORT).task.split


def test_pairs_and_masks_of_a_run():
    data = random_graph()
    data.edge_index = torch.cat([data.edge_index, torch.tensor([[3, 5], [3, 5]])], dim=1)
    run = run_on(NodeTask(data))
    kept = torch.rand(run.everything().edges.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    by_hand = torch.where(run.pairs < 0, torch.tensor(True), kept[run.pairs])
    assert torch.equal(Masks(edges=kept).edge_mask(data), by_hand)
    assert run.pairs[-2:].tolist() == [-1, -1]


@pytest.mark.parametrize("loaded", [False, True])
def test_gradient_is_that_of_the_training_loss(loaded):
    data = random_graph()
    task = NodeTask(data, loader=[data]) if loaded else NodeTask(data)
    run = TicketRun(lambda: GCN(8, 16, 2, 3), task, [], Training(fast=False))
    model = run.model()
    found = run.gradient(model)
    loss = torch.nn.functional.cross_entropy(model(data.x, data.edge_index)[data.train_mask], data.y[data.train_mask])
    loss.backward()
    assert list(found) == run.names == ["convs.0.lin.weight", "convs.1.lin.weight"]
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, model.get_parameter(name).grad)


def test_teacher_is_the_dense_model():
    data = random_graph()
    run = run_on(NodeTask(data), seed=1)
    result = fit(run.model(), data, Training(epochs=3, seed=1))
    assert torch.equal(run.teacher, result.logits)


BAD = {
    "edge sparsity of 1": ({"edge_sparsity": 1.0}, ValueError, "'edge_sparsity'.*got 1.0"),
    "negative edge sparsity": ({"edge_sparsity": -0.1}, ValueError, "'edge_sparsity'"),
    "NaN": ({"weight_sparsity": math.nan}, ValueError, "'weight_sparsity'"),
    "text": ({"weight_sparsity": "0.5"}, TypeError, "'weight_sparsity' must be a number"),
    "unknown method": ({"method": "tedy"}, ValueError, "'method' must be one of .*'teddy'.*got 'tedy'"),
    "no method": ({"method": 3}, TypeError, "'method' must be a name or an object with find"),
    "edges of a method for weights": ({"method": "magnitude"}, ValueError, "prunes no edges.*got 0.4"),
    "weights of a method for edges": ({"method": OneShot("teddy")}, ValueError, "prunes no weights.*got 0.6"),
    "score of the wrong length": (
        {"method": OneShot(lambda e, n: torch.ones(3), L0())},
        ValueError,
        "one value per edge",
    ),
    "teacher": (
        {"distillation": Distillation(teacher=torch.zeros(3, 3))},
        ValueError,
        r"\[60, C\] \(got shape \[3, 3\]\)",
    ),
    "teacher of another width": (
        {"distillation": Distillation(teacher=torch.zeros(60, 5))},
        ValueError,
        "student_logits",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_argument(case):
    options, error, message = BAD[case]
    with pytest.raises(error, match=message):
        find_ticket(MODELS["GCN"], random_graph(), **{**SPARSE, "training": SHORT, **options})


def test_bad_options_of_methods():
    for make, message in [
        (lambda: L0("layer"), "'scope' must be"),
        (lambda: Fixed("tensor"), "'ratio' must be"),
        (lambda: OneShot("tedy", L0()), "'score' must be"),
        (lambda: Magnitude(0.0), "'per_round' must be"),
        (lambda: Magnitude(1.5), "'per_round' must be"),
    ]:
        with pytest.raises(ValueError, match=message):
            make()


def test_rounds_need_a_chain_of_targets():
    for method in ("magnitude", "iterative_magnitude", "instant_soup"):
        with pytest.raises(ValueError, match="below what is removed already"):
            find_tickets(MODELS["GCN"], random_graph(), targets=[(0, 0.6), (0, 0.3)], method=method, training=SHORT)


def without(key):
    data = random_graph()
    del data[key]
    return data


def changed(key, value):
    data = random_graph()
    data[key] = value(data[key])
    return data


def with_nan(x):
    return torch.where(torch.arange(x.numel()).view_as(x) == 17, torch.nan, x)


def only_adj_t():
    data = random_graph()
    data.adj_t = torch.sparse_coo_tensor(data.edge_index, torch.ones(data.num_edges), (60, 60)).to_sparse_csr()
    del data.edge_index
    return data


BAD_DATA = {
    "no edges given": (lambda: without("edge_index"), ValueError, "'edge_index'"),
    "adj_t alone": (only_adj_t, ValueError, "to_edge_index"),
    "edges transposed": (lambda: changed("edge_index", lambda e: e.t()), ValueError, r"\[2, E\]"),
    "edges as floats": (lambda: changed("edge_index", lambda e: e.float()), TypeError, "float32"),
    "ids out of range": (lambda: changed("edge_index", lambda e: e + 5), ValueError, "not below 'num_nodes'"),
    "no features": (lambda: without("x"), ValueError, "'data.x'"),
    "NaN in features": (lambda: changed("x", with_nan), ValueError, "NaN"),
    "no training nodes": (lambda: changed("train_mask", torch.zeros_like), ValueError, "marks no node"),
    "no validation mask": (lambda: without("val_mask"), ValueError, "'data.val_mask' is missing"),
    "labels out of range": (lambda: changed("y", lambda y: y + 1), ValueError, "out of range"),
    "negative labels": (
        lambda: changed("y", lambda y: y - 3),
        ValueError,
        "from -3 to -2: a class is an integer from 0",
    ),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data(case):
    make, error, message = BAD_DATA[case]
    with pytest.raises(error, match=message):
        find_ticket(MODELS["GCN"], make(), training=SHORT, **SPARSE)


def test_an_unknown_score_is_refused_where_it_is_named():
    with pytest.raises(ValueError, match="'score' must be .*got 'tedy'"):
        OneShot("tedy", L0())


def test_bad_models():
    data = random_graph()
    for make_model, error, message in [
        (lambda: GCN(8, 16, 2, 2), ValueError, "wrong width"),
        (lambda: GCN(-1, 16, 2, 3), ValueError, "lazy"),
        (lambda: "model", TypeError, "must return a torch.nn.Module"),
        (MODELS["GCN"](), TypeError, "function that builds a fresh model"),
    ]:
        with pytest.raises(error, match=message):
            find_ticket(make_model, data, training=replace(SHORT, fast=False), **SPARSE)
