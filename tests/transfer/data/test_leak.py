import copy

import pytest
import torch
from intersecting import plant, random_pair
from torch_geometric.data import Data, HeteroData
from torch_geometric.typing import SparseTensor

from graphsparse.ops import Adjacency
from graphsparse.transfer import BASELINES, GITL, BaselineOptions, LinkTeacher, MLPStudent
from graphsparse.transfer.data.keys import GRAPHS
from graphsparse.transfer.data.leak import assert_no_leak
from graphsparse.transfer.data.pair import SharedNodePair
from graphsparse.transfer.data.split import split_links


@pytest.fixture(params=["target_only_end", "all"])
def pair_and_split(request):
    sources, target = random_pair(7, num_keys=80)
    pair = SharedNodePair(sources, target)
    return pair, split_links(pair, hold_out=request.param)


def with_edges(graph, pairs):
    """Add edges, given by global numbers, in one direction only."""
    local = torch.searchsorted(graph.n_id, pairs.contiguous())
    graph.edge_index = torch.cat([graph.edge_index, local], dim=1)
    return graph


def between_shared(pair, pairs):
    return pairs[:, pair.shared[pairs].all(0)]


def test_what_is_clean(pair_and_split):
    pair, split = pair_and_split
    negatives = split.test_neg[:, :3]
    for name in GRAPHS:
        assert_no_leak(split, pair, graph=pair.graph(name, without=split))
    assert_no_leak(split, pair, positives=split.train, negatives=negatives, anchors=split.train)
    weight = torch.randn(pair.num_nodes)
    assert_no_leak(split, pair, score=lambda pairs: weight[pairs].sum(0))


@pytest.mark.parametrize("part", ["val", "test"])
@pytest.mark.parametrize("flip", [False, True])
def test_l1_messages(pair_and_split, part, flip):
    pair, split = pair_and_split
    held = getattr(split, part)[:, :1]
    for name in ("target", "enriched_target", "union"):
        graph = with_edges(pair.graph(name, without=split), held.flip(0) if flip else held)
        with pytest.raises(ValueError, match="rule L1: 'graph' has 1 of the held-out links as edges"):
            assert_no_leak(split, pair, graph=graph)
    for name in ("target", "enriched_target", "union"):
        with pytest.raises(ValueError, match="rule L1"):
            assert_no_leak(split, pair, graph=pair.graph(name))


def test_l1_through_the_source():
    """A held-out link that the source has too comes back with the enriched graphs, unless it is left out there."""
    sources, target = random_pair(7, num_keys=80)
    pair = SharedNodePair(sources, target)
    split = split_links(pair, hold_out="all")
    planted = between_shared(pair, split.test)[:, :1]
    number = torch.full((pair.num_nodes,), -1)
    ids = pair.nodes().source_ids[0]
    inside = ids < pair.num_nodes
    number[ids[inside]] = inside.nonzero().view(-1)
    sources[0].edge_index = torch.cat([sources[0].edge_index, number[planted.flip(0)]], dim=1)
    leaky = SharedNodePair(sources, target)
    only_target_cleaned = leaky.graph("target", without=split)
    assert_no_leak(split, leaky, graph=only_target_cleaned)
    for name in ("source", "enriched_intersection", "enriched_target", "union"):
        planted_edges = leaky.graph(name)
        found = (planted_edges.n_id[planted_edges.edge_index] == planted).all(0)
        assert found.any()
        assert (planted_edges.edge_origin[found] >= 2).all()
        with pytest.raises(ValueError, match="rule L1"):
            assert_no_leak(split, leaky, graph=planted_edges)
        assert_no_leak(split, leaky, graph=leaky.graph(name, without=split))


def sparse(pairs, size):
    return torch.sparse_coo_tensor(pairs, torch.ones(pairs.size(1)), (size, size))


def square(pairs, size):
    return sparse(pairs, size).to_dense()


#: Forms in which a list of pairs may be among the attributes of a graph of some nodes.
ATTRIBUTES = {
    "edge_label_index": ("edge_label_index", lambda pairs, size: pairs),
    "the other way": ("pos_edge_index", lambda pairs, size: pairs.flip(0).int()),
    "columns": ("known_links", lambda pairs, size: pairs.t()),
    "any name": ("something", lambda pairs, size: pairs),
    "any name, columns": ("something", lambda pairs, size: pairs.t()),
    "array": ("something", lambda pairs, size: pairs.numpy()),
    "dictionary": ("something", lambda pairs, size: {"valid": {"edge": pairs.t()}}),
    "list of lists": ("something", lambda pairs, size: [list(pair) for pair in pairs.t().tolist()]),
    "set of tuples": ("something", lambda pairs, size: [set(map(tuple, pairs.t().tolist()))]),
    "neighbours": ("something", lambda pairs, size: {u: [v] for u, v in pairs.t().tolist()}),
    "sparse tensor": ("something", sparse),
    "adj_t": ("adj_t", lambda pairs, size: sparse(pairs, size).to_sparse_csr()),
    "Adjacency": ("adj", lambda pairs, size: Adjacency.from_edge_index(pairs, num_nodes=size)),
    "rows of an adjacency": ("x", square),
    "with the node itself": ("x", lambda pairs, size: (square(pairs, size) + torch.eye(size)).to_sparse_csr()),
}


