"""What holds for every method: exact counts, the rewind, no look at test labels, resumption, a small file."""

import ast
import inspect
import re
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from models import MODELS
from resuming import Kill, same_state

import graphsparse.tickets
from graphsparse.metrics import accuracy, edge_sparsity
from graphsparse.nn import accelerate
from graphsparse.testing import assert_undirected, random_graph
from graphsparse.tickets import (
    METHODS,
    UGS,
    WDGLT,
    AtInit,
    Channels,
    FastGLT,
    InstantSoup,
    Magnitude,
    Ticket,
    Untrained,
    find_ticket,
    find_tickets,
)
from graphsparse.training import Masks, Training, build_model, fit, predict

#: The same in less time.
SHORT = {
    "iterative_magnitude": Magnitude(per_round=0.5),
    "synflow": AtInit("synflow", rounds=4),
    "ugs": UGS(edges_per_round=0.9, weights_per_round=0.9),
    "wd-glt": WDGLT(edges_per_round=0.9, weights_per_round=0.9),
    "fastglt": FastGLT(epochs=4, pretrain=1),
    "instant_soup": InstantSoup(copies=2, weak_epochs=2, per_round=0.5),
    "untrained": Untrained(epochs=4),
}
METHOD = {name: SHORT.get(name, method) for name, method in METHODS.items()} | {
    "late rewinding": Magnitude(per_round=0.5, rewind=2),
    "channels, rewound": Channels(start="initial"),
}
TRAINED = [
    name
    for name, method in METHOD.items()
    if not isinstance(method, Untrained) and getattr(method, "start", "initial") == "initial"
]
TRAINING = Training(epochs=4)


def num_weights(model):
    with torch.random.fork_rng():
        named = MODELS[model]().named_parameters()  # a tied one once
    return sum(parameter.numel() for _, parameter in named if parameter.dim() >= 2)


