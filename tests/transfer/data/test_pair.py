import copy
import pickle
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from intersecting import expected, random_pair
from torch_geometric.data import Data, HeteroData

from graphsparse.testing import assert_undirected
from graphsparse.transfer.data.keys import GRAPHS
from graphsparse.transfer.data.pair import SharedNodePair
from graphsparse.transfer.data.split import split_links


def permuted(graph, seed):
    order = torch.randperm(graph.num_nodes, generator=torch.Generator().manual_seed(seed))
    place = order.argsort()
    shuffle = torch.randperm(graph.num_edges)
    return Data(
        x=graph.x[order], edge_index=place[graph.edge_index][:, shuffle], key=graph.key[order], num_nodes=len(order)
    )


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_the_order_of_nodes_and_edges_does_not_matter(seed, other):
    (source,), target = random_pair(seed)
    pair = SharedNodePair(source, target)
    again = SharedNodePair(permuted(source, other), permuted(target, other + 1))
    assert again.summary() == pair.summary()
    for name in GRAPHS:
        found = []
        for one in (pair, again):
            keys = torch.full((one.num_union_nodes,), -1)
            keys[one.nodes().source_ids[0]] = one.source[0].key
            keys[: one.num_nodes] = one.target.key
            graph = one.graph(name)
            ends = keys[graph.n_id[graph.edge_index]].t().tolist()
            edges = sorted((*end, origin) for end, origin in zip(ends, graph.edge_origin.tolist(), strict=True))
            rows = sorted(zip(keys[graph.n_id].tolist(), graph.node_role.tolist(), graph.x.tolist(), strict=True))
            found.append((edges, rows))
        assert found[0] == found[1]


def test_no_edge_of_the_enriched_target_touches_a_source_only_node():
    sources, target = random_pair(5)
    pair = SharedNodePair(sources, target)
    graph = pair.enriched_target()
    assert graph.num_nodes == pair.num_nodes
    assert (graph.node_role != 0).all()
    only_source = graph.edge_origin == 2
    assert only_source.any()
    assert pair.shared[graph.edge_index[:, only_source]].all()
    assert_undirected(graph.edge_index)
    union = pair.union()
    assert torch.equal(union.n_id, torch.arange(pair.num_union_nodes))
    assert torch.equal(union.node_role == 0, union.n_id >= pair.num_nodes)


def test_edges_are_as_pyg_coalesces_them():
    sources, target = random_pair(5)
    for name in GRAPHS:
        graph = SharedNodePair(sources, target).graph(name)
        assert graph.is_coalesced()
        graph.validate()
        assert not graph.has_self_loops()


def test_local_and_global_numbers():
    sources, target = random_pair(5)
    pair = SharedNodePair(sources, target)
    graph = pair.enriched_intersection()
    assert torch.equal(graph.n_id, pair.shared.nonzero().view(-1))
    # By hand: keys 5, 7, 9 of the target and 9, 4, 5 of the source have the numbers 0, 1, 2 and 2, 3, 0.
    source = Data(edge_index=torch.tensor([[0, 1, 2], [1, 2, 0]]), key=torch.tensor([9, 4, 5]), num_nodes=3)
    target = Data(edge_index=torch.tensor([[0, 1], [1, 2]]), key=torch.tensor([5, 7, 9]), num_nodes=3)
    pair = SharedNodePair(source, target)
    for name, n_id, links in (
        ("enriched_intersection", [0, 2], [(0, 2)]),
        ("source", [0, 2, 3], [(0, 2), (0, 3), (2, 3)]),
        ("union", [0, 1, 2, 3], [(0, 1), (0, 2), (0, 3), (1, 2), (2, 3)]),
    ):
        graph = pair.graph(name)
        assert graph.n_id.tolist() == n_id
        local = [(n_id.index(u), n_id.index(v)) for u, v in links]
        assert graph.edge_index.t().tolist() == sorted([u, v] for pair in local for u, v in (pair, pair[::-1]))


def test_without_pairs_in_either_direction():
    sources, target = random_pair(2)
    pair = SharedNodePair(sources, target)
    links = pair.target_links()
    both = torch.cat([links[:, :3], pair.enriched_target().edge_index[:, -2:]], dim=1)
    both[:, 0] = both[:, 0].flip(0)
    hidden = {frozenset(p) for p in both.t().tolist()}
    for name in GRAPHS:
        whole, rest = pair.graph(name), pair.graph(name, without=both)
        kept = [
            (edge, origin)
            for edge, origin in zip(whole.n_id[whole.edge_index].t().tolist(), whole.edge_origin.tolist(), strict=True)
            if frozenset(edge) not in hidden
        ]
        found = rest.n_id[rest.edge_index].t().tolist(), rest.edge_origin.tolist()
        assert list(zip(*found, strict=True)) == kept
        assert pair.summary(without=both)[name]["num_links"] == len(kept) / 2


