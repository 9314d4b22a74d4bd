"""Targets whose links are between two sides: non-links are, too, those of the split and those that methods draw."""

import contextlib

import networkx as nx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from intersecting import plant
from torch_geometric.data import Data, HeteroData
from torch_geometric.utils import subgraph, to_undirected

from graphsparse.metrics import auroc
from graphsparse.training import LinkTask, link_training
from graphsparse.transfer import (
    BASELINES,
    GITL,
    BaselineOptions,
    LinkSplit,
    SharedNodePair,
    assert_no_leak,
    degree_matched_negatives,
    split_links,
)
from graphsparse.transfer.data.sides import extend_sides, find_sides

SHORT = link_training(epochs=2, eval_every=1)
OPTIONS = BaselineOptions(hidden=8, student_hidden=8, training=SHORT, student_training=SHORT, pretraining_epochs=2)


def shop(users=60, items=30, share=0.1, *, numbered=False, listed=False, seed=0):
    """Users and items in one graph; the type of each node is in ``kind``."""
    generator = torch.Generator().manual_seed(seed)
    bought = (torch.rand(users, items, generator=generator) < share).nonzero().t()
    order = torch.arange(users + items) if numbered else torch.randperm(users + items, generator=generator)
    kind = torch.empty(users + items, dtype=torch.int64)
    kind[order] = (torch.arange(users + items) >= users).long()
    edges = order[torch.stack([bought[0], bought[1] + users])]
    edges = edges if listed else torch.cat([edges, edges.flip(0)], 1)
    x = torch.randn(users + items, 4, generator=generator)
    return Data(x=x, edge_index=edges, key=torch.arange(users + items), num_nodes=users + items, kind=kind)


def window(data, seed):
    """Return three quarters of the nodes of a graph."""
    keep = torch.rand(data.num_nodes, generator=torch.Generator().manual_seed(seed)) < 0.75
    edges, _ = subgraph(keep, data.edge_index, relabel_nodes=True, num_nodes=data.num_nodes)
    return Data(x=data.x[keep], edge_index=edges, key=data.key[keep], kind=data.kind[keep], num_nodes=int(keep.sum()))


def told_by_kind(kind, split):
    """Return the area under the ROC curve of who knows nothing but the kind of both ends."""
    pairs = torch.cat([split.test, split.test_neg], 1)
    return auroc((kind[pairs[0]] != kind[pairs[1]]).float(), torch.arange(pairs.size(1)) < split.test.size(1))


@pytest.mark.parametrize("hold_out", ["all", "target_only_end"])
@pytest.mark.parametrize("options", [{}, {"numbered": True}, {"listed": True}, {"numbered": True, "share": 0.02}])
def test_sides_are_found_and_said(options, hold_out):
    data = shop(**options)
    source = window(data, 1)
    pair = SharedNodePair(source, data)
    split = split_links(pair, hold_out=hold_out)
    for pairs in (split.train, split.val, split.test, split.val_neg, split.test_neg):
        assert (data.kind[pairs[0]] != data.kind[pairs[1]]).all()
        assert hold_out == "all" or pairs is split.train or not pair.shared[pairs].all(0).any()
    assert told_by_kind(data.kind, split) == 0.5
    assert split.options["between"] == "found"
    assert "nodes (found)" in repr(split)
    assert_no_leak(split, pair)
    anywhere = split_links(pair, hold_out=hold_out, between="any")
    assert anywhere.side is None
    assert told_by_kind(data.kind, anywhere) > 0.7


@pytest.mark.parametrize("form", ["bool", "nodes"])
def test_sides_are_given(form, tmp_path):
    data = shop(share=0.03)  # too few cycles to find them
    pair = SharedNodePair(data, data)
    with pytest.warns(UserWarning, match="no odd cycle.* non-links are drawn from all pairs; 'between' says the sides"):
        assert split_links(pair, hold_out="all").side is None
    sides = [(data.kind == kind).nonzero().view(-1) for kind in (0, 1)]
    between = data.kind == 1 if form == "bool" else tuple(sides)
    split = split_links(pair, hold_out="all", between=between)
    assert split.options["between"] == "given"
    assert told_by_kind(data.kind, split) == 0.5
    split.save(tmp_path / "split")
    again = LinkSplit.load(tmp_path / "split", pair)
    assert torch.equal(again.side, split.side)
    assert again.hash == split.hash != split_links(pair, hold_out="all", between="any").hash
    # nodes on neither side are in no non-link, and links that touch them are an error
    unlinked = ~torch.isin(torch.arange(90), pair.target_links())
    some = tuple(nodes[~unlinked[nodes]] for nodes in sides)
    split = split_links(pair, hold_out="all", between=some)
    assert not unlinked[split.queries].any()
    with pytest.raises(ValueError, match="links of the target are not between the sides of 'between', such as"):
        split_links(pair, between=(sides[0][3:], sides[1]))