def chain(method, total=1000):
    """Sparsities of what a method prunes; the second just does not remove one weight more."""
    values = (0.0, (0.3 * total // 1 + 0.999) / total, 0.98)
    return [tuple(value if what in method.prunes else 0.0 for what in ("edges", "weights")) for value in values]


def search(name, model="GCN", data=None, **options):
    method = METHOD[name]
    targets, training = chain(method, num_weights(model)), replace(TRAINING, **options)
    return find_tickets(MODELS[model], data or random_graph(), targets=targets, method=method, training=training)


@cache
def found(name, model):
    """Search once; several laws look at the same tickets."""
    return search(name, model)


def assert_same(first, second):
    for ours, theirs in zip(first, second, strict=True):
        assert (ours.metrics, ours.config) == (theirs.metrics, theirs.config)
        assert torch.equal(ours.edge_mask, theirs.edge_mask)
        assert same_state(ours.state_dict, theirs.state_dict)
        assert same_state(ours.weight_masks, theirs.weight_masks)


@pytest.mark.parametrize("name", METHOD)
@pytest.mark.parametrize("model", ["GCN", "BatchNorm and a tied weight"])
def test_counts_are_exact_and_figures_those_of_the_ticket(name, model):
    method, data, total, before = METHOD[name], random_graph(), num_weights(model), None
    num_edges = data.edge_index.size(1) // 2
    own = [n for n, parameter in MODELS[model]().named_parameters() if parameter.dim() >= 2]
    for (edges, weights), ticket in zip(chain(method, total), found(name, model), strict=True):
        sparse = ticket.sparsify(data)
        removed = sum(int((~ticket.weight_masks[n]).sum()) for n in own if n in ticket.weight_masks)
        assert removed == int(weights * total)
        assert sparse.edge_index.size(1) == 2 * (num_edges - int(edges * num_edges))
        assert_undirected(sparse.edge_index)
        assert ticket.metrics["weight_sparsity"] == removed / total
        counted = edge_sparsity(data.edge_index, sparse.edge_index)
        assert ticket.metrics.get("edge_sparsity", 0.0) == pytest.approx(counted, rel=1e-12)
        for n, mask in ticket.weight_masks.items():
            assert not ticket.state_dict[n][~mask].any()
        logits = predict(ticket.materialize(MODELS[model]), sparse)
        for part in ("val", "test"):
            assert ticket.metrics[part] == accuracy(logits, data.y, data[f"{part}_mask"])
        masks = Masks({n: ticket.weight_masks[n] for n in own if n in ticket.weight_masks}, ticket.edge_mask)
        assert before is None or not method.nested or masks.within(before)
        before = masks


@pytest.mark.parametrize("name", METHOD)
def test_a_file_holds_the_whole_ticket(name, tmp_path):
    tickets = found(name, "GCN")
    for i, ticket in enumerate(tickets):
        ticket.save(tmp_path / str(i))
    assert_same([Ticket.load(tmp_path / str(i)) for i in range(len(tickets))], [t.as_read_back() for t in tickets])


@pytest.mark.parametrize("name", TRAINED)
def test_without_sparsity_a_ticket_is_the_trained_model(name):
    ticket, result = found(name, "GCN")[0], fit(accelerate(build_model(MODELS["GCN"], 0)), random_graph(), TRAINING)
    assert same_state(ticket.state_dict, result.state_dict)
    assert ticket.edge_mask.all()
    assert not ticket.weight_masks
    for key in ("val", "test", "best_epoch"):
        assert ticket.metrics[key] == getattr(result, key)


@pytest.mark.parametrize("name", TRAINED)
def test_training_starts_from_the_initial_weights_under_the_mask(name):
    """A learning rate of 0 leaves the weights where they were before the first step."""
    for ticket in search(name, epochs=3, lr=0.0, weight_decay=0.0, seed=11):
        start = build_model(MODELS["GCN"], ticket.config["seed"]).state_dict()
        for n, value in Masks(ticket.weight_masks).apply(start).items():
            assert torch.equal(ticket.state_dict[n], value)


@pytest.mark.parametrize("name", METHOD)
def test_test_labels_change_nothing_but_the_test_figure(name):
    data, state = random_graph(), torch.get_rng_state()
    data.y = torch.where(data.test_mask, (data.y + 1) % 3, data.y)
    first, second = found(name, "GCN"), search(name, data=data)
    assert torch.equal(torch.get_rng_state(), state)
    tests = [[ticket.metrics["test"] for ticket in tickets] for tickets in (first, second)]
    assert tests[0] != tests[1]
    again = [
        replace(ticket, metrics={**ticket.metrics, "test": test}) for ticket, test in zip(second, tests[0], strict=True)
    ]
    assert_same(first, again)


@pytest.mark.parametrize("name", METHOD)
def test_a_killed_run_goes_on_and_a_lost_file_is_trained_again(name, tmp_path):
    seen, options = [], {"checkpoint": tmp_path, "checkpoint_every": 1}

    def kill(row):
        seen.append(row)
        if len(seen) == 6:  # within the second training, or the third
            raise Kill

    with suppress(Kill):  # a random mask is judged once, and is done before
        search(name, log=kill, **options)
    assert len(seen) == 6 or name == "random_untrained"
    whole = search(name, **options)
    for ours, theirs in zip(whole, found(name, "GCN"), strict=True):
        assert same_state(ours.state_dict, theirs.state_dict)
        assert ours.metrics == theirs.metrics
    last = {re.sub(r"\d", "", path.name): path for path in sorted(tmp_path.glob("*.pt"))}
    for path in [*last.values(), None]:
        rows = []
        if path is not None:
            path.unlink()
        assert_same(search(name, log=rows.append, **options), whole)
        assert bool(rows) == (path is not None)  # what is there is not trained again


def lines_of_code(file):
    """Count lines that are no comment, blank, or part of a docstring or an import."""
    source = file.read_text(encoding="utf-8")
    others = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node = node.body[0]
        elif not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        others |= set(range(node.lineno, node.end_lineno + 1))
    lines = enumerate(source.splitlines(), 1)
    return sum(1 for i, line in lines if line.strip() and not line.strip().startswith("#") and i not in others)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_small_hashable_and_can_be_written_out(name):
    method = METHODS[name]
    hash(method)
    assert eval(repr(method), vars(graphsparse.tickets)) == method
    # Four published searches over frozen weights share one file, and four scores at initialisation another.
    several = {"untrained.py": 105, "at_init.py": 70}
    file = Path(inspect.getfile(type(method)))
    assert lines_of_code(file) <= several.get(file.name, 55)


def test_a_ticket_says_what_it_took():
    data, make_model = random_graph(), MODELS["GCN"]
    targets = [(0.0, 0.3), (0.0, 0.6)]
    expected = {
        "snip": [(1, 4), (1, 4)],
        "magnitude": [(2, 8), (2, 8)],
        "iterative_magnitude": [(2, 8), (3, 12)],
        "late rewinding": [(2, 6), (3, 8)],
        "instant_soup": [(3, 8), (5, 12)],
        "untrained": [(1, 4), (1, 4)],
    }
    for name, numbers in expected.items():
        tickets = find_tickets(make_model, data, targets=targets, method=METHOD[name], training=TRAINING)
        assert [(t.metrics["trainings"], t.metrics["epochs"]) for t in tickets] == numbers, name
    distilled = {"targets": targets, "distillation": graphsparse.tickets.Distillation(), "training": TRAINING}
    tickets = find_tickets(make_model, data, method="teddy", **distilled)
    assert [ticket.metrics["trainings"] for ticket in tickets] == [2, 2]
    assert find_ticket(make_model, data, training=TRAINING).metrics["trainings"] == 1
