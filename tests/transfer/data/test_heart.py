"""Hard non-links: the highest by resource allocation and PageRank, against networkx and a loop."""

import networkx as nx
import numpy as np
import pytest
import torch
from torch_geometric.data import Data
from transfer_pairs import small_pair

from graphsparse.testing import random_graph
from graphsparse.transfer import BASELINES, LinkSplit, SharedNodePair, assert_no_leak, split_links
from graphsparse.transfer.data import reach
from graphsparse.transfer.data.reach import Reach


def as_graph(edges, num_nodes):
    found = nx.Graph()
    found.add_nodes_from(range(num_nodes))
    found.add_edges_from(edges.t().tolist())
    return found


def hardness(train, links, num_nodes, u):
    """The rank of each free partner of u: the better of two, then the other one; a node out of reach is the last."""
    free = [x for x in range(num_nodes) if x != u and not links.has_edge(u, x)]
    allocation = {x: value for _, x, value in nx.resource_allocation_index(train, [(u, x) for x in free])}
    walk = nx.pagerank(train, alpha=0.85, personalization={u: 1}, tol=1e-12, max_iter=1000)
    ranks = []
    most = max(degree for _, degree in train.degree)
    for score, error in ((allocation, 1e-9), (walk, 1e-5 * most)):
        higher = {x: sum(score[y] > score[x] + error for y in free) for x in free}
        level = {x: sum(abs(score[y] - score[x]) <= error for y in free) - 1 for x in free}
        out = num_nodes
        ranks.append({x: (higher[x], higher[x] + level[x]) if score[x] > 1e-12 else (out, out) for x in free})
    return {x: [min(rank[x][end] for rank in ranks) for end in (0, 1)] for x in free}


@pytest.mark.parametrize("entries", [None, 100])
def test_the_hardest_are_taken(entries, monkeypatch):
    if entries is not None:
        monkeypatch.setattr(reach, "_ENTRIES", entries)
        monkeypatch.setattr(reach, "_FIRST", 3)
    data, num_neg = random_graph(80), 7
    split = split_links(data, (0.7, 0.15, 0.15), num_neg=num_neg, negatives="heart")
    train, links = as_graph(split.train, 80), as_graph(data.edge_index, 80)
    for part in ("val", "test"):
        held, rest = getattr(split, part), getattr(split, f"{part}_neg").view(2, -1, num_neg)
        for i, (u, v) in enumerate(held.t().tolist()):
            pairs = rest[:, i].t().tolist()
            for kept, some in ((u, pairs[:4]), (v, pairs[4:])):  # the first end has the odd one
                assert all(kept in pair for pair in some)
                taken = {sum(pair) - kept for pair in some}
                assert len(taken) == len(some)
                rank = hardness(train, links, 80, kept)
                assert taken <= set(rank)
                # Of equal scores any is as hard: no node left out is better than one taken, whatever their order.
                left = [rank[x][1] for x in rank if x not in taken]
                assert max(rank[x][0] for x in taken) <= min(left)


def test_push_is_pagerank_within_its_tolerance():
    data = random_graph(80)
    train = as_graph(data.edge_index, 80)
    for tol in (1e-2, 1e-4, 1e-6):
        rows = Reach(data.edge_index, 80).walk(np.arange(80), tol=tol).toarray()
        for u in (0, 7, 40):
            expected = nx.pagerank(train, personalization={u: 1}, tol=1e-13, max_iter=1000)
            missing = np.array([expected[v] for v in range(80)]) - rows[u]
            assert missing.min() > -1e-6
            assert (missing <= tol * np.array([max(train.degree(v), 1) for v in range(80)]) + 1e-6).all()
    assert np.array_equal(Reach(torch.empty(2, 0).long(), 3).walk(np.array([1])).nonzero()[1], [1])


def test_what_no_heuristic_reaches_is_drawn():
    """Two nodes with one link to be held out, and many that stand alone."""
    links = torch.tensor([[0, 2, 4], [1, 3, 5]])
    data = Data(edge_index=links, num_nodes=400)
    splits = [split_links(data, (0, 0, 1), seed, num_neg=40, negatives="heart") for seed in (0, 0, 1)]
    assert splits[0].hash == splits[1].hash != splits[2].hash
    rest = splits[0].test_neg.view(2, 3, 40)
    for i, link in enumerate(splits[0].test.t().tolist()):
        for kept, part in zip(link, (rest[:, i, :20], rest[:, i, 20:]), strict=True):
            others = (part.sum(0) - kept).tolist()
            assert len(set(others)) == 20
            assert not {*link} & {*others}
    drawn = torch.cat([split.test_neg.flatten() for split in splits[1:]])
    drawn = drawn[drawn > 5]
    assert 150 < float(drawn.double().mean()) < 255  # of 6 to 399
    with pytest.raises(ValueError, match="node 0 has only 398 of 400 partners that are no link .* with 'num_neg'"):
        split_links(data, (0, 0, 1), num_neg=800, negatives="heart")
    whole = split_links(data, (0, 0, 1), num_neg=2 * 398, negatives="heart")
    assert whole.test_neg[:, :398].sum(0).unique().numel() == 398


@pytest.mark.parametrize("directed", [False, True])
def test_of_the_kind_of_the_link(directed):
    """With a source that some nodes are in, and with two sides."""
    pair, _ = small_pair(directed=directed)
    split = split_links(pair, num_neg=6, negatives="heart")
    assert_no_leak(split, pair, graph=pair.graph("union", without=split))
    only = ~pair.shared
    links = torch.cat([split.val, split.test], 1).repeat_interleave(6, 1)
    rest = torch.cat([split.val_neg, split.test_neg], 1)
    if directed:  # the end that is kept stays in its place
        assert bool((links == rest).any(0).all())
        assert torch.equal(only[rest], only[links])
    assert torch.equal(only[rest].sum(0), only[links].sum(0))
    bought = (torch.rand(40, 30, generator=torch.Generator().manual_seed(0)) < 0.2).nonzero().t()
    edges = bought + torch.tensor([[0], [40]])
    shop = SharedNodePair([], Data(edge_index=edges, num_nodes=70), directed=directed)
    split = split_links(shop, num_neg=6, negatives="heart")
    assert_no_leak(split, shop)
    for pairs in (split.val_neg, split.test_neg):
        assert bool((pairs[0] < 40).all() and (pairs[1] >= 40).all())


def test_files_and_harder_than_uniform(tmp_path):
    data = random_graph(150)
    reports = {}
    for negatives in ("uniform", "heart"):
        split = split_links(data, (0.8, 0.1, 0.1), num_neg=20, negatives=negatives)
        split.save(tmp_path / "split")
        again = LinkSplit.load(tmp_path / "split", data)
        assert again.hash == split.hash
        reports[negatives] = again.report(BASELINES["resource_allocation"](data, again))["mrr"]
    assert reports["heart"] < 0.7 * reports["uniform"]