@pytest.mark.parametrize("form", ATTRIBUTES)
def test_l1_copies_of_the_relation(pair_and_split, form):
    pair, split = pair_and_split
    name, make = ATTRIBUTES[form]
    graph = pair.graph("target", without=split)
    graph[name] = make(split.train, graph.num_nodes)
    assert_no_leak(split, pair, graph=graph)
    graph[name] = make(split.test, graph.num_nodes)
    with pytest.raises(ValueError, match="rule L1: 'graph' has .* of the held-out links"):
        assert_no_leak(split, pair, graph=graph)


def test_what_is_no_copy_of_the_relation(pair_and_split):
    pair, split = pair_and_split
    graph = pair.graph("target", without=split)
    graph.x = torch.eye(graph.num_nodes)
    graph.codes = torch.randint(graph.num_nodes, (graph.num_nodes, 2))
    graph.edge_attr = torch.randint(graph.num_nodes, (graph.num_edges, 2))
    graph.train_mask, graph.neg_edge_index = torch.ones(graph.num_nodes, dtype=torch.bool), split.test_neg
    assert_no_leak(split, pair, graph=graph)


@pytest.mark.parametrize("form", ["Adjacency", "coo", "csr", "csc", "SparseTensor"])
def test_l1_matrices(pair_and_split, form):
    pair, split = pair_and_split
    if form == "SparseTensor":
        pytest.importorskip("torch_sparse")

    def matrix(pairs):
        if form == "Adjacency":
            return Adjacency.from_edge_index(pairs, num_nodes=pair.num_nodes)
        if form == "SparseTensor":
            return SparseTensor(row=pairs[0], col=pairs[1], sparse_sizes=(pair.num_nodes, pair.num_nodes))
        tensor = sparse(pairs, pair.num_nodes)
        return tensor if form == "coo" else getattr(tensor, f"to_sparse_{form}")()

    assert_no_leak(split, pair, graph=matrix(pair.graph("target", without=split).edge_index))
    with pytest.raises(ValueError, match="rule L1: 'graph' has 1 of the held-out links as edges"):
        assert_no_leak(split, pair, graph=matrix(split.val[:, :1].flip(0)))


@pytest.mark.parametrize("numbered", [False, True])
def test_l1_every_type_of_edges(pair_and_split, numbered):
    """The first half of the nodes are users; held-out links come back in other types, in both directions."""
    pair, split = pair_and_split
    half = pair.num_nodes // 2

    def graph(edge_type=None, pairs=None, **attributes):
        data = HeteroData()
        data["item" if numbered else "user"].num_nodes = pair.num_nodes - half if numbered else half
        data["user" if numbered else "item"].num_nodes = half if numbered else pair.num_nodes - half
        if numbered:  # in whatever order the types are
            data["user"].n_id, data["item"].n_id = torch.arange(half), torch.arange(half, pair.num_nodes)
        data["user", "buys", "item"].edge_index = local(split.train)
        if edge_type is not None:
            data[edge_type].edge_index = pairs
        for name, value in attributes.items():
            data["user", "buys", "item"][name] = value
        return data

    def local(pairs):
        return pairs[:, (pairs[0] < half) & (pairs[1] >= half)] - torch.tensor([[0], [half]])

    held = local(split.test)
    users = split.test[:, (split.test < half).all(0)]
    assert min(held.size(1), users.size(1)) > 0
    assert_no_leak(split, pair, graph=graph())
    for leaky in (
        graph(("item", "bought_by", "user"), held.flip(0)[:, :1]),
        graph(("user", "likes", "item"), held),
        graph(("user", "knows", "user"), users),
        graph(edge_label_index=held),
        graph(adj_t=torch.sparse_coo_tensor(held.flip(0), torch.ones(held.size(1)), (pair.num_nodes - half, half))),
    ):
        with pytest.raises(ValueError, match="rule L1: 'graph' has .* of the held-out links"):
            assert_no_leak(split, pair, graph=leaky)


