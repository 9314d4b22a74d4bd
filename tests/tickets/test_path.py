"""The rounds of a method that prunes a little at a time."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from graphsparse.testing import random_graph
from graphsparse.tickets import TicketRun
from graphsparse.training import NodeTask, Training

TASK = NodeTask(random_graph(), call=lambda model, data: model(data.x))
SPARSITIES = st.lists(st.integers(0, 990).map(lambda n: n / 1000), min_size=3, max_size=3).map(sorted)


def path(targets, **shares):
    return TicketRun(lambda: nn.Linear(8, 3), TASK, targets, Training(epochs=1, fast=False)).path(**shares)


@given(SPARSITIES, SPARSITIES, st.floats(0.05, 1), st.floats(0.05, 1))
def test_every_round_takes_an_equal_share_and_the_last_one_hits_the_target(edges, weights, q_edges, q_weights):
    targets, before = list(zip(edges, weights, strict=True)), (0.0, 0.0)
    found = path(targets, edges=q_edges, weights=q_weights)
    assert [target for target, _ in found] == targets
    for target, rounds in found:
        assert (rounds[-1] if rounds else before) == target
        for i, share in enumerate((q_edges, q_weights)):
            left = [1 - step[i] for step in (before, *rounds)]
            assert left == sorted(left, reverse=True)
            ratios = [b / a for a, b in pairwise(left)]
            assert all(ratio >= (1 - share) * (1 - 1e-5) for ratio in ratios)
            assert all(math.isclose(ratio, ratios[0], rel_tol=1e-6) for ratio in ratios)
        if len(rounds) > 1:  # one round less would take more than a share
            fewer = 1 / (len(rounds) - 1)
            kept = [((1 - b) / (1 - a)) ** fewer for a, b in zip(before, target, strict=True)]
            assert kept[0] < 1 - q_edges or kept[1] < 1 - q_weights
        before = target


def test_published_rounds():
    """UGS takes 5 % of the edges and 20 % of the weights a round; a target on its path costs no further round."""
    cells = [(0.1875, 0.8988), (0.5759, 0.9831), (0.7881, 0.9823)]
    assert [len(path([cell], edges=0.05, weights=0.2)[0][1]) for cell in cells] == [11, 19, 31]
    targets = [(1 - 0.95**n, 1 - 0.8**n) for n in (4, 10, 14, 20)]
    assert [len(rounds) for _, rounds in path(targets, edges=0.05, weights=0.2)] == [4, 6, 4, 6]


def test_bad_paths():
    with pytest.raises(ValueError, match="edges 0.1 is below what is removed already, 0.2"):
        path([(0.2, 0.0), (0.1, 0.5)])
    for share in (0.0, 1.5, math.nan):
        with pytest.raises(ValueError, match="'weights' must be above 0 and at most 1"):
            path([], weights=share)