def test_summary_against_sets():
    sources, target = random_pair(4, num_sources=2)
    pair = SharedNodePair(sources, target)
    for name, (nodes, links) in expected(sources, target).items():
        assert pair.summary()[name]["num_nodes"] == len(nodes)
        assert pair.summary()[name]["num_links"] == len(links)


def test_source_weight():
    sources, target = random_pair(2)
    pair = SharedNodePair(sources, target)
    graph = pair.union(source_weight=0.25)
    assert torch.equal(graph.edge_weight, torch.tensor([0.0, 1.0, 0.25, 1.0])[graph.edge_origin.long()])
    assert "edge_weight" not in pair.union()
    for wrong in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="'source_weight' must be a finite number of at least 0"):
            pair.union(source_weight=wrong)


def test_methods_are_the_named_graphs_and_nothing_is_changed():
    sources, target = random_pair(2)
    before = copy.deepcopy((sources, target))
    pair = SharedNodePair(sources, target)
    for name in ("intersection", "enriched_intersection", "enriched_target", "union"):
        one, other = getattr(pair, name)(), pair.graph(name)
        assert all(torch.equal(one[key], other[key]) for key in ("x", "edge_index", "n_id", "node_role"))
    for one, other in zip((*sources, target), (*before[0], before[1]), strict=True):
        assert all(torch.equal(one[key], other[key]) for key in ("x", "edge_index", "key"))
    assert pickle.loads(pickle.dumps(pair)).fingerprint == pair.fingerprint
    assert "nodes shared" in repr(pair)


def test_fingerprint_is_the_targets():
    (source,), target = random_pair(2)
    pair = SharedNodePair(source, target)
    flipped = Data(
        x=-target.x, edge_index=target.edge_index.flip(0).flip(1), key=target.key, num_nodes=target.num_nodes
    )
    assert SharedNodePair(source, flipped).fingerprint == pair.fingerprint
    rewired = source.clone()
    rewired.edge_index = rewired.edge_index[:, :4]
    assert SharedNodePair(rewired, target).fingerprint == pair.fingerprint
    other = target.clone()
    other.edge_index = other.edge_index[:, 1:]
    assert SharedNodePair(source, other).fingerprint != pair.fingerprint
    assert SharedNodePair(source, target, directed=True).fingerprint != pair.fingerprint
    larger = target.clone()
    larger.num_nodes, larger.x = target.num_nodes + 1, torch.cat([target.x, target.x[:1]])
    larger.key = torch.cat([target.key, torch.tensor([999])])
    assert SharedNodePair(source, larger).fingerprint != pair.fingerprint


def test_other_features():
    sources, target = random_pair(6, num_sources=2)
    pair = SharedNodePair(sources, target)
    x = torch.randn(pair.num_union_nodes, 5)
    other = pair.with_x(x)
    assert torch.equal(other.union().x, x)
    assert torch.equal(other.graph("source").x, x[other.graph("source").n_id])
    assert pair.union().x.size(1) == 3
    split = split_links(pair, hold_out="all", num_neg=1)
    split.check(other)
    with pytest.raises(ValueError, match="'x' must have shape .N, F., a row for each of"):
        pair.with_x(x[1:])


def test_keys_given_apart():
    (source,), target = random_pair(6)
    plain = [Data(x=graph.x, edge_index=graph.edge_index, num_nodes=graph.num_nodes) for graph in (source, target)]
    by_name = SharedNodePair(source, target)
    apart = SharedNodePair(*plain, source.key, target.key)
    assert torch.equal(apart.shared, by_name.shared)
    several = SharedNodePair([plain[0]], plain[1], [source.key.tolist()], target.key.numpy())
    assert torch.equal(several.shared, by_name.shared)
    # strings are keys of one source's nodes, and names of attributes where there is a list of sources
    names = [f"k{key}" for key in source.key.tolist()], [f"k{key}" for key in target.key.tolist()]
    assert torch.equal(SharedNodePair(*plain, *names).shared, by_name.shared)
    plain[0].id, plain[0].other = source.key, source.key + 10**6
    assert int(SharedNodePair([plain[0]] * 2, plain[1], ["id", "other"], target.key).shared.sum()) > 0
    twice = SharedNodePair([plain[0]] * 2, plain[1], "id", target.key)
    assert torch.equal(twice.nodes().source_ids[0], twice.nodes().source_ids[1])
    for wrong, got in ((["id"], "1"), (source.key, "Tensor")):
        with pytest.raises(ValueError, match=f"one entry per source, 2 .got {got}"):
            SharedNodePair([plain[0]] * 2, plain[1], wrong, target.key)