def with_features(pair, target, source):
    graphs = [copy.copy(graph) for graph in (pair.source[0], pair.target)]
    graphs[0].x, graphs[1].x = source, target
    return SharedNodePair(*graphs)


def test_l1_features_that_are_rows_of_the_adjacency(pair_and_split):
    pair, split = pair_and_split
    size, links = pair.num_nodes, torch.cat([split.train, split.heldout], 1)
    total = pair.source[0].num_nodes
    for known, leaks in ((split.train, False), (links, True), (links.flip(0), True)):
        leaky = with_features(pair, square(known, size), torch.zeros(total, size))
        if not leaks:
            assert_no_leak(split, leaky)
            continue
        with pytest.raises(ValueError, match="rule L1: 'x' of the target has a column for each node"):
            assert_no_leak(split, leaky)
        for method in (
            GITL.small(1, 1),
            LinkTeacher(),
            MLPStudent(emb_weight=0.0),
            BASELINES["cosine"].make(BaselineOptions()),
        ):
            with pytest.raises(ValueError, match="rule L1: 'x' of the target"):
                method.fit(leaky, split)


def test_l1_the_target_under_other_keys_in_the_source(pair_and_split):
    """A source with a second copy of every target node: its links tell those of the target."""
    pair, split = pair_and_split
    source, target = pair.source[0], pair.target
    size, total = pair.num_nodes, source.num_nodes

    def doubled(links, x):
        edges = torch.cat([source.edge_index, links + total], 1)
        key = torch.cat([source.key, target.key + 10**6])
        return SharedNodePair(
            Data(x=torch.cat([source.x, x]), edge_index=edges, key=key, num_nodes=total + size), target
        )

    assert_no_leak(split, doubled(split.train, target.x))
    assert_no_leak(split, doubled(split.heldout, torch.randn(size, 3)))
    leaky = doubled(split.heldout.flip(0), target.x)
    with pytest.raises(ValueError, match="rule L1: the source has .* that have other keys than those of the target"):
        assert_no_leak(split, leaky)


def test_links_in_common_are_no_leak():
    """All links of the target are the source's, too; what is held out is hidden there, and nothing else."""
    _, target = random_pair(7, num_keys=80)
    pair = SharedNodePair(target, target)
    split = split_links(pair, hold_out="all")
    graph = pair.graph("enriched_target", without=split)
    assert_no_leak(split, pair, graph=graph, positives=split.train, anchors=split.train)
    assert set(map(tuple, split.train.t().tolist())) == set(
        map(tuple, graph.edge_index[:, graph.edge_index[0] < graph.edge_index[1]].t().tolist())
    )
    assert (graph.edge_origin == 3).all()


@pytest.mark.parametrize("name", ["positives", "anchors"])
def test_l1_and_l5_what_is_learned(pair_and_split, name):
    pair, split = pair_and_split
    with_test = torch.cat([split.train, split.test[:, :1].flip(0)], dim=1)
    with_val = torch.cat([split.train, split.val[:, :2]], dim=1)
    for allowed in (False, True):
        with pytest.raises(ValueError, match=f"rule L1: 1 '{name}' are test links"):
            assert_no_leak(split, pair, **{name: with_test}, use_valid_as_anchor=allowed)
    with pytest.raises(ValueError, match=f"rule L1 and L5: 2 '{name}' are val links"):
        assert_no_leak(split, pair, **{name: with_val})
    assert_no_leak(split, pair, **{name: with_val}, use_valid_as_anchor=True)


def test_l2_another_target(pair_and_split):
    pair, split = pair_and_split
    sources, target = random_pair(8, num_keys=80)
    with pytest.raises(ValueError, match="rule L2: the split was made from the target"):
        assert_no_leak(split, SharedNodePair(sources, target))
    with pytest.raises(ValueError, match="rule L2: training, validation and test have"):
        assert_no_leak(plant(split, test=split.test[:, 1:], test_neg=split.test_neg[:, 5:]), pair)
    strange = split.train.clone()
    strange[:, 0] = split.test_neg[:, 0]
    with pytest.raises(ValueError, match="rule L2: .* is none"):
        assert_no_leak(plant(split, train=strange), pair)


