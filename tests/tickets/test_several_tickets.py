"""FreeTickets and SupTickets: methods that train their tickets themselves."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from models import MODELS
from resuming import Kill, same_state
from torch_geometric.nn import GCN

from graphsparse.metrics import accuracy
from graphsparse.testing import random_graph
from graphsparse.tickets import (
    SET,
    Distillation,
    Fixed,
    Found,
    FreeTickets,
    SupTickets,
    TicketRun,
    compare_tickets,
    find_ticket,
    find_tickets,
)
from graphsparse.tickets.method import Target
from graphsparse.training import Masks, NodeTask, Training, clipped_adam, predict

FREE = FreeTickets(members=3, explore_epochs=6, phase_epochs=5, rule=SET(every=2))
SUP = SupTickets(cycles=3, cycle_epochs=3)
TRAINING = Training(epochs=14, lr=0.05)
TARGETS = [(0.0, 0.6), (0.0, 0.9)]


def find(method, model="GCN", training=TRAINING, targets=TARGETS):
    return find_tickets(MODELS[model], random_graph(), targets=targets, method=method, training=training)


@pytest.mark.parametrize("method", [FREE, SUP], ids=lambda method: type(method).__name__)
@pytest.mark.parametrize("model", ["GCN", "BatchNorm and a tied weight"])
def test_counts_are_exact_and_figures_those_of_the_file(method, model):
    data, each = random_graph(), getattr(method, "members", 1)
    total = sum(p.numel() for p in MODELS[model]().parameters() if p.dim() >= 2)
    tickets = find(method, model)
    assert len(tickets) == each * len(TARGETS)
    for i, ticket in enumerate(tickets):
        sparsity = TARGETS[i // each][1]
        masks = dict(ticket.weight_masks)
        if "third.lin.weight" in masks:
            assert torch.equal(masks.pop("third.lin.weight"), masks["second.lin.weight"])
        assert sum(int((~mask).sum()) for mask in masks.values()) == int(sparsity * total)
        assert ticket.metrics["weight_sparsity"] == int(sparsity * total) / total
        logits = predict(ticket.materialize(MODELS[model]), data)
        for part in ("val", "test"):
            assert ticket.metrics[part] == accuracy(logits, data.y, data[f"{part}_mask"])
        assert ticket.config.get("member") == (i % each + 1 if each > 1 else None)
        assert ticket.edge_mask.all()


def test_members_differ_by_what_escapes():
    """Of each tensor exactly the fraction is dropped before the next ticket; some of it may have come back."""
    tickets = find(replace(FREE, escape=0.5), targets=[(0.0, 0.6)])
    for first, second in pairwise(tickets):
        for name, mask in first.weight_masks.items():
            both = int((mask & second.weight_masks[name]).sum())
            assert int(second.weight_masks[name].sum()) == int(mask.sum())
            assert int(mask.sum()) - int(0.5 * int(mask.sum())) <= both < int(mask.sum())
    held = find(replace(FREE, escape=0.0), targets=[(0.0, 0.6)])
    assert same_state(held[0].weight_masks, held[2].weight_masks)


def test_the_mean_of_one_cycle_that_changes_no_mask_is_its_ticket():
    """Then the whole is a training with a fixed mask, and a second one at other learning rates."""
    method = SupTickets(cycles=1, cycle_epochs=4, escape=0.0, rule=Fixed())
    (ticket,) = find(method, targets=[(0.0, 0.6)])
    run = TicketRun(MODELS["GCN"], NodeTask(random_graph()), [], TRAINING)
    first = run.train(run.model(), "a", weights=run.hold(Fixed(), 0.6), epochs=10)
    model = run.model(first.state_dict)

    def make(parameters, lr, weight_decay):
        made, _ = TRAINING.make_optimizer(parameters)
        return made, torch.optim.lr_scheduler.LambdaLR(made, lambda epoch: [0.55, 1.0, 0.55, 0.1][min(epoch, 3)])

    keep = {name: first.weight_masks[name] for name in run.names}
    second = run.train(model, "b", weights=keep, epochs=4, eval_every=4, optimizer=make)
    for name, value in second.state_dict.items():
        torch.testing.assert_close(ticket.state_dict[name], value)


def test_the_mean_of_several_is_pruned_after_each():
    seen = []

    class Spy(TicketRun):
        def train(self, model, tag, **options):
            seen.append((tag, super().train(model, tag, **options)))
            return seen[-1][1]

    run = Spy(MODELS["GCN"], NodeTask(random_graph()), [Target(0.0, 0.8)], TRAINING)
    (found,) = SUP.find(run)
    states = [result.state_dict for tag, result in seen if tag.startswith("cycle")]
    mean = None
    for i, state in enumerate(states):
        mean = state if i == 0 else {n: (i * mean[n] + state[n]) / (i + 1) for n in state}
        sizes = torch.cat([mean[name].abs().flatten() for name in run.names])
        least = sizes.sort().values[int(0.8 * 176)]
        mean = {n: v * (v.abs() >= least) if n in run.names else v for n, v in mean.items()}
    for name, value in found.start.items():
        torch.testing.assert_close(value, mean[name])


def test_statistics_are_those_of_the_mean():
    make_model = lambda: GCN(8, 16, 2, 3, norm="batch_norm")  # noqa: E731
    data = random_graph()
    ticket = find_ticket(make_model, data, weight_sparsity=0.5, method=SUP, training=TRAINING)
    model = ticket.materialize(make_model)
    hidden = model.convs[0](data.x, data.edge_index)
    torch.testing.assert_close(model.norms[0].module.running_mean, hidden.mean(0))
    torch.testing.assert_close(model.norms[0].module.running_var, hidden.var(0))


@pytest.mark.parametrize("method", [FREE, SUP], ids=lambda method: type(method).__name__)
def test_a_killed_run_goes_on(method, tmp_path):
    whole, seen = find(method, targets=TARGETS[:1]), []

    def kill(row):
        seen.append(row)
        if len(seen) == 12:
            raise Kill

    for _ in range(20):
        seen.clear()
        try:
            training = replace(TRAINING, checkpoint=tmp_path, checkpoint_every=1, log=kill)
            found = find(method, training=training, targets=TARGETS[:1])
            break
        except Kill:
            pass
    for ours, theirs in zip(found, whole, strict=True):
        assert (ours.metrics, ours.config) == (theirs.metrics, theirs.config)
        assert same_state(ours.state_dict, theirs.state_dict)


def test_test_labels_change_nothing_but_the_test_figure():
    tickets = []
    for value in (0, 2):
        data = random_graph()
        data.y = torch.where(data.test_mask, torch.tensor(value), data.y)
        tickets.append(find_tickets(MODELS["GCN"], data, targets=TARGETS[:1], method=FREE, training=TRAINING))
    for first, second in zip(*tickets, strict=True):
        assert same_state(first.state_dict, second.state_dict)
        assert first.metrics["test"] != second.metrics["test"]


def test_in_a_comparison():
    options = {"weight_sparsity": 0.6, "training": TRAINING, "dropouts": [0.5], "distillation": Distillation()}
    rows = compare_tickets(MODELS["GCN"], random_graph(), [SUP], **options)
    assert rows[1]["weight_sparsity"] == int(0.6 * 176) / 176


def moving(**changes):
    masks = Masks({"a": torch.tensor([True, True, True, False, False])})
    sizes = {"a": torch.tensor([3.0, 1.0, 2.0, 0.0, 0.0])}
    options = {"weights": sizes, "scores": {"a": torch.tensor([0.0, 1.0, 5.0, 2.0, 3.0])}, "fraction": 0.7} | changes
    return masks.move(**options).weights["a"].tolist()


def test_masks_that_move():
    assert moving() == [True, False, True, False, True]  # the third comes back
    assert moving(fraction=0.0) == [True, True, True, False, False]
    with pytest.raises(ValueError, match=r"'scores' must hold tensors for \['a'\]"):
        moving(scores={"b": torch.zeros(5)})
    with pytest.raises(ValueError, match=r"'fraction' must be in \[0, 1\]"):
        moving(fraction=2.0)


def with_schedule(parameters, lr, weight_decay):
    made = clipped_adam(parameters, lr, weight_decay)
    return made, torch.optim.lr_scheduler.StepLR(made, 5)


def test_bad_input():
    data = random_graph()
    for options, message in [
        ({"method": FREE}, "'method' finds 3 tickets for a target: find_tickets"),
        ({"method": SUP, "training": Training(epochs=9)}, "'training.epochs' must be above 9, those of the cycles"),
        ({"method": SUP, "distillation": Distillation()}, "'method' 'SupTickets' learns from no teacher"),
        ({"method": SUP, "training": replace(TRAINING, optimizer=with_schedule)}, "must make no schedule"),
    ]:
        with pytest.raises(ValueError, match=message):
            find_ticket(MODELS["GCN"], data, weight_sparsity=0.5, **{"training": TRAINING, **options})
    for make, message in [
        (lambda: FreeTickets(members=0), "'members' must be at least 1"),
        (lambda: SupTickets(escape=1.5), r"'escape' must be in \[0, 1\]"),
        (lambda: Found((0, 0.5), trained=True), "what is 'trained' needs its weights as 'start'"),
        (lambda: Found((0, 0.5), weights=Fixed(), start={}, trained=True), "masks for 'weights' or None"),
    ]:
        with pytest.raises(ValueError, match=message):
            make()
