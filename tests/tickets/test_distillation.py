"""Which predictions of the dense model reach a ticket."""

import pytest
import torch
from models import MODELS
from resuming import same_state

from graphsparse.testing import random_graph
from graphsparse.tickets import Distillation, TicketRun, find_ticket
from graphsparse.training import NodeTask, Training, distillation_loss, fit

OPTIONS = {"edge_sparsity": 0.4, "weight_sparsity": 0.5, "training": Training(epochs=4, seed=2)}


def partly_labelled():
    """A graph with nodes that are in none of the three sets."""
    data = random_graph()
    unlabelled = torch.arange(60) % 5 == 0
    for key in ("train_mask", "val_mask", "test_mask"):
        data[key] = data[key] & ~unlabelled
    return data


def find(data, **options):
    return find_ticket(MODELS["GCN"], data, distillation=Distillation(**options), **OPTIONS).state_dict


def teacher(data):
    run = TicketRun(MODELS["GCN"], NodeTask(data), [], OPTIONS["training"])
    return fit(run.model(), data, OPTIONS["training"]).logits


def test_given_teacher_equals_the_one_it_would_train():
    data = random_graph()
    assert same_state(find(data), find(data, teacher=teacher(data)))
    assert not same_state(find(data), find(data, teacher=-teacher(data)))


@pytest.mark.parametrize(("name", "number"), [("train", 16), ("observed", 28), ("all", 60)])
def test_term_is_the_divergence_over_the_chosen_nodes(name, number):
    data = partly_labelled()
    hidden = data.val_mask | data.test_mask
    nodes = {"train": data.train_mask, "observed": ~hidden, "all": torch.ones_like(hidden)}[name]
    assert int(nodes.sum()) == number
    first, second = torch.randn(2, 60, 3, generator=torch.Generator().manual_seed(0))
    term = Distillation(nodes=name, weight=3.0, temperature=2.0).term(data, second)
    expected = 3 * distillation_loss(first[nodes], second[nodes], 2.0)
    torch.testing.assert_close(term(first, data, 0), expected)


def test_teacher_of_other_nodes_does_not_reach_the_student():
    data = partly_labelled()
    logits = teacher(data)
    changed = torch.where(data.train_mask.view(-1, 1), logits, -logits)
    for nodes, equal in (("train", True), ("observed", False), ("all", False)):
        assert same_state(find(data, nodes=nodes, teacher=logits), find(data, nodes=nodes, teacher=changed)) == equal


def test_inductive_teacher_says_nothing_of_hidden_nodes():
    data = partly_labelled()
    hidden = data.val_mask | data.test_mask
    task = NodeTask(data, inductive=True)
    logits = teacher(data)
    changed = torch.where(hidden.view(-1, 1), -logits, logits)
    assert same_state(find(task, nodes="observed", teacher=logits), find(task, nodes="observed", teacher=changed))
    run = TicketRun(MODELS["GCN"], task, [], OPTIONS["training"])
    assert run.teacher.size(0) == int((~hidden).sum())


def test_weight_0_trains_no_teacher():
    rows = []
    training = Training(epochs=4, log=rows.append)
    for weight, number in ((0.0, 4), (1.0, 8)):
        rows.clear()
        find_ticket(MODELS["GCN"], random_graph(), training=training, distillation=Distillation(weight=weight))
        assert len(rows) == number


def test_bad_arguments():
    for options, message in [
        ({"weight": -1.0}, "'weight'"),
        ({"nodes": "test"}, "'train', 'observed' or 'all'"),
        ({"temperature": 0.0}, "'temperature' must be positive"),
        ({"teacher": torch.zeros(3)}, r"\[N, C\] \(got shape \[3\]\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            Distillation(**options)
    with pytest.raises(ValueError, match="hidden nodes have no teacher prediction"):
        find(NodeTask(random_graph(), inductive=True), nodes="all")