def test_l3_directions_and_repeats(pair_and_split):
    pair, split = pair_and_split
    twice = torch.cat([split.train, split.train[:, :1]], dim=1)
    with pytest.raises(ValueError, match="rule L3: 'split.train' has pairs more than once"):
        assert_no_leak(plant(split, train=twice), pair)
    with pytest.raises(ValueError, match="rule L3: 'split.train' has pairs with the larger end first"):
        assert_no_leak(plant(split, train=split.train.flip(0)), pair)
    both = torch.cat([split.train, split.test[:, :1]], dim=1)
    with pytest.raises(ValueError, match="rule L3: 'train' and 'test' have 1 pairs in common"):
        assert_no_leak(plant(split, train=both), pair)
    loop = torch.cat([split.train, torch.zeros(2, 1, dtype=torch.int64)], dim=1)
    with pytest.raises(ValueError, match="rule L3: 'split.train' has self-loops"):
        assert_no_leak(plant(split, train=loop), pair)


def test_l3_directed_links_in_two_parts():
    """As the released code did it: the directions of one pair split apart."""
    sources, target = random_pair(7, num_keys=80)
    target.edge_index = torch.cat([target.edge_index, target.edge_index.flip(0)], dim=1)
    pair = SharedNodePair(sources, target, directed=True)
    split = split_links(pair, hold_out="all")
    assert_no_leak(split, pair, graph=pair.union(without=split))
    back = split.test[:, :1].flip(0)
    keep = (split.test != back).any(0)
    assert int(keep.sum()) == split.test.size(1) - 1
    apart = plant(split, train=torch.cat([split.train, back], dim=1), test=split.test[:, keep])
    with pytest.raises(ValueError, match="rule L3: 'train' and 'test' have 1 pairs in common"):
        assert_no_leak(apart, pair)


def test_l4_the_negatives_of_the_released_code(pair_and_split):
    """There the lists of negatives were filled by going through the edges, so that all were links."""
    pair, split = pair_and_split
    count = split.test_neg.size(1)
    links = pair.target_links()
    assert links.size(1) > 0
    from_edges = links[:, torch.arange(count) % links.size(1)]
    with pytest.raises(ValueError, match=f"rule L4: {count} of {count} pairs in 'test_neg' are links of the target"):
        assert_no_leak(plant(split, test_neg=from_edges), pair)


def test_l4_one_wrong_negative(pair_and_split):
    pair, split = pair_and_split
    for name, link in (("val_neg", split.test), ("test_neg", split.train), ("val_neg", split.val.flip(0))):
        wrong = getattr(split, name).clone()
        wrong[:, 3] = link[:, 0]
        with pytest.raises(ValueError, match=f"rule L4: 1 of .* in '{name}' are links"):
            assert_no_leak(plant(split, **{name: wrong}), pair)
    loop = split.val_neg.clone()
    loop[:, 0] = 1
    with pytest.raises(ValueError, match="rule L4: 'split.val_neg' has self-loops"):
        assert_no_leak(plant(split, val_neg=loop), pair)
    common = split.val_neg.clone()
    common[:, 0] = split.test_neg[:, 0]
    with pytest.raises(ValueError, match="rule L4: 'val_neg' and 'test_neg' have 1 pairs in common"):
        assert_no_leak(plant(split, val_neg=common), pair)


def test_l4_what_is_learned_not_to_be_a_link(pair_and_split):
    pair, split = pair_and_split
    with pytest.raises(ValueError, match="rule L4: 2 'negatives' are known links"):
        assert_no_leak(split, pair, negatives=split.train[:, :2].flip(0))
    of_source = split.val_neg[:, :1]
    extra = torch.tensor([[0], [1]])
    with pytest.raises(ValueError, match="rule L4"):
        assert_no_leak(split, pair, positives=extra, negatives=extra)
    with pytest.raises(ValueError, match="rule L4: 1 'positives' are pairs of 'val_neg'"):
        assert_no_leak(split, pair, positives=of_source)
    # one may be a held-out link by chance: whoever draws cannot know
    assert_no_leak(split, pair, negatives=split.test[:, :1])


def test_l6_kinds_and_numbers():
    sources, target = random_pair(7, num_keys=80)
    pair = SharedNodePair(sources, target)
    split = split_links(pair)
    shared = pair.shared.nonzero().view(-1)
    pairs = torch.combinations(shared).t()
    links = {tuple(link) for link in pair.target_links().t().tolist()}
    between = next(pair for pair in pairs.t().tolist() if tuple(pair) not in links)
    wrong = split.test_neg.clone()
    wrong[:, 0] = torch.tensor(between)
    with pytest.raises(ValueError, match="rule L6: 1 pairs in 'test_neg' have no end that only the target has"):
        assert_no_leak(plant(split, test_neg=wrong), pair)
    with pytest.raises(ValueError, match="rule L6: 'val' has .* not 5 for each"):
        assert_no_leak(plant(split, val_neg=split.val_neg[:, 1:]), pair)
    everything = split_links(pair, hold_out="all")
    relabelled = plant(everything, options={**everything.options, "hold_out": "target_only_end"})
    with pytest.raises(ValueError, match="rule L6: .* pairs in 'val' have no end"):
        assert_no_leak(relabelled, pair)


