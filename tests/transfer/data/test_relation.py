import pytest
import torch
from intersecting import bipartite_pair, plant

from graphsparse.transfer.data.leak import assert_no_leak
from graphsparse.transfer.data.link_split import split_links
from graphsparse.transfer.data.pair import SharedNodePair

BUYS, BOUGHT, LIKE = ("query", "buys", "product"), ("product", "rev_buys", "query"), ("product", "like", "product")


def links_by_key(graph, edge_type, target=None):
    """Links of a heterogeneous graph as pairs of keys; of a derived one with the keys of its global numbers."""
    src, _, dst = edge_type
    pairs = [(graph[src].key[u], graph[dst].key[v]) for u, v in graph[edge_type].edge_index.t().tolist()]
    if edge_type == LIKE:
        return {pair for u, v in pairs if u != v for pair in ((u, v), (v, u))}
    return set(pairs)


def with_keys(pair, graph):
    """Add the keys of its nodes to a derived graph."""
    for kind in pair.target.node_types:
        match = pair.nodes(kind)
        keys = dict(enumerate(pair.target[kind].key))
        keys.update(zip(match.source_ids[0].tolist(), pair.source[0][kind].key, strict=True))
        graph[kind].key = [keys[i] for i in graph[kind].n_id.tolist()]
    return graph


@pytest.mark.parametrize("seed", [0, 1])
def test_types_are_derived_apart(seed):
    source, target = bipartite_pair(seed)
    pair = SharedNodePair(source, target)
    shared = {kind: set(source[kind].key) & set(target[kind].key) for kind in ("query", "product")}
    assert pair.is_hetero
    for kind in shared:
        assert {target[kind].key[i] for i in pair.nodes(kind).shared.nonzero().view(-1).tolist()} == shared[kind]
    for edge_type in (BUYS, BOUGHT, LIKE):
        src, _, dst = edge_type
        of_source, of_target = links_by_key(source, edge_type), links_by_key(target, edge_type)
        inner = {(u, v) for u, v in of_source if u in shared[src] and v in shared[dst]}
        inner_target = {(u, v) for u, v in of_target if u in shared[src] and v in shared[dst]}
        for name, links in {
            "target": of_target,
            "intersection": inner_target,
            "enriched_intersection": inner_target | inner,
            "enriched_target": of_target | inner,
            "union": of_target | of_source,
            "source": of_source,
        }.items():
            graph = with_keys(pair, pair.graph(name))
            assert links_by_key(graph, edge_type) == links
            graph.validate()
            if name != "union":
                continue
            ends = graph[edge_type].edge_index.t().tolist()
            for (u, v), origin in zip(ends, graph[edge_type].edge_origin.tolist(), strict=True):
                link = (graph[src].key[u], graph[dst].key[v])
                assert origin == (link in of_target) + 2 * (link in of_source)
    assert pair.graph("target")["query"].x is target["query"].x
    assert pair.union()["query"].x.shape == (pair.nodes("query").num_nodes, 3)
    assert pair.summary(edge_type=BUYS)["union"]["num_links"] == pair.union()[BUYS].edge_index.size(1)


@pytest.mark.parametrize("name", ["rev_buys", "buys", "bought_by"])
def test_held_out_links_leave_the_reverse_type_too(name):
    """By PyG's ``ToUndirected``, as IMDB and DBLP of PyG name them, or in a way of one's own."""
    source, target = bipartite_pair()
    for graph in (source, target):
        reverse = graph[BOUGHT].edge_index
        del graph[BOUGHT]
        graph["product", name, "query"].edge_index = reverse
        graph["product", "seen_by", "query"].edge_index = reverse[:, 1:]  # another relation: it stays
    pair, bought, seen = SharedNodePair(source, target), ("product", name, "query"), ("product", "seen_by", "query")
    assert pair.reverse_types(BUYS) == [bought]
    assert pair.reverse_types(bought) == [BUYS]
    assert pair.reverse_types(LIKE) == pair.reverse_types(seen) == []
    split = split_links(pair, hold_out="all", edge_type=BUYS, num_neg=2)
    assert split.edge_type == BUYS
    clean = pair.union(without=split)
    assert_no_leak(split, pair, graph=clean)
    hidden = set(map(tuple, split.heldout.t().tolist()))
    assert not hidden & set(map(tuple, clean[BUYS].edge_index.t().tolist()))
    assert not hidden & {(u, v) for v, u in clean[bought].edge_index.t().tolist()}
    for kind in (LIKE, seen):
        assert torch.equal(clean[kind].edge_index, pair.union()[kind].edge_index)
    u, v = split.test[:, 0].tolist()
    clean[bought].edge_index = torch.cat([clean[bought].edge_index, torch.tensor([[v], [u]])], dim=1)
    with pytest.raises(ValueError, match=f"rule L1: 'graph' has 1 of the held-out links .*'product', '{bought[1]}'"):
        assert_no_leak(split, pair, graph=clean)
    with pytest.raises(ValueError, match="rule L4"):
        assert_no_leak(plant(split, val_neg=split.val.repeat(1, 2)), pair)
    by_type = pair.union(without={BUYS: split.heldout})
    assert by_type[BUYS].edge_index.size(1) >= clean[BUYS].edge_index.size(1)


