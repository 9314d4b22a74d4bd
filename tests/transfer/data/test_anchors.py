import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pairs_reference import pair_sets, some_pairs

from graphsparse.transfer.data.anchors import degree_matched_negatives


def keys(pairs, num_nodes):
    return (pairs.min(0).values * num_nodes + pairs.max(0).values).tolist()


@settings(max_examples=80, deadline=None)
@given(pair_sets(), st.integers(0, 5), st.booleans())
def test_never_a_link(case, seed, swap_ends):
    pairs, num_nodes = case
    exclude = torch.tensor([[0, 1], [1, 0]])
    negatives = degree_matched_negatives(pairs, num_nodes, exclude, seed, swap_ends=swap_ends)
    found = keys(negatives, num_nodes)
    assert (negatives[0] < negatives[1]).all()
    assert found == sorted(set(found))
    assert not set(found) & set(keys(torch.cat([pairs, exclude], 1), num_nodes))
    assert len(found) <= pairs.size(1)
    degree, ours = (torch.bincount(ends.flatten(), minlength=num_nodes) for ends in (pairs, negatives))
    assert (ours <= degree).all()


def test_degrees_are_those_of_the_links():
    """A graph with degrees from 1 to hundreds, sparse enough for a partner to be found for nearly every end."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.rand(5000, generator=generator).pow(-0.5)
    pairs = torch.multinomial(weight, 40_000, replacement=True, generator=generator).view(2, -1)
    pairs = torch.unique(pairs[:, pairs[0] != pairs[1]].sort(0).values, dim=1)
    negatives = degree_matched_negatives(pairs, 5000, seed=1)
    degree, ours = (torch.bincount(ends.flatten(), minlength=5000) for ends in (pairs, negatives))
    assert negatives.size(1) > 0.99 * pairs.size(1)
    assert degree.max() > 40
    assert (degree == ours).float().mean() > 0.98
    low = (degree == 1).nonzero().view(-1)
    assert torch.isin(low, negatives).float().mean() > 0.99


def test_seed_and_order():
    pairs = some_pairs()
    first = degree_matched_negatives(pairs, 30, seed=4)
    assert first.size(1) > 60
    assert torch.equal(first, degree_matched_negatives(pairs, 30, seed=4))
    assert not torch.equal(first, degree_matched_negatives(pairs, 30, seed=5))


def test_sides_of_a_bipartite_graph_are_kept():
    generator = torch.Generator().manual_seed(0)
    pairs = torch.stack(
        [torch.randint(20, (60,), generator=generator), torch.randint(20, 40, (60,), generator=generator)]
    )
    kept = degree_matched_negatives(pairs, 40, seed=2, swap_ends=False)
    assert kept.size(1) > 40
    assert (kept[0] < 20).all()
    assert (kept[1] >= 20).all()
    assert (degree_matched_negatives(pairs, 40, seed=2)[0] >= 20).any()


def test_a_full_graph_has_none():
    pairs = torch.combinations(torch.arange(5)).t()
    assert degree_matched_negatives(pairs, 5).shape == (2, 0)
    assert degree_matched_negatives(pairs[:, :0], 5).shape == (2, 0)


@pytest.mark.parametrize(
    ("error", "match", "arguments"),
    [
        (TypeError, "'positives' must be a dense int64", (torch.rand(2, 3), 5)),
        (ValueError, "'positives' holds the index 7", (torch.tensor([[0], [7]]), 5)),
        (ValueError, r"'exclude' must have shape \[2, E\]", (torch.tensor([[0], [1]]), 5, torch.tensor([0, 1]))),
        (ValueError, "'seed' must be between", (torch.tensor([[0], [1]]), 5, None, -1)),
    ],
)
def test_bad_input(error, match, arguments):
    with pytest.raises(error, match=match):
        degree_matched_negatives(*arguments)