def test_l6_what_a_source_says_of_non_links():
    """Left out of held-out links alone, an edge of the source tells a stored non-link from them."""
    sources, target = random_pair(7, num_keys=80)
    pair = SharedNodePair(sources, target)
    split = split_links(pair, hold_out="all", num_neg=5)
    graph = pair.enriched_target(without=split.heldout)
    edges = set(map(tuple, graph.edge_index.t().tolist()))
    told = sum(tuple(query) in edges for query in torch.cat([split.val_neg, split.test_neg], 1).t().tolist())
    assert told > 0
    with pytest.raises(ValueError, match=f"rule L6: 'graph' has {told} of the stored non-links as edges"):
        assert_no_leak(split, pair, graph=graph)


def test_l6_directions():
    """Links from new nodes to old ones: non-links that are turned at random would give themselves away."""
    generator = torch.Generator().manual_seed(0)
    pairs = torch.randint(100, (2, 600), generator=generator).sort(0, descending=True).values
    target = Data(edge_index=pairs, key=torch.arange(100), num_nodes=100)
    source = Data(edge_index=pairs[:, :1] * 0, key=torch.arange(50), num_nodes=50)
    pair = SharedNodePair(source, target, directed=True)
    for hold_out in ("target_only_end", "all"):
        split = split_links(pair, hold_out=hold_out)
        assert_no_leak(split, pair)
        for part in (split.test, split.test_neg):
            mixed = part[:, pair.shared[part[0]] != pair.shared[part[1]]]
            assert mixed.size(1) > 20
            assert not pair.shared[mixed[0]].any()
        coin = torch.rand(split.test_neg.size(1), generator=generator) < 0.5
        turned = torch.where(coin, split.test_neg.flip(0), split.test_neg)
        with pytest.raises(ValueError, match="rule L6: of the held-out links .* 100% begin with the latter, of the st"):
            assert_no_leak(plant(split, test_neg=turned), pair)


def test_l7_queries(pair_and_split):
    pair, split = pair_and_split
    anchors = torch.cat([split.train, split.val_neg[:, :1].flip(0)], dim=1)
    with pytest.raises(ValueError, match="rule L7: 1 'anchors' are pairs of 'val_neg'"):
        assert_no_leak(split, pair, anchors=anchors)

    weight = torch.randn(pair.num_nodes)

    def ranks(pairs):
        return weight[pairs].sum(0).argsort().argsort().float()

    def degrees_of_the_list(pairs):
        return torch.bincount(pairs.flatten(), minlength=pair.num_nodes)[pairs].sum(0).float()

    for score in (ranks, degrees_of_the_list):
        with pytest.raises(ValueError, match="rule L7: 'score' gives a pair another score"):
            assert_no_leak(split, pair, score=score)


def test_bad_arguments(pair_and_split):
    pair, split = pair_and_split
    for wrong, match in (
        ((pair, pair), "'split' must be a LinkSplit .got SharedNodePair"),
        ((split, split), "'pair' must be a SharedNodePair, or a Data .*got LinkSplit"),
    ):
        with pytest.raises(TypeError, match=match):
            assert_no_leak(*wrong)
    with pytest.raises(
        TypeError, match="'graph' must be a Data, a HeteroData, an Adjacency, a SparseTensor or .*Tensor"
    ):
        assert_no_leak(split, pair, graph=split.train)
    bare = pair.graph("intersection", without=split)
    bare = Data(edge_index=bare.edge_index, num_nodes=bare.num_nodes)
    with pytest.raises(ValueError, match="'graph' has .* nodes, the target .*: 'n_id' must name them"):
        assert_no_leak(split, pair, graph=bare)
    with pytest.raises(ValueError, match="'anchors' holds the index"):
        assert_no_leak(split, pair, anchors=torch.tensor([[0], [10**6]]))
    for wrong, match in (
        (lambda pairs: torch.full((pairs.size(1),), float("nan")), "'score' must return finite numbers"),
        (lambda pairs: torch.zeros(3), "'score' must return a number for each of"),
    ):
        with pytest.raises(ValueError, match=match):
            assert_no_leak(split, pair, score=wrong)
    graph = pair.union()
    graph.n_id = graph.n_id + 1000
    with pytest.raises(ValueError, match="'graph' has nodes that this pair does not have"):
        assert_no_leak(split, pair, graph=graph)