@pytest.mark.parametrize(
    ("error", "match", "between"),
    [
        (TypeError, "'between' must be 'any', a bool tensor .N. .* .got str", "some"),
        (TypeError, "got Tensor", torch.arange(90)),
        (TypeError, "got list", [1, 2]),
        (ValueError, "must say True or False of 90 nodes .got .3", torch.ones(3, dtype=torch.bool)),
        (ValueError, "not between the sides of 'between'", torch.ones(90, dtype=torch.bool)),
        (ValueError, "'between' holds the index 90", (torch.tensor([90]), torch.tensor([1]))),
        (ValueError, "two sides without a node in common", (torch.tensor([1]), torch.tensor([1]))),
    ],
)
def test_no_sides(error, match, between):
    data = shop()
    with pytest.raises(error, match=match):
        split_links(SharedNodePair(data, data), between=between)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.booleans(), st.floats(0.02, 0.2))
def test_colouring_against_networkx(seed, odd, share):
    data = shop(30, 25, share, seed=seed)
    edges = data.edge_index
    if odd:  # two users
        users = (data.kind == 0).nonzero().view(-1)[:2, None]
        edges = torch.cat([edges, users, users.flip(0)], 1)
    links = edges[:, edges[0] < edges[1]]
    graph = nx.Graph(links.t().tolist())
    answered = False
    with contextlib.suppress(ValueError):
        side = find_sides(links, edges, 55)
        answered = True
    if not answered:  # of which components the sides belong together is not known
        assert nx.number_connected_components(graph) > 1
        assert nx.is_bipartite(graph)
        return
    if side is None:
        cycles = graph.number_of_edges() - graph.number_of_nodes() + nx.number_connected_components(graph)
        assert links.size(1) < 26 or cycles < 20 or not nx.is_bipartite(graph)
        return
    assert nx.is_bipartite(graph)
    known = side >= 0
    largest = max(nx.connected_components(graph), key=len)
    assert sorted(known.nonzero().view(-1).tolist()) == sorted(largest)
    one, other = nx.bipartite.sets(graph.subgraph(largest))
    assert {frozenset((side == number).nonzero().view(-1).tolist()) for number in (0, 1)} == {
        frozenset(one),
        frozenset(other),
    }


def test_links_whose_sides_cannot_be_told():
    """Of a second component it is not known which of its sides are the users."""
    halves = [shop(40, 20, 0.2, seed=seed) for seed in (0, 1)]
    both = torch.cat([halves[0].edge_index, halves[1].edge_index + 60], 1)
    data = Data(edge_index=both, key=torch.arange(120), num_nodes=120)
    pair = SharedNodePair(data, data)
    with pytest.raises(
        ValueError, match="in 2 components of which it is not known which sides belong together: say it"
    ):
        split_links(pair, hold_out="all")
    kind = torch.cat([half.kind for half in halves])
    assert told_by_kind(kind, split_links(pair, hold_out="all", num_neg=1, between=kind == 0)) == 0.5
    # a small component is for training
    few = torch.cat([halves[0].edge_index, torch.tensor([[60, 61], [61, 60]])], 1)
    pair = SharedNodePair(*[Data(edge_index=few, key=torch.arange(62), num_nodes=62)] * 2)
    with pytest.warns(UserWarning, match="but 1 of them are in small components.* they are for training"):
        split = split_links(pair, hold_out="all", num_neg=1)
    assert not (split.queries >= 60).any()
    assert [60, 61] in split.train.t().tolist()
    assert_no_leak(split, pair)


