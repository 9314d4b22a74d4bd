"""Rules for weights in `OneShot`: what they attach, and what a ticket says of it."""

import pytest
import torch
from models import MODELS
from torch_geometric.loader import RandomNodeLoader
from torch_geometric.nn import GCN

from graphsparse.testing import random_graph
from graphsparse.tickets import L0, NM, SET, Fixed, Gradual, OneShot, RigL, Ticket, find_ticket
from graphsparse.training import NodeTask, Training

SHORT = Training(epochs=20, lr=0.05)


def find(rule, sparsity=0.8, data=None, training=SHORT, make_model=MODELS["GCN"]):
    return find_ticket(
        make_model,
        random_graph() if data is None else data,
        weight_sparsity=sparsity,
        method=OneShot(None, rule),
        training=training,
    )


def attached(rule, steps=40):
    return rule(torch.optim.SGD(MODELS["GCN"]().parameters()), 0.8, steps=steps, seed=3)


def test_what_they_attach_follows_from_the_number_of_steps():
    ramp = attached(Gradual(end=0.75, scope="tensor"))
    assert (ramp.ramp_steps, ramp.freeze_after, ramp.scope) == (30, 30, "tensor")
    moving = attached(SET(every=5, fraction=0.5, end=0.5, ratio="uniform"))
    assert (moving.end, moving.every, moving.fraction, moving.growth, moving.seed) == (20, 5, 0.5, "random", 3)
    counts = [p.numel() - int(0.8 * p.numel()) for p in moving.parameters]
    assert [int(kept.sum()) for kept in moving.kept] == counts
    moving = attached(RigL(every=8, accumulate=4, moments="keep"))
    assert (moving.end, moving.growth, moving.accumulate, moving.moments) == (30, "gradient", 4, "keep")


def test_a_run_tells_the_number_of_steps():
    told = []

    class Told(Fixed):
        def __call__(self, optimizer, sparsity, *, steps, seed):
            told.append(steps)
            return super().__call__(optimizer, sparsity, steps=steps, seed=seed)

    class Endless:
        def __iter__(self):
            return iter([data])

    data = random_graph(200)
    for loader in (None, RandomNodeLoader(data, num_parts=3), Endless()):
        task = NodeTask(data, loader=loader)
        find(Told(), data=task, make_model=lambda: GCN(8, 16, 2, 3), training=Training(epochs=1))
    assert told == [1, 3, None]
    for rule in (Gradual(), SET(), RigL()):
        with pytest.raises(ValueError, match="needs the number of steps, and the loader of the task has no length"):
            attached(rule, steps=None)


def test_a_rule_that_does_nothing_is_another():
    fixed = find(Fixed())
    for rule in (SET(every=0), RigL(fraction=0.0)):
        ticket = find(rule)
        assert all(torch.equal(ticket.state_dict[name], value) for name, value in fixed.state_dict.items())


@pytest.mark.parametrize("rule", [SET(every=1, end=1.0), RigL(every=1, end=1.0)], ids=str)
def test_live_zeros_are_kept_in_the_file(rule, tmp_path):
    """Features that no node has give no gradient: what is grown there stays 0, and is kept nevertheless."""
    data = random_graph()
    data.x = torch.cat([data.x, torch.zeros(60, 24)], dim=1)
    make_model = lambda: GCN(32, 16, 2, 3)  # noqa: E731
    ticket = find(rule, data=data, make_model=make_model)
    total = sum(mask.numel() for mask in ticket.weight_masks.values())
    assert sum(int(mask.sum()) for mask in ticket.weight_masks.values()) == total - int(0.8 * total)
    if isinstance(rule, SET):
        assert any((ticket.state_dict[name][mask] == 0).any() for name, mask in ticket.weight_masks.items())
    ticket.save(tmp_path / "a.safetensors")
    again = Ticket.load(tmp_path / "a.safetensors")
    for name, mask in ticket.weight_masks.items():
        assert torch.equal(again.weight_masks[name], mask)
        assert torch.equal(again.state_dict[name], ticket.state_dict[name])


@pytest.mark.parametrize("steps", [3, 7, 20])
def test_no_epoch_of_a_ramp_becomes_the_ticket(steps):
    for sparsity in (0.5, 0.98):
        ticket = find(Gradual(end=0.6), sparsity, training=Training(epochs=steps, lr=0.05))
        assert ticket.metrics["best_epoch"] + 1 >= round(0.6 * steps)
        assert sum(int((~mask).sum()) for mask in ticket.weight_masks.values()) == int(sparsity * 176)


def test_n_of_m():
    ticket = find(NM(2, 4), 0.5)
    assert [mask.view(-1, 4).sum(1).unique().tolist() for mask in ticket.weight_masks.values()] == [[2], [2]]
    ticket = find(NM(1, 3), 2 / 3)  # 8 = 2 * 3 + 2 and 16 = 5 * 3 + 1 inputs: 5 and 10 of them are removed
    assert ticket.metrics["weight_sparsity"] == (16 * 5 + 3 * 10) / 176
    for sparsity in (0.0, 0.6):
        with pytest.raises(ValueError, match=r"'weight_sparsity' must be 0.5 for NM\(n=2, m=4\)"):
            find(NM(), sparsity)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: L0("layer"), ValueError, "'scope' must be"),
        (lambda: Fixed("tensor"), ValueError, "'ratio' must be"),
        (lambda: Gradual(0.0), ValueError, "'end' must be a finite number above 0.* and at most 1"),
        (lambda: Gradual(scope="layer"), ValueError, "'scope' must be"),
        (lambda: SET(every=2.5), TypeError, "'every' must be an integer"),
        (lambda: SET(end=2), ValueError, r"'end' must be in \[0, 1\]"),
        (lambda: RigL(ratio="tensor"), ValueError, "'ratio' must be"),
        (lambda: RigL(accumulate=20), ValueError, "'accumulate' must be at most 'every', which is 10"),
        (lambda: NM(5, 4), ValueError, "'n' must be at most 'm'"),
    ],
)
def test_bad_options(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_rules_can_be_written_out():
    for rule in (L0(), Fixed(), Gradual(), SET(every=3), RigL(accumulate=2), NM(1, 4)):
        assert eval(repr(rule)) == rule
        hash(rule)
