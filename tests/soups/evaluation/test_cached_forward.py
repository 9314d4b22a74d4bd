import gc
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from soup_models import CACHED, two_states
from torch_geometric.nn import GCN, GraphConv, SGConv

from graphsparse.soups.evaluation import cached_forward
from graphsparse.soups.evaluation.evaluator import Evaluator
from graphsparse.soups.states.states import mix
from graphsparse.testing import random_graph

RATIOS = [i / 19 for i in reversed(range(19))]


def both(model, data, **options):
    return [Evaluator(model, data, mode=mode, batch_norm="keep", **options) for mode in ("plain", "cached")]


@pytest.mark.parametrize("name", CACHED)
def test_counts_equal_those_of_whole_passes(name, monkeypatch):
    monkeypatch.setattr(cached_forward, "ROWS", 50)  # several blocks of rows
    data = random_graph(400)
    for seed in (0, 1):
        model, first, second = two_states(CACHED[name], seed)
        plain, cached = both(model, data)
        assert cached.mode == "cached"
        assert torch.allclose(cached.logits(first), plain.logits(first), rtol=1e-4, atol=1e-4)
        expected = plain.scan(first, second, RATIOS)
        assert cached.scan(first, second, RATIOS) == expected
        assert cached.score(second) == plain.score(second)
        halves = [evaluator.halves(3)[1] for evaluator in (plain, cached)]
        assert halves[1].scan(second, first, RATIOS) == halves[0].scan(second, first, RATIOS)


@pytest.mark.parametrize("name", ["GCN 3", "SAGE 2", "GIN", "GAT"])
def test_few_mixtures_at_a_time_give_the_same(name, monkeypatch):
    data = random_graph(300)
    model, first, second = two_states(CACHED[name])
    cached = both(model, data)[1]
    expected = cached.scan(first, second, RATIOS)
    monkeypatch.setattr(cached_forward, "WIDE", 40_000)
    assert 1 <= cached._forward._side_by_side() < 19
    assert cached.scan(first, second, RATIOS) == expected


@given(st.integers(0, 1000), st.floats(0, 1))
@settings(max_examples=15, deadline=None)
def test_nothing_above_the_floor_is_given_up(seed, floor):
    data = random_graph(150, seed=seed)
    model, first, second = two_states(CACHED["GCN 2"], seed)
    plain, cached = both(model, data)
    rows, cached_forward.ROWS = cached_forward.ROWS, 8
    try:
        found = cached.scan(first, second, RATIOS, floor)
    finally:
        cached_forward.ROWS = rows
    for ratio, score in zip(RATIOS, found, strict=True):
        expected = plain.score(mix(first, second, ratio))
        assert score == expected or (score is None and expected <= floor)


def test_candidates_are_given_up():
    data = random_graph(400)
    model, first, second = two_states(CACHED["GCN 2"])
    cached = both(model, data)[1]
    rows, cached_forward.ROWS = cached_forward.ROWS, 8
    try:
        found = cached.scan(first, second, RATIOS, 0.99)
    finally:
        cached_forward.ROWS = rows
    assert None in found


def test_a_soup_that_has_changed_in_place_is_seen():
    data = random_graph(200)
    model, first, second = two_states(CACHED["SAGE 2"])
    plain, cached = both(model, data)
    cached.scan(first, second, RATIOS)
    for value in first.values():
        value.neg_()
    assert cached.scan(first, second, RATIOS) == plain.scan(first, second, RATIOS)


def test_no_state_is_held_afterwards():
    data = random_graph(200)
    model, first, second = two_states(CACHED["SAGE 2"])
    cached = both(model, data)[1]
    for _ in range(2):
        cached.scan(first, second, RATIOS)
    cached.logits(second)
    seen = [weakref.ref(value) for state in (first, second) for value in state.values()]
    del first, second
    gc.collect()
    assert not [ref for ref in seen if ref() is not None]


@pytest.mark.parametrize(
    "layer", [lambda: GCN(8, 16, 2, 3), lambda: GCN(8, 16, 2, 3, normalize=False), lambda: SGConv(8, 3, K=2)]
)
def test_edge_weights_and_order(layer):
    data = random_graph(300)
    order = torch.randperm(data.num_edges)
    data.edge_index = data.edge_index[:, order]
    data.edge_weight = torch.rand(data.num_edges)
    model, first, second = two_states(layer)
    plain, cached = both(model, data)
    assert torch.allclose(cached.logits(first), plain.logits(first), rtol=1e-4, atol=1e-4)
    assert cached.scan(first, second, RATIOS) == plain.scan(first, second, RATIOS)


@pytest.mark.parametrize("aggr", ["add", "mean"])
def test_weights_of_graph_conv(aggr):
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = GraphConv(8, 8, aggr=aggr), GraphConv(8, 3, aggr=aggr)

        def forward(self, x, edge_index, edge_weight):
            return self.last(self.first(x, edge_index, edge_weight).relu(), edge_index, edge_weight)

    data = random_graph(200)
    data.edge_weight = torch.rand(data.num_edges)
    model, first, _ = two_states(Net)
    plain, cached = both(model, data)
    assert torch.allclose(cached.logits(first), plain.logits(first), rtol=1e-4, atol=1e-4)


def test_the_features_of_the_graph_are_never_written_to():
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = GraphConv(8, 3)
            self.last = GraphConv(3, 3)

        def forward(self, x, edge_index):
            hidden = self.conv(x, edge_index)
            x.zero_()
            return self.last(hidden, edge_index) + x[:, :3]

    data = random_graph()
    before = data.x.clone()
    model, first, _ = two_states(Net)
    with pytest.raises(ValueError, match="writes into the features"):
        Evaluator(model, data, mode="cached")
    plain = Evaluator(model, data)
    assert plain.score(first) == plain.score(first)
    assert torch.equal(data.x, before)


@pytest.mark.parametrize("rows", [50, 4096])
def test_words_are_multiplied_as_such_before_the_first_layer(rows, monkeypatch):
    """A linear layer at the front runs again for every layer; only its first calls on a block are dense."""
    data = random_graph(400)
    data.x = (torch.rand(400, 8, generator=torch.Generator().manual_seed(0)) < 0.05).float()
    monkeypatch.setattr(cached_forward, "ROWS", rows)
    seen, real = [], cached_forward.use_faster

    def watched(model):
        real(model)
        model.first.register_forward_pre_hook(lambda module, args: seen.append(args[0]))

    monkeypatch.setattr(cached_forward, "use_faster", watched)
    model, first, second = two_states(CACHED["GCNII"])
    plain, cached = both(model, data)
    del seen[:]
    assert cached.scan(first, second, RATIOS) == plain.scan(first, second, RATIOS)
    assert len(seen) > 4 * 19
    assert len({id(x) for x in seen}) <= len(range(0, 400, rows)) + 4  # the last block of a layer is its own
