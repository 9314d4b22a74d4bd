import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pairs_reference import pair_sets, some_pairs

from graphsparse.ops.pairs import pair_keys
from graphsparse.transfer.data import negatives
from graphsparse.transfer.data.negatives import (
    PairSpace,
    UniformNegatives,
    _triangle_row,
    degree_matched_negatives,
    draw_non_links,
    marked_first,
    turn_non_links,
)


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


@settings(max_examples=80, deadline=None)
@given(pair_sets(), st.integers(0, 5))
def test_matched_ones_are_no_links(case, seed):
    pairs, num_nodes = case
    exclude = torch.tensor([[0, 1], [1, 0]])
    found = degree_matched_negatives(pairs, num_nodes, exclude, seed)
    keys = pair_keys(found, num_nodes).tolist()
    assert (found[0] < found[1]).all()
    assert keys == sorted(set(keys))
    assert not set(keys) & set(pair_keys(torch.cat([pairs, exclude], 1), num_nodes).tolist())
    assert len(keys) <= pairs.size(1)
    degree, ours = (torch.bincount(ends.flatten(), minlength=num_nodes) for ends in (pairs, found))
    assert (ours <= degree).all()


def test_degrees_are_those_of_the_links():
    """A graph with degrees from 1 to hundreds, sparse enough for a partner to be found for nearly every end."""
    draw = generator()
    weight = torch.rand(5000, generator=draw).pow(-0.5)
    pairs = torch.multinomial(weight, 40_000, replacement=True, generator=draw).view(2, -1)
    pairs = torch.unique(pairs[:, pairs[0] != pairs[1]].sort(0).values, dim=1)
    found = degree_matched_negatives(pairs, 5000, seed=1)
    degree, ours = (torch.bincount(ends.flatten(), minlength=5000) for ends in (pairs, found))
    assert found.size(1) > 0.99 * pairs.size(1)
    assert degree.max() > 40
    assert (degree == ours).float().mean() > 0.98
    low = (degree == 1).nonzero().view(-1)
    assert torch.isin(low, found).float().mean() > 0.99


def test_matched_ones_follow_from_the_seed():
    pairs = some_pairs()
    first = degree_matched_negatives(pairs, 30, seed=4)
    assert first.size(1) > 60
    assert torch.equal(first, degree_matched_negatives(pairs, 30, seed=4))
    assert not torch.equal(first, degree_matched_negatives(pairs, 30, seed=5))


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


@settings(max_examples=60, deadline=None)
@given(st.lists(st.booleans(), max_size=9))
def test_every_pair_with_a_marked_end_has_one_number(marks):
    space = PairSpace(torch.tensor(marks, dtype=torch.bool))
    pairs = space.decode(torch.arange(space.size))
    assert space.holds(pairs).all()
    found = [tuple(pair) for pair in pairs.t().tolist()]
    every = itertools.combinations(range(len(marks)), 2)
    assert sorted(found) == sorted((u, v) for u, v in every if marks[u] or marks[v])


def test_rows_of_a_large_triangle():
    # around the first number of a row, where a root that is rounded the wrong way would show
    high = torch.tensor([2, 3, 10**4, 2**24 + 1, 3 * 10**6, 10**8])
    first = high * (high - 1) // 2
    assert torch.equal(_triangle_row(first), high)
    assert torch.equal(_triangle_row(first - 1), high - 1)
    assert torch.equal(_triangle_row(first + high - 1), high)


def draw(num_nodes, num, links=(), seed=0, marks=None):
    pairs = torch.tensor(list(links), dtype=torch.int64).view(-1, 2).t()
    space = PairSpace(torch.ones(num_nodes, dtype=torch.bool) if marks is None else marks)
    return draw_non_links(space, num, pair_keys(pairs, num_nodes).sort().values, seed=seed)


@pytest.mark.parametrize("num", [1, 20, 150, 180])
def test_different_pairs_and_no_links(num):
    links = [(i, i + 1) for i in range(10)]
    found = draw(20, num, links).t().tolist()
    assert len(set(map(tuple, found))) == num
    assert all(u < v and (u, v) not in links for u, v in found)


def test_the_last_one_is_found():
    # all pairs of 20 nodes but the links: listed, and not waited for
    links = [(i, i + 1) for i in range(19)]
    assert len(set(map(tuple, draw(20, 171, links).t().tolist()))) == 171
    with pytest.raises(ValueError, match="172 different non-links are needed, but the target has only 171 pairs"):
        draw(20, 172, links)
    complete = [(u, v) for u in range(20) for v in range(u + 1, 20) if (u, v) != (3, 7)]
    assert draw(20, 1, complete).tolist() == [[3], [7]]


@pytest.mark.parametrize(("num_nodes", "num"), [(8, 6), (8, 20)])
def test_all_pairs_are_drawn_alike(num_nodes, num):
    """Both ways of drawing: of 28 pairs, links have none of the draws and each other the same share."""
    marks = torch.arange(num_nodes) < 3
    links = [(0, 1), (2, 5)]
    free = [(u, v) for u in range(8) for v in range(u + 1, 8) if (u < 3) and (u, v) not in links]
    assert len(free) == 16
    num = min(num, 12)
    count = torch.zeros(8, 8)
    rounds = 2000
    for seed in range(rounds):
        u, v = draw(num_nodes, num, links, seed, marks)
        count[u, v] += 1
    expected = rounds * num / len(free)
    spread = (rounds * num / len(free) * (1 - num / len(free))) ** 0.5
    for u in range(8):
        for v in range(8):
            bound = 5 * spread if (u, v) in free else 0
            assert abs(count[u, v] - (expected if (u, v) in free else 0)) <= bound


def test_directions_of_stored_ones():
    space = PairSpace(torch.ones(30, dtype=torch.bool))
    drawn = draw_non_links(space, 300, torch.tensor([1, 2]), seed=0)
    marked = torch.arange(30) < 10
    links = torch.tensor([[0, 1, 2, 20, 25, 1], [25, 26, 27, 3, 26, 2]])  # of four with both kinds, three begin marked
    found = turn_non_links(drawn, links, marked, seed=0)
    assert {frozenset(pair) for pair in found.t().tolist()} == {frozenset(pair) for pair in drawn.t().tolist()}
    mixed = marked[found[0]] != marked[found[1]]
    first = marked[found[0, mixed]]
    assert abs(float(first.float().mean()) - 0.75) < 5 * (0.75 * 0.25 / first.numel()) ** 0.5
    alike = found[:, ~mixed]
    ascending = float((alike[0] < alike[1]).float().mean())
    assert abs(ascending - 0.5) < 5 * (0.25 / alike.size(1)) ** 0.5
    assert marked_first(links, marked) == (0.75, 4)
    assert marked_first(links[:, 4:], marked) == (0.0, 0)
    assert 0.3 < float((turn_non_links(drawn, links[:, 4:], marked, seed=0)[0] < 15).float().mean()) < 0.7


def test_stored_ones_follow_from_the_seed():
    one, again, other = (draw(500, 100, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert draw(500, 0).shape == (2, 0)