def test_split_between_types():
    source, target = bipartite_pair(4)
    pair = SharedNodePair(source, target)
    split = split_links(pair, edge_type=BUYS)
    assert_no_leak(split, pair)
    links = set(map(tuple, target[BUYS].edge_index.t().tolist()))
    parts = [set(map(tuple, part.t().tolist())) for part in (split.train, split.val, split.test)]
    assert set.union(*parts) == links
    assert sum(map(len, parts)) == len(links)
    query, product = pair.nodes("query").shared, pair.nodes("product").shared
    for u, v in split.queries.t().tolist():
        assert not (query[u] and product[v])
    assert not links & set(map(tuple, split.val_neg.t().tolist()))
    like = split_links(pair, edge_type=LIKE, hold_out="all")
    assert (like.test_neg[0] < like.test_neg[1]).all()
    assert_no_leak(like, pair, graph=pair.enriched_target(without=like))


def test_without_reverse_types_one_type_is_enough():
    source, target = bipartite_pair(reverse=False)
    for graph in (source, target):
        del graph[LIKE]
    pair = SharedNodePair(source, target)
    split = split_links(pair)
    assert_no_leak(split, pair, graph=pair.union(without=split))
    some = pair.union(without=split.heldout)
    assert some[BUYS].edge_index.size(1) < pair.union()[BUYS].edge_index.size(1)
    for graph in (source, target):
        graph["product", "rev_buys", "query"].edge_index = graph[BUYS].edge_index.flip(0)
        del graph[BUYS]
    rest = SharedNodePair(source, target).union(without=split.heldout.flip(0))
    turned = rest["product", "rev_buys", "query"].edge_index.flip(0)
    assert set(map(tuple, turned.t().tolist())) == set(map(tuple, some[BUYS].edge_index.t().tolist()))


def test_what_must_be_named():
    source, target = bipartite_pair()
    pair = SharedNodePair(source, target)
    for ask in (lambda: pair.num_nodes, lambda: pair.shared):
        with pytest.raises(TypeError, match="name one of the types of nodes"):
            ask()
    with pytest.raises(TypeError, match="'edge_type' must name one of"):
        split_links(pair)
    with pytest.raises(ValueError, match="'edge_type' must be one of"):
        split_links(pair, edge_type=("query", "sells", "product"))
    with pytest.raises(ValueError, match="'node_type' must be one of"):
        pair.nodes("brand")
    with pytest.raises(TypeError, match="'without' must be a dictionary by type of edges"):
        pair.union(without=torch.tensor([[0], [1]]))
    for wrong in (("query", "buys"), "buys"):
        with pytest.raises(ValueError, match="'without' must be one of"):
            pair.union(without={wrong: torch.tensor([[0], [1]])})
    assert pair.summary(edge_type=list(LIKE)) == pair.summary(edge_type=LIKE)
    source["brand"].x = torch.ones(2, 3)
    with pytest.raises(ValueError, match="nodes of the types .'brand'., which the target does not have"):
        SharedNodePair(source, target)


def test_keys_by_type():
    source, target = bipartite_pair()
    keys = [{kind: graph[kind].key for kind in ("query", "product")} for graph in (source, target)]
    expected = SharedNodePair(source, target)
    found = SharedNodePair(source, target, *keys)
    assert torch.equal(found.nodes("query").shared, expected.nodes("query").shared)
    with pytest.raises(TypeError, match="there are none for 'product'"):
        SharedNodePair(source, target, keys[0], {"query": keys[1]["query"]})
