import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pairs_reference import pair_sets, some_pairs

from graphsparse.transfer.propagation import emb_propagation
from graphsparse.transfer.propagation.emb_propagation import EmbPropagation


def expected_score(anchors, h, query, lam):
    """Turn every neighbouring pair so that the shared node is on the same side, and average."""
    u, v = query
    left, right = [], []
    for pair in anchors.t().tolist():
        for a, b in (pair, pair[::-1]):
            if sorted(pair) == sorted(query):
                continue
            if a == u:
                left.append(h[u])
                right.append(h[b])
            if b == v:
                left.append(h[a])
                right.append(h[v])
    if not left:
        return h[u] @ h[v]
    first = (1 - lam) * h[u] + lam * torch.stack(left).mean(0)
    return first @ ((1 - lam) * h[v] + lam * torch.stack(right).mean(0))


@settings(max_examples=60, deadline=None)
@given(pair_sets(), st.sampled_from([0.0, 0.3, 1.0]))
def test_equals_the_mean_of_turned_pairs(case, lam):
    anchors, num_nodes = case
    h = torch.randn(num_nodes, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(num_nodes))
    every = torch.cartesian_prod(torch.arange(num_nodes), torch.arange(num_nodes)).t()
    every = every[:, every[0] != every[1]]
    ours = EmbPropagation(lam).fit(anchors, h).score(every)
    expected = torch.stack([expected_score(anchors, h, query, lam) for query in every.t().tolist()])
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(EmbPropagation(lam).fit(anchors, h).score(every.flip(0)), ours)


def test_blocks_and_types(monkeypatch):
    anchors, h = some_pairs(), torch.randn(30, 8)
    queries = torch.stack([torch.randint(29, (100,)), torch.full((100,), 29)])
    emb = EmbPropagation(0.4).fit(anchors.int(), h)
    whole = emb.score(queries)
    assert whole.dtype == torch.float32
    monkeypatch.setattr(emb_propagation, "_BLOCK", 24)
    torch.testing.assert_close(emb.score(queries), whole)
    double = EmbPropagation(0.4).fit(anchors, h.double()).score(queries)
    torch.testing.assert_close(whole.double(), double, rtol=1e-5, atol=1e-5)


def test_bad_input():
    h = torch.randn(4, 2)
    with pytest.raises(ValueError, match=r"'lam' must be in \[0, 1\]"):
        EmbPropagation(1.5)
    with pytest.raises(RuntimeError, match="'fit' must be called first"):
        EmbPropagation().score(torch.tensor([[0], [1]]))
    with pytest.raises(TypeError, match="'h' must be a floating point tensor"):
        EmbPropagation().fit(torch.tensor([[0], [1]]), h.long())
    with pytest.raises(ValueError, match=r"'h' must be \[N, d\]"):
        EmbPropagation().fit(torch.tensor([[0], [1]]), h[:, 0])
    with pytest.raises(ValueError, match="'anchors' must not hold self-loops"):
        EmbPropagation().fit(torch.tensor([[1], [1]]), h)
    for end, message in ((4, "'queries' holds the index 4"), (0, "'queries' must hold no self-loops")):
        with pytest.raises(ValueError, match=message):
            EmbPropagation().fit(torch.tensor([[0], [1]]), h).score(torch.tensor([[0], [end]]))
