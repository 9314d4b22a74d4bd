"""The recipe "add a projection" of CONTRIBUTING: RigL, outside the package, with public names only."""

import inspect
import math

import pytest
import torch
from models import MODELS
from resuming import Kill, assert_same_result, kill_in, no_kill

from graphsparse.testing import random_graph
from graphsparse.training import DropAndGrow, FixedMask, HeldMask, StepProjection, build_model, fit


class RigL(HeldMask):
    """Every 10 steps drop the smallest of the kept weights, and grow as many where the gradient is largest."""

    every, fraction, end = 10, 0.3, 150

    @torch.no_grad()
    def project(self):
        due = self.num_steps % self.every == 0 and 0 < self.num_steps < self.end
        share = self.fraction / 2 * (1 + math.cos(math.pi * self.num_steps / self.end))
        for i, weight in enumerate(self.parameters if due else []):
            old, slope = self.kept[i].flatten(), weight.grad.abs().flatten()
            size, moved = weight.abs().flatten().masked_fill(~old, torch.inf), int(share * old.sum())
            stay = old.index_fill(0, size.argsort(stable=True)[:moved], False)
            grow = slope.masked_fill(stay, -1).argsort(stable=True, descending=True)[:moved]
            self.kept[i] = stay.index_fill(0, grow, True).view_as(weight)
            for value in (weight, *self.optimizer.state[weight].values()):  # with its moments, it starts from 0
                if value.shape == weight.shape:
                    value[self.kept[i] & ~old.view_as(weight)] = 0
        super().project()

    def state(self):
        return {**super().state(), "kept": list(self.kept)}

    def load_state(self, state):
        self.num_steps, self.kept = state["num_steps"], state["kept"]


def start(optimizer):
    """RigL from a random mask of 90 %."""
    mask = FixedMask(optimizer, 0.9)
    mask.remove()
    return RigL(optimizer, mask.kept)


def steps(number):
    """Train by hand and yield the projection after every step."""
    data, model = random_graph(), MODELS["GCN"]()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    projection = start(optimizer)
    for _ in range(number):
        optimizer.zero_grad()
        logits = model(data.x, data.edge_index)
        torch.nn.functional.cross_entropy(logits[data.train_mask], data.y[data.train_mask]).backward()
        before = [parameter.detach().clone() for parameter in projection.parameters]
        kept = [mask.clone() for mask in projection.kept]
        optimizer.step()
        yield projection, before, kept


def test_how_short_it_is():
    assert len(inspect.getsource(RigL).rstrip().splitlines()) <= 25
    assert issubclass(RigL, StepProjection)


def test_counts_are_exact_after_every_step():
    sizes = [10, 8]  # of 8 * 16 and 16 * 3 weights 18 are kept, in the ratio of 8 + 16 to 16 + 3
    moves = 0
    for projection, _, kept in steps(200):
        assert [int(mask.sum()) for mask in projection.support()] == sizes
        for parameter, mask in zip(projection.parameters, projection.support(), strict=True):
            assert not parameter[~mask].any()
        moved = [not torch.equal(old, new) for old, new in zip(kept, projection.kept, strict=True)]
        due = projection.num_steps % 10 == 0 and projection.num_steps < 150
        assert due or not any(moved)
        moves += any(moved)
    assert moves > 5


def test_what_has_grown_starts_from_nothing():
    for projection, _, kept in steps(20):
        for parameter, old, new in zip(projection.parameters, kept, projection.kept, strict=True):
            grown = new & ~old
            assert not parameter[grown].any()
            assert not projection.optimizer.state[parameter]["exp_avg"][grown].any()


def test_it_trains_goes_on_after_a_kill_and_says_what_it_kept(tmp_path):
    data = random_graph()

    def run(**options):
        return fit(build_model(MODELS["GCN"], 0), data, epochs=40, project=start, **options)

    whole = run(after_step=[no_kill])
    assert sum(int(mask.sum()) for mask in whole.weight_masks.values()) == 10 + 8
    with pytest.raises(Kill):
        run(after_step=[kill_in(25)], checkpoint=tmp_path / "a.pt", checkpoint_every=4)
    assert_same_result(run(after_step=[no_kill], checkpoint=tmp_path / "a.pt"), whole)


def test_it_is_that_of_the_package():
    ours, theirs = (
        fit(build_model(MODELS["GCN"], 0), random_graph(), epochs=60, project=project)
        for project in (start, lambda optimizer: DropAndGrow(optimizer, 0.9, end=150))
    )
    assert_same_result(ours, theirs)
