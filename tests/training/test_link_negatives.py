import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphsparse.ops.pairs import pair_keys
from graphsparse.training import link_negatives as negatives
from graphsparse.training.link_negatives import UniformNegatives


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(2, 12), seed=st.integers(0, 999), share=st.floats(0, 1), directed=st.booleans())
def test_never_a_link_nor_a_self_loop(n, seed, share, directed):
    every = [(u, v) for u, v in itertools.product(range(n), repeat=2) if (u != v if directed else u < v)]
    keep = torch.rand(len(every), generator=generator(seed)) < share
    keep[seed % len(every)] = False  # at least one pair is left
    known = torch.tensor(every).t()[:, keep]
    if not directed:
        known = torch.where(torch.rand(known.size(1), generator=generator(seed)) < 0.5, known, known.flip(0))
    drawn = UniformNegatives(n, known, generator(seed), directed=directed)(100)
    links = set(map(tuple, known.t().tolist()))
    links |= set() if directed else {(v, u) for u, v in links}
    assert drawn.shape == (2, 100)
    for u, v in drawn.t().tolist():
        assert u != v
        assert (u, v) not in links


def test_all_non_links_are_equally_likely():
    known = torch.tensor([[0, 1], [1, 2]])
    drawn = UniformNegatives(5, known, generator())(40_000)
    count = torch.bincount(pair_keys(drawn, 5), minlength=25)
    free = [k for u, v in itertools.combinations(range(5), 2) if (k := 5 * u + v) not in (1, 7)]
    expected = 40_000 / len(free)
    chi = ((count[free] - expected) ** 2 / expected).sum()
    assert len(free) == 8
    assert chi < 24.3  # the 99.9 % quantile with 7 degrees of freedom


def test_nearly_complete_graph_without_end(monkeypatch):
    monkeypatch.setattr(negatives, "_ROUNDS", 1)
    known = torch.triu_indices(30, 30, 1)[:, 1:]
    drawn = UniformNegatives(30, known, generator())(5)
    assert drawn.t().tolist() == [[0, 1]] * 5


def test_complete_graph_is_refused():
    with pytest.raises(ValueError, match="'known' holds all 6 pairs of the 4 nodes"):
        UniformNegatives(4, torch.triu_indices(4, 4, 1), generator())


def test_follows_from_the_generator_and_is_fresh_each_time(monkeypatch):
    first, second = (UniformNegatives(50, torch.tensor([[0], [1]]), generator(3)) for _ in range(2))
    a, b = first(100), first(100)
    assert torch.equal(a, second(100))
    assert not torch.equal(a, b)
    monkeypatch.setattr(negatives, "_BLOCK", 7)
    assert second(100).shape == (2, 100)
    assert second(0).shape == (2, 0)
