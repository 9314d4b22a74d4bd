"""Undirected edges by edge type, against sets of pairs in Python."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Data, HeteroData

from graphsparse.edges.graph_edges import GraphEdges, graph_edges_fingerprint, keep_entries
from graphsparse.testing import random_graph, random_hetero_graph

SIZES = {"a": 5, "b": 4}


def graph(**edges):
    data = HeteroData({kind: {"num_nodes": size} for kind, size in SIZES.items()})
    for name, pairs in edges.items():
        src, _, dst = kind = tuple(name.split("__"))
        data[kind].edge_index = torch.tensor(pairs, dtype=torch.int64).view(-1, 2).t()
        assert {src, dst} <= set(SIZES)
    return data


def reference(kind, edge_index):
    """The pair of every entry: nodes with their types, without direction; None for a loop."""
    found = []
    for u, v in edge_index.t().tolist():
        pair = frozenset([(kind[0], u), (kind[2], v)])
        found.append(pair if len(pair) == 2 else None)
    return found


PAIRS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=12)


@given(PAIRS, PAIRS, PAIRS, st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_edges_are_the_pairs_of_each_type_and_its_reverse(first, second, third, random):
    back = [(v, u) for u, v in second]
    random.shuffle(back)
    data = graph(a__to__a=first, b__to__a=second, a__back__b=back, a__other__b=third)
    edges = GraphEdges(data)
    reverse = ("a", "back", "b")
    # The other one is the reverse where it holds the same edges; the first that does is taken.
    assert edges.owner[reverse] == ("b", "to", "a")
    assert edges.owner["a", "other", "b"] == ("a", "other", "b")
    own = {}
    for kind in data.edge_types:
        own.setdefault(edges.owner[kind], set()).update(set(reference(kind, data[kind].edge_index)) - {None})
    assert edges.num_edges == {kind: len(pairs) for kind, pairs in own.items()}
    ids = edges.per_entry({kind: torch.arange(num) for kind, num in edges.num_edges.items()}, loops=-1)
    for kind in data.edge_types:
        shared = edges.owner[kind]
        named = {}
        for k in (k for k in data.edge_types if edges.owner[k] == shared):
            for pair, i in zip(reference(k, data[k].edge_index), ids[k].tolist(), strict=True):
                assert (i == -1) == (pair is None)
                assert named.setdefault(pair, i) == i  # both types say the same of a pair
        assert len(set(named.values())) == len(named)


def test_types_that_are_no_reverse_stay_apart():
    one_way = graph(a__to__a=[(0, 1), (1, 2)], a__also__a=[(0, 1), (1, 2)])
    assert len(GraphEdges(one_way).kinds) == 2  # the same direction
    both = graph(a__to__a=[(0, 1), (1, 2)], a__back__a=[(1, 0), (2, 1)], a__again__a=[(1, 0), (2, 1)])
    assert GraphEdges(both).kinds == [("a", "to", "a"), ("a", "again", "a")]  # one reverse each
    other = graph(a__to__b=[(0, 1)], b__back__a=[(1, 2)])
    assert len(GraphEdges(other).kinds) == 2


def test_entries_that_are_kept():
    data = random_hetero_graph()
    edges = GraphEdges(data)
    keep = {k: torch.arange(num) % 3 > 0 for k, num in edges.num_edges.items()}
    mask = edges.per_entry(keep, loops=True)
    sparse = keep_entries(data, mask)
    for kind in data.edge_types:
        assert torch.equal(sparse[kind].edge_index, data[kind].edge_index[:, mask[kind]])
        flipped = (kind[2], "rev_" + kind[1], kind[0])
        if flipped in data.edge_types:
            there = set(map(tuple, sparse[flipped].edge_index.flip(0).t().tolist()))
            assert there == set(map(tuple, sparse[kind].edge_index.t().tolist()))
    assert data.num_edges == random_hetero_graph().num_edges
    with pytest.raises(ValueError, match="'data' has .*undirected edges, but the masks are of"):
        edges.per_entry({k: v[:-1] for k, v in keep.items()}, loops=True)


def test_fingerprints_tell_graphs_apart():
    data = random_hetero_graph()
    same = graph_edges_fingerprint(data)
    assert same == graph_edges_fingerprint(random_hetero_graph())
    other = random_hetero_graph()
    kind = ("author", "writes", "paper")
    other[kind].edge_index = other[kind].edge_index.flip(1)
    assert graph_edges_fingerprint(other) != same
    renamed = HeteroData()
    for k in data.node_types:
        renamed[k].x = data[k].x
    for src, name, dst in data.edge_types:
        renamed[src, name + "2", dst].edge_index = data[src, name, dst].edge_index
    assert graph_edges_fingerprint(renamed) != same


def test_one_type_is_as_before():
    data = random_graph()
    edges = GraphEdges(data)
    assert edges.num_edges == data.num_edges // 2
    assert edges.per_entry(torch.arange(edges.num_edges), loops=-1).bincount().eq(2).all()
    with pytest.raises(ValueError, match="'data' must hold 'edge_index'"):
        GraphEdges(Data(num_nodes=3))