def test_few_shared_nodes():
    (source,), target = random_pair(6)
    far = source.key + 10_000
    with pytest.raises(ValueError, match="share 0 of the target's 24 nodes, and at least 2 are needed"):
        SharedNodePair(source, target, far)
    far[0] = target.key[0]
    with pytest.raises(ValueError, match="share 1 of"):
        SharedNodePair(source, target, far)
    SharedNodePair(source, target, far, min_shared=1)
    size = 400
    large = Data(edge_index=torch.tensor([[0], [1]]), key=torch.arange(size), num_nodes=size)
    with pytest.warns(UserWarning, match="only 3 of the target's 400 nodes are shared"):
        SharedNodePair(Data(edge_index=torch.tensor([[0], [1]]), num_nodes=3), large, torch.arange(3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SharedNodePair(Data(edge_index=torch.tensor([[0], [1]]), num_nodes=4), large, torch.arange(4))


@pytest.mark.slow
def test_millions_of_nodes_and_a_hundred_million_edges():
    import resource

    size = 2_000_000

    def graph(first, num_links):
        half = torch.randint(size, (2, num_links), generator=torch.Generator().manual_seed(first))
        edges = torch.cat([half, half.flip(0)], dim=1)
        return Data(edge_index=edges, key=torch.randperm(size) + first, num_nodes=size)

    pair = SharedNodePair(graph(0, 42_000_000), graph(400_000, 20_000_000))
    union = pair.union()
    assert union.num_nodes == 2_400_000
    assert 123_900_000 < union.num_edges < 124_000_000
    assert int(pair.shared.sum()) == 1_600_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 12 * 2**20  # KiB


def test_bad_arguments():
    (source,), target = random_pair(6)
    pair = SharedNodePair(source, target)
    with pytest.raises(ValueError, match="'name' must be one of target, intersection"):
        pair.graph("both")
    with pytest.raises(TypeError, match="'without' must be a LinkSplit or pairs .2, P. .got list"):
        pair.union(without=[[0], [1]])
    with pytest.raises(ValueError, match="'without' holds the index 24"):
        pair.union(without=torch.tensor([[0], [24]]))
    with pytest.raises(TypeError, match="'min_shared' must be an integer"):
        SharedNodePair(source, target, min_shared="a")
    with pytest.raises(TypeError, match="'directed' must be True or False"):
        SharedNodePair(source, target, directed=None)
    wide = source.clone()
    wide.x = torch.ones(source.num_nodes, 7)
    with pytest.raises(ValueError, match="7 columns of .*, and that of the target 3 of"):
        SharedNodePair(wide, target)
    out = source.clone()
    out.edge_index = torch.tensor([[0], [99]])
    with pytest.raises(ValueError, match="'source.edge_index' holds the index 99"):
        SharedNodePair(out, target)
    with pytest.raises(ValueError, match="'target.edge_index' holds the index 99"):
        SharedNodePair(source, out)
    out.edge_index = torch.rand(2, 3)
    with pytest.raises(TypeError, match="'source.edge_index' must be a dense int64 or int32 tensor"):
        SharedNodePair(out, target)


def test_wrong_graphs():
    graph = Data(edge_index=torch.tensor([[0], [1]]), num_nodes=2)
    for name, wrong in (("source", (HeteroData(), graph)), ("target", (graph, HeteroData()))):
        with pytest.raises(
            TypeError, match=f"'{name}' must be a Data .got HeteroData.: graphs of several types of node"
        ):
            SharedNodePair(*wrong)
    with pytest.raises(TypeError, match="'source' must be a Data .got dict"):
        SharedNodePair({}, graph)
    with pytest.raises(ValueError, match="'source' must hold its edges in 'edge_index'"):
        SharedNodePair(Data(num_nodes=2), graph)
