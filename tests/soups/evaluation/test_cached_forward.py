import gc
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from soup_models import CACHED, two_states
from torch_geometric.data import Data
from torch_geometric.nn import GAT, GCN, GraphSAGE

from graphsparse.nn import accelerate
from graphsparse.soups.evaluation import cached_forward
from graphsparse.soups.evaluation.evaluator import Evaluator
from graphsparse.soups.states import mix
from graphsparse.testing import random_graph

RATIOS = [i / 19 for i in reversed(range(19))]


def both(model, data, **options):
    return [Evaluator(model, data, mode=mode, batch_norm="keep", **options) for mode in ("plain", "cached")]


@pytest.mark.parametrize("name", CACHED)
def test_counts_equal_those_of_whole_passes(name, monkeypatch):
    monkeypatch.setattr(cached_forward, "ROWS", 50)  # several blocks of rows
    data = random_graph(400)
    model, first, second = two_states(CACHED[name])
    plain, cached = both(model, data)
    assert cached.mode == "cached"
    assert torch.allclose(cached.logits(first), plain.logits(first), rtol=1e-4, atol=1e-4)
    expected = plain.scan(first, second, RATIOS)
    assert cached.scan(first, second, RATIOS) == expected
    assert cached.score(second) == plain.score(second)
    halves = [evaluator.halves(3)[1] for evaluator in (plain, cached)]
    assert halves[1].scan(second, first, RATIOS[::3]) == halves[0].scan(second, first, RATIOS[::3])


def test_a_bias_that_each_node_sends():
    data = random_graph(200)

    def make():
        model = GCN(8, 16, 2, 3)
        model.convs[0].lin = torch.nn.Linear(8, 16)
        return model

    model, first, second = two_states(make)
    plain, cached = both(model, data)
    assert cached.mode == "cached"
    assert torch.allclose(cached.logits(first), plain.logits(first), rtol=1e-4, atol=1e-4)
    assert cached.scan(first, second, RATIOS) == plain.scan(first, second, RATIOS)


@pytest.mark.parametrize("name", ["GCN 3", "SAGE 2", "GIN", "GAT"])
def test_few_mixtures_at_a_time_give_the_same(name, monkeypatch):
    data = random_graph(300)
    model, first, second = two_states(CACHED[name])
    cached = both(model, data)[1]
    expected = cached.scan(first, second, RATIOS)
    monkeypatch.setattr(cached_forward, "WIDE", 40_000)
    assert 1 <= cached._forward._side_by_side() < 19 or name == "GAT"
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
    "make_model",
    [
        lambda: GCN(8, 16, 2, 3),
        lambda: GCN(8, 16, 2, 3, normalize=False),
        lambda: accelerate(GraphSAGE(8, 16, 2, 3)),
        lambda: accelerate(GAT(8, 16, 2, 3)),
    ],
)
def test_edge_weights_and_order(make_model):
    data = random_graph(300)
    order = torch.randperm(data.num_edges)
    data.edge_index = data.edge_index[:, order]
    data.edge_weight = torch.rand(data.num_edges)
    model, first, second = two_states(make_model)
    plain, cached = both(model, data)
    assert torch.allclose(cached.logits(first), plain.logits(first), rtol=1e-4, atol=1e-4)
    assert cached.scan(first, second, RATIOS) == plain.scan(first, second, RATIOS)


@given(
    num_nodes=st.integers(3, 40),
    num_edges=st.integers(0, 90),
    seed=st.integers(0, 1000),
    name=st.sampled_from(["GCN 2", "GCN, jk cat", "SAGE 2", "GIN", "GAT", "GCNII", "layers beside each other"]),
)
@settings(max_examples=25, deadline=None)
def test_any_graph(num_nodes, num_edges, seed, name):
    generator = torch.Generator().manual_seed(seed)
    data = Data(
        x=torch.randn(num_nodes, 8, generator=generator),
        edge_index=torch.randint(num_nodes, (2, num_edges), generator=generator),
        y=torch.randint(3, (num_nodes,), generator=generator),
        val_mask=torch.rand(num_nodes, generator=generator) < 0.4,
    )
    data.val_mask[0] = True
    model, first, second = two_states(CACHED[name], seed)
    plain, cached = both(model, data)
    for state in (first, mix(first, second, 0.3)):
        torch.testing.assert_close(cached.logits(state), plain.logits(state), rtol=1e-4, atol=1e-4)
    keep = lambda logits, y: kept.append(logits) or 0.0  # noqa: E731
    kept = []
    for evaluator in both(model, data, metric=keep):
        evaluator.scan(first, second, [0.8, 0.3])
    for one, other in zip(kept[:2], kept[2:], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_words_are_multiplied_as_such_before_the_first_layer(monkeypatch):
    """A linear layer at the front sees the same tensor each time, once for each state and not for each mixture."""
    data = random_graph(400)
    data.x = (torch.rand(400, 8, generator=torch.Generator().manual_seed(0)) < 0.05).float()
    model, first, second = two_states(CACHED["GCNII"])
    plain, cached = both(model, data)
    seen, run = [], cached_forward.Step.run
    monkeypatch.setattr(
        cached_forward.Step, "run", lambda step, *given: seen.append((step, given[0])) or run(step, *given)
    )
    assert cached.scan(first, second, RATIOS) == plain.scan(first, second, RATIOS)
    inputs = [x for step, x in seen if step.inputs == (0,)]
    assert len(inputs) == 2
    assert inputs[0] is inputs[1]
