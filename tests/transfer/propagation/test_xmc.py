import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pairs_reference import pair_sets, some_pairs

from graphsparse.transfer.propagation import xmc as module
from graphsparse.transfer.propagation.xmc import XMCPropagation


def dense_of(pairs, num_nodes, directed):
    dense = np.zeros((num_nodes, num_nodes))
    dense[pairs[0], pairs[1]] = 1
    return dense if directed else np.maximum(dense, dense.T)


def propagated(dense, alpha, rounds):
    """The recurrence of the method, with dense matrices."""
    degree = dense.sum(1, keepdims=True)
    walk = np.divide(dense, degree, out=np.zeros_like(dense), where=degree > 0)
    scores = dense
    for _ in range(rounds):
        scores = alpha * walk @ scores + (1 - alpha) * dense
    return scores


def expected_scores(pairs, num_nodes, queries, alpha, rounds, directed=False):
    """Scores from the dense closed form, query by query, each without its own link."""
    result = []
    for u, v in queries.t().tolist():
        dense = dense_of(pairs, num_nodes, directed)
        dense[u, v] = 0
        if not directed:
            dense[v, u] = 0
        scores = propagated(dense, alpha, rounds)
        result.append(scores[u, v] if directed else (scores[u, v] + scores[v, u]) / 2)
    return result


def every_pair(num_nodes):
    pairs = torch.cartesian_prod(torch.arange(num_nodes), torch.arange(num_nodes)).t()
    return pairs[:, pairs[0] != pairs[1]]


@settings(max_examples=80, deadline=None)
@given(pair_sets(), st.sampled_from([0.0, 0.5, 0.9, 1.0]), st.integers(0, 4), st.booleans(), st.integers(1, 3))
def test_equals_the_dense_closed_form(case, alpha, rounds, directed, rows):
    pairs, num_nodes = case
    queries = every_pair(num_nodes)
    queries = queries[:, torch.randperm(queries.size(1), generator=torch.Generator().manual_seed(rounds))]
    xmc = XMCPropagation(alpha, rounds, directed=directed).fit(pairs, num_nodes)
    expected = expected_scores(pairs, num_nodes, queries, alpha, rounds, directed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_ROWS", rows)
        patch.setattr(module, "_BLOCK", 5)
        np.testing.assert_allclose(xmc.score(queries), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("directed", [False, True])
def test_a_larger_graph_and_small_blocks(directed, monkeypatch):
    pairs, queries = some_pairs(40, 120), every_pair(40)
    expected = expected_scores(pairs, 40, queries, 0.7, 3, directed)
    whole = XMCPropagation(0.7, 3, directed=directed).fit(pairs, 40).score(queries)
    np.testing.assert_allclose(whole, expected, rtol=0, atol=1e-6)
    monkeypatch.setattr(module, "_SCRATCH", 300)
    monkeypatch.setattr(module, "_LARGE_SCRATCH", 300)
    again = XMCPropagation(0.7, 3, directed=directed).fit(pairs, 40).score(queries)
    torch.testing.assert_close(again, whole, rtol=0, atol=1e-6)


def test_common_neighbours():
    """One round with alpha 1: common neighbours, divided by the degree of either end."""
    pairs = some_pairs(25, 60)
    dense = dense_of(pairs, 25, False)
    queries = every_pair(25)
    queries = queries[:, torch.from_numpy(dense[queries[0], queries[1]] == 0)]
    common = (dense @ dense)[queries[0], queries[1]]
    inverse = 1 / np.maximum(dense.sum(1), 1)
    expected = common * (inverse[queries[0]] + inverse[queries[1]]) / 2
    ours = XMCPropagation(alpha=1.0, K=1).fit(pairs, 25).score(queries)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-6)


def test_queries_do_not_influence_one_another():
    pairs, queries = some_pairs(), every_pair(30)
    xmc = XMCPropagation().fit(pairs, 30)
    whole = xmc.score(queries)
    some = torch.randperm(queries.size(1))[:50]
    torch.testing.assert_close(xmc.score(queries[:, some]), whole[some], rtol=0, atol=1e-6)
    torch.testing.assert_close(xmc.score(queries.flip(0)), whole, rtol=0, atol=1e-6)
    torch.testing.assert_close(xmc.score(queries.repeat(1, 2)), whole.repeat(2), rtol=0, atol=1e-6)


def test_repetitions_directions_and_loops_of_the_graph():
    pairs, queries = some_pairs(), every_pair(30)
    plain = XMCPropagation().fit(pairs, 30).score(queries)
    loops = torch.arange(30).repeat(2, 1)
    messy = torch.cat([pairs.flip(0), loops, pairs, pairs], 1).int()
    assert torch.equal(XMCPropagation().fit(messy, 30).score(queries), plain)
    plain = XMCPropagation(directed=True).fit(pairs, 30).score(queries)
    messy = torch.cat([loops, pairs, pairs], 1)
    assert torch.equal(XMCPropagation(directed=True).fit(messy, 30).score(queries), plain)


def test_nothing_to_go_by():
    none = torch.empty(2, 0, dtype=torch.int64)
    for directed in (False, True):
        xmc = XMCPropagation(directed=directed).fit(none, 3)
        assert xmc.score(torch.tensor([[0, 1], [1, 2]])).tolist() == [0, 0]
        assert xmc.score(none).numel() == 0
        assert XMCPropagation(directed=directed).fit(none, 0).score(none).numel() == 0


@pytest.mark.parametrize(
    ("error", "match", "options"),
    [
        (ValueError, r"'alpha' must be in \[0, 1\]", {"alpha": 2.0}),
        (TypeError, "'K' must be an integer", {"K": 1.5}),
    ],
)
def test_bad_options(error, match, options):
    with pytest.raises(error, match=match):
        XMCPropagation(**options)


def test_bad_input():
    xmc = XMCPropagation()
    with pytest.raises(RuntimeError, match="'fit' must be called first"):
        xmc.score(torch.tensor([[0], [1]]))
    with pytest.raises(ValueError, match="'edge_index' holds the index 9"):
        xmc.fit(torch.tensor([[0], [9]]), 3)
    xmc.fit(torch.tensor([[0], [1]]), 3)
    for end, message in ((3, "'queries' holds the index 3"), (0, "'queries' must hold no self-loops")):
        with pytest.raises(ValueError, match=message):
            xmc.score(torch.tensor([[0], [end]]))
    with pytest.raises(TypeError, match="'queries' must be a dense int64"):
        xmc.score(torch.tensor([[0.0], [1.0]]))
