"""The recipe "add a rule for weights" of CONTRIBUTING: growth by momentum, with public names only."""

import inspect
from dataclasses import dataclass

from models import MODELS
from resuming import same_state

from graphsparse.testing import random_graph
from graphsparse.tickets import OneShot, RigL, find_ticket
from graphsparse.training import DropAndGrow, Training


class MomentumGrowth(DropAndGrow):
    """Grows where the mean gradient of many steps is largest, in units of its deviation."""

    def grow_score(self, parameter):
        state = self.optimizer.state[parameter]
        return (state["exp_avg"] / (state["exp_avg_sq"].sqrt() + 1e-8)).abs()


@dataclass(frozen=True)
class Momentum:
    """Exchange small weights for others by momentum.

    Source: Dettmers and Zettlemoyer, arXiv 1907.04840, without its redistribution among layers.
    """

    every: int = 10
    nested = False

    def __call__(self, optimizer, sparsity, *, steps, seed):
        return MomentumGrowth(optimizer, sparsity, end=steps * 3 // 4, every=self.every, seed=seed)


def test_how_short_it_is():
    assert sum(len(inspect.getsource(one).rstrip().splitlines()) for one in (MomentumGrowth, Momentum)) <= 20


def test_a_ticket_of_it():
    options = {"weight_sparsity": 0.9, "training": Training(epochs=40, lr=0.05)}
    ours, other = (
        find_ticket(MODELS["GCN"], random_graph(), method=OneShot("teddy", rule), **options)
        for rule in (Momentum(), RigL())
    )
    assert ours.config["OneShot"]["weights"] == "Momentum(every=10)"
    assert sum(int((~mask).sum()) for mask in ours.weight_masks.values()) == int(0.9 * 176)
    assert not same_state(ours.weight_masks, other.weight_masks)
    assert all(
        not value[~ours.weight_masks[name]].any()
        for name, value in ours.state_dict.items()
        if name in ours.weight_masks
    )