def test_no_sides_by_accident():
    size = 60
    path = torch.stack([torch.arange(size - 1), torch.arange(1, size)])
    tree = torch.stack([(torch.arange(1, size) - 1) // 2, torch.arange(1, size)])
    for links in (path, tree):  # every other non-link of a tree joins levels of one parity
        pair = SharedNodePair(*[Data(edge_index=to_undirected(links), key=torch.arange(size), num_nodes=size)] * 2)
        with pytest.warns(UserWarning, match="too few cycles to be sure"):
            split = split_links(pair, hold_out="all")
        assert split.side is None
        assert split.options["between"] == "any"


def test_to_homogeneous_with_isolated_nodes():
    data = HeteroData()
    data["user"].num_nodes, data["item"].num_nodes = 50, 40
    generator = torch.Generator().manual_seed(0)
    bought = torch.stack(
        [torch.randint(45, (60,), generator=generator), torch.randint(2, 40, (60,), generator=generator)]
    )
    data["user", "buys", "item"].edge_index = bought
    data["item", "bought_by", "user"].edge_index = bought.flip(0)
    target = data.to_homogeneous()
    target.key = torch.arange(90)
    pair = SharedNodePair(target, target)
    split = split_links(pair, hold_out="all")
    assert (target.node_type[split.queries].sort(0).values == torch.tensor([[0], [1]])).all()


@pytest.mark.parametrize("share_back", [0.0, 0.3, 1.0])
def test_directions(share_back):
    data = shop(listed=True)
    back = torch.rand(data.num_edges, generator=torch.Generator().manual_seed(1)) < share_back
    data.edge_index = torch.where(back, data.edge_index.flip(0), data.edge_index)
    pair = SharedNodePair(data, data, directed=True)
    split = split_links(pair, hold_out="all", num_neg=10)
    begins = [(data.kind[part[0]] == 0).double().mean() for part in (split.heldout, split.queries)]
    assert abs(begins[0] - begins[1]) < 0.03
    assert_no_leak(split, pair)
    drawn = [pairs for pairs in drawn_by("gnn_target", pair, split) if pairs.size(1)]
    assert abs(float((data.kind[drawn[0][0]] == 0).double().mean()) - (1 - share_back)) < 0.12


def drawn_by(name, pair, split):
    """Return the non-links of two epochs of a method, in the target's numbers."""
    found = []

    class Metric:
        def __call__(self, links, non_links):
            return float(links.mean() - non_links.mean())

    original = LinkTask.batches

    def batches(self):
        for batch in original(self):
            if self.data.num_nodes == pair.num_nodes:
                found.append(batch.pairs[:, batch.picked.numel() :])
            yield batch

    LinkTask.batches = batches
    try:
        if name == "GITL":
            GITL.small(2, 2).fit(pair, split)
        else:
            BASELINES[name](pair, split, 0, OPTIONS)
    finally:
        LinkTask.batches = original
    return found


@pytest.mark.parametrize(
    "name", ["GITL", "gnn_enriched", "gnn_union", "fine_tune_all", "mlp_target", "dgi", "egi_enriched"]
)
def test_what_methods_draw_for_themselves(name):
    data = shop()
    source, target = window(data, 1), window(data, 2)
    pair = SharedNodePair(source, target)
    split = split_links(pair, hold_out="all")
    assert split.side is not None
    for graph in ("target", "enriched_target", "enriched_intersection", "union", "source"):
        derived = pair.graph(graph, without=split)
        kind = torch.empty(pair.num_union_nodes, dtype=torch.int64)
        kind[pair.nodes().source_ids[0]], kind[: pair.num_nodes] = source.kind, target.kind
        known = derived.side >= 0
        agree = derived.side[known] == kind[derived.n_id][known]
        assert agree.all() or not agree.any()
        assert known.float().mean() > 0.8
    drawn = drawn_by(name, pair, split)
    assert drawn or name == "gnn_union"
    for pairs in drawn:
        assert (target.kind[pairs[0]] != target.kind[pairs[1]]).all()


def test_a_source_of_another_relation():
    """Friends among users: where there are such links, non-links are drawn from all pairs, as the links are."""
    data = shop()
    users = (data.kind == 0).nonzero().view(-1)
    friends = users[torch.randint(users.numel(), (2, 80), generator=torch.Generator().manual_seed(0))]
    source = Data(x=data.x, edge_index=friends, key=data.key, num_nodes=90)
    pair = SharedNodePair(source, data)
    split = split_links(pair, hold_out="all")
    assert split.side is not None
    assert "side" in pair.graph("target", without=split)
    assert "side" not in pair.graph("enriched_target", without=split)
    GITL.small(2, 2).fit(pair, split)


def test_side_of_more_nodes():
    side = torch.tensor([0, 1, -1, -1, -1], dtype=torch.int8)
    chain = torch.tensor([[0, 1, 2], [1, 2, 3]])
    assert extend_sides(side, chain).tolist() == [0, 1, 0, 1, -1]
    assert extend_sides(side, torch.tensor([[0, 2, 3], [2, 3, 1]])).tolist() == [0, 1, 1, 0, -1]
    assert extend_sides(side, torch.tensor([[0, 2], [2, 1]])) is None


def test_degree_matched():
    data = shop()
    links = data.edge_index[:, data.edge_index[0] < data.edge_index[1]]
    found = degree_matched_negatives(links, 90, seed=1, side=data.kind)
    assert (data.kind[found[0]] != data.kind[found[1]]).all()
    assert found.size(1) > 0.9 * links.size(1)
    count, expected = torch.bincount(found.flatten(), minlength=90), torch.bincount(links.flatten(), minlength=90)
    assert (count <= expected).all()
    known = set(map(frozenset, links.t().tolist()))
    assert not known & set(map(frozenset, found.t().tolist()))
    with pytest.raises(ValueError, match="'side' must tell the sides of 90 nodes, with both ends"):
        degree_matched_negatives(links, 90, side=torch.zeros(90))


def test_non_links_within_a_side_are_refused():
    data = shop()
    pair = SharedNodePair(data, data)
    split = split_links(pair, hold_out="all")
    users = (data.kind == 0).nonzero().view(-1)
    wrong = split.test_neg.clone()
    wrong[:, 0] = users[:2].sort().values
    with pytest.raises(ValueError, match="rule L6: 1 of .* pairs in 'test_neg' are not between the two sides"):
        assert_no_leak(plant(split, test_neg=wrong), pair)


def test_too_few_pairs_between_the_sides():
    data = shop(12, 6, 0.8)
    with pytest.raises(
        ValueError, match="different non-links are needed, .* from all pairs of nodes with between='any'"
    ):
        split_links(SharedNodePair(data, data), hold_out="all")
