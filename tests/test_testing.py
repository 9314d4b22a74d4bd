import pytest
import torch

from graphsparse.testing import assert_undirected, random_graph, toy_edge_index


def test_toy_graph_is_the_documented_one():
    edges = {tuple(e) for e in toy_edge_index().t().tolist()}
    assert edges == {(u, v) for a, b in [(0, 1), (0, 2), (0, 3), (3, 4), (1, 2)] for u, v in [(a, b), (b, a)]}


def test_random_graph_is_seeded_undirected_and_split():
    first, again, other = random_graph(), random_graph(), random_graph(seed=1)
    assert torch.equal(first.edge_index, again.edge_index)
    assert torch.equal(first.x, again.x)
    assert not torch.equal(first.x, other.x)
    assert first.is_undirected()
    assert (first.train_mask.int() + first.val_mask.int() + first.test_mask.int() == 1).all()


def test_assert_undirected():
    assert_undirected(toy_edge_index())
    with pytest.raises(AssertionError, match=r"\(0, 1\)"):
        assert_undirected(torch.tensor([[0], [1]]))
