import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import GCN

from graphsparse.testing import random_graph
from graphsparse.training import Masks, build_model, fit


def model(seed=0):
    return build_model(lambda: GCN(8, 16, 2, 3), seed)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 0.99), st.floats(0, 0.99))
def test_counts_are_exact_and_sequences_are_nested(seed, first, second):
    low, high = sorted((first, second))
    generator = torch.Generator().manual_seed(seed)
    masks = Masks({"a": torch.ones(7, 5, dtype=torch.bool), "b": torch.ones(11, dtype=torch.bool)})
    draw = lambda: {"a": torch.rand(7, 5, generator=generator), "b": torch.rand(11, generator=generator)}  # noqa: E731
    one, scores = masks.prune(weights=draw(), weight_sparsity=low), draw()
    two = one.prune(weights=scores, weight_sparsity=high)
    for found, sparsity in ((one, low), (two, high)):
        assert sum(int((~mask).sum()) for mask in found.weights.values()) == int(np.floor(sparsity * 46))
    assert two.within(one)
    assert one.within(masks)
    # Of what the first step left, the lowest scores went.
    left = torch.cat([scores[name][one.weights[name]] for name in "ab"]).sort().values
    kept = torch.cat([scores[name][two.weights[name]] for name in "ab"]).sort().values
    assert torch.equal(kept, left[left.numel() - kept.numel() :])


def test_edges_are_the_undirected_pairs_of_networkx():
    edge_index = torch.tensor([[3, 0, 1, 2, 2, 0, 4, 1, 1], [0, 3, 2, 1, 2, 1, 4, 0, 2]])
    data = Data(x=torch.ones(5, 1), edge_index=edge_index)
    masks = Masks.everything(data=data)
    graph = nx.Graph(edge_index.t().tolist())
    graph.remove_edges_from(list(nx.selfloop_edges(graph)))
    pairs = sorted(tuple(sorted(edge)) for edge in graph.edges)
    assert masks.edges.numel() == len(pairs) == 3
    pruned = masks.prune(edges=torch.tensor([1.0, 0.0, 2.0]), edge_sparsity=0.34)
    assert pruned.edge_sparsity == pytest.approx(1 / 3)
    gone = pairs[1]
    kept = [u == v or tuple(sorted((u, v))) != gone for u, v in edge_index.t().tolist()]
    assert pruned.edge_mask(data).tolist() == kept


def test_weights_that_are_masked_are_zero_and_stay_zero():
    start = model()
    sizes = {name: parameter.abs() for name, parameter in start.named_parameters() if parameter.dim() > 1}
    masks = Masks.everything(start).prune(weights=sizes, weight_sparsity=0.7)
    state = masks.apply(start.state_dict())
    assert list(state) == list(start.state_dict())
    assert sum(int((value == 0).sum()) for name, value in state.items() if name in masks.weights) == int(0.7 * 176)
    start.load_state_dict(state)
    result = fit(start, random_graph(), epochs=5, project=lambda optimizer: masks.hold(start, optimizer))
    for name, mask in masks.weights.items():
        assert not result.state_dict[name][~mask].any()
        assert torch.equal(result.weight_masks[name], mask)


def test_a_live_zero_is_kept():
    """A kept weight whose value is 0 counts as kept: the mask is the truth, not the zeros."""
    start = model()
    masks = Masks.everything(start)
    with torch.no_grad():
        start.convs[0].lin.weight[0] = 0
    data = random_graph()
    data.x[:, :] = 0  # so that no weight of the first layer gets a gradient
    result = fit(start, data, epochs=2, weight_decay=0.0, project=lambda optimizer: masks.hold(start, optimizer))
    assert not result.state_dict["convs.0.lin.weight"][0].any()
    assert result.weight_masks["convs.0.lin.weight"].all()


def test_a_fingerprint_is_that_of_the_masks():
    first, second = Masks.everything(model(), random_graph()), Masks.everything(model(1), random_graph())
    assert first.fingerprint() == second.fingerprint()
    changed = first.prune(edges=torch.arange(first.edges.numel()).float(), edge_sparsity=0.1)
    assert changed.fingerprint() != first.fingerprint()


def test_bad_input():
    masks, data = Masks.everything(model(), random_graph()), random_graph()
    scores = {name: mask.float() for name, mask in masks.weights.items()}
    half = masks.prune(weights=scores, weight_sparsity=0.5)
    for call, message in (
        (lambda: Masks({"a": torch.ones(2)}), "the mask 'a' must be a bool tensor"),
        (lambda: masks.prune(weights={}, weight_sparsity=0.5), "'weights' must hold scores for .* .got ..."),
        (
            lambda: half.prune(weights=scores, weight_sparsity=0.2),
            "'weight_sparsity' 0.2 is below what is removed",
        ),
        (lambda: masks.prune(edges=torch.ones(3), edge_sparsity=0.5), "scores of the edges must have the shapes"),
        (lambda: Masks().prune(edges=torch.ones(3), edge_sparsity=0.5), "there is no graph"),
        (lambda: masks.apply({}), "'state_dict' has no 'convs.0.lin.weight'"),
        (lambda: masks.edge_mask(random_graph(30)), "undirected edges, but the masks are of"),
        (lambda: Masks().edge_mask(data), "but the masks are of None"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_single_numbers_of_any_shape_are_not_masked():
    model = nn.ParameterDict({"weight": torch.ones(2, 3), "scale": torch.ones(1, 1), "shift": torch.ones(1)})
    assert list(Masks.everything(model).weights) == ["weight"]
