import pytest
import torch

from graphsparse.transfer.data.link_code import LinkCode
from graphsparse.transfer.data.pair_space import PairSpace
from graphsparse.transfer.data.split_negatives import draw_non_links, marked_first, turn_non_links


def draw(num_nodes, num, links=(), seed=0, marks=None):
    code = LinkCode(num_nodes, num_nodes)
    pairs = torch.tensor(list(links), dtype=torch.int64).view(-1, 2).t()
    space = PairSpace(torch.ones(num_nodes, dtype=torch.bool) if marks is None else marks)
    return draw_non_links(space, num, code, code.encode(pairs).sort().values, seed=seed)


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


def test_directions():
    code = LinkCode(30, 30, directed=True)
    space = PairSpace(torch.ones(30, dtype=torch.bool))
    drawn = draw_non_links(space, 300, code, torch.tensor([1, 2]), seed=0)
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


def test_seeds():
    one, again, other = (draw(500, 100, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert draw(500, 0).shape == (2, 0)
