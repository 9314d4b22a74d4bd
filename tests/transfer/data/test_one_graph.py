"""One graph in the place of a pair: splits, the rules against leaks, the transform, and what methods make of it."""

import networkx as nx
import pytest
import torch
from torch_geometric.data import Data, HeteroData

from graphsparse.metrics import link_report
from graphsparse.testing import random_graph
from graphsparse.training import link_training
from graphsparse.transfer import (
    BASELINES,
    GITL,
    BaselineOptions,
    LinkPredictor,
    LinkSplit,
    SharedNodePair,
    SplitLinks,
    assert_no_leak,
    given_split,
    split_links,
)

SHORT = link_training(epochs=2, eval_every=1)
OPTIONS = BaselineOptions(hidden=8, student_hidden=8, training=SHORT, student_training=SHORT)
BUYS = ("user", "buys", "item")


def linked(edge_index):
    return {frozenset(pair) for pair in edge_index.t().tolist()}


def test_a_graph_is_a_target_without_a_source():
    data = random_graph()
    pair = SharedNodePair([], data)
    assert linked(pair.target_links()) == linked(data.edge_index)
    for name in ("target", "enriched_target", "union"):
        graph = pair.graph(name)
        assert linked(graph.edge_index) == linked(data.edge_index)
        assert torch.equal(graph.x, data.x)
    for name in ("source", "intersection", "enriched_intersection"):
        with pytest.raises(ValueError, match=f"one graph has no source, and so no '{name}'"):
            pair.graph(name)
    # The same split as of a pair whose nodes all are the source's.
    both = SharedNodePair(data, data, torch.arange(60), torch.arange(60))
    split = split_links(data, (0.6, 0.2, 0.2), 3)
    assert torch.equal(split.queries, split_links(both, (0.6, 0.2, 0.2), 3, hold_out="all").queries)
    assert split.options["hold_out"] == "all"


def test_rules_and_files(tmp_path):
    data = random_graph()
    split = split_links(data, (0.6, 0.2, 0.2))
    assert_no_leak(split, data, graph=SharedNodePair([], data).graph("target", without=split))
    with pytest.raises(ValueError, match="rule L1: 'graph' has .* of the held-out links as edges"):
        assert_no_leak(split, data, graph=data)
    with pytest.raises(ValueError, match="rule L2"):
        assert_no_leak(split, random_graph(50))
    split.save(tmp_path / "split")
    assert LinkSplit.load(tmp_path / "split", data).hash == split.hash
    with pytest.raises(TypeError, match="'pair' must be a Data .got HeteroData"):
        split_links(HeteroData())


@pytest.mark.parametrize("name", ["pagerank", "resource_allocation", "gnn_target", "mlp_target", "cosine"])
def test_methods_take_a_graph(tmp_path, name):
    data = random_graph()
    parts = split_links(data, (0.6, 0.2, 0.2))
    given = given_split(data, {"val": (parts.val, parts.val_neg), "test": (parts.test, parts.test_neg)})
    for split in (parts, given):
        scorer = BASELINES[name](data, split, 0, OPTIONS)
        scorer.save(tmp_path / name)
        again = LinkPredictor.load(tmp_path / name, data)
        assert torch.equal(again.score(split.test), scorer.score(split.test))
    with pytest.raises(ValueError, match="one graph has no source, and so no 'source'"):
        BASELINES["source_zero_shot"](data, parts, 0, OPTIONS)


def test_report_is_that_of_the_scores():
    data = random_graph()
    split = split_links(data, (0.6, 0.2, 0.2), num_neg=4)
    scorer = BASELINES["pagerank"](data, split)
    for part in ("val", "test"):
        links, rest = (scorer.score(getattr(split, name)) for name in (part, f"{part}_neg"))
        assert split.report(scorer, part, ks=[3]) == link_report(links, rest.view(-1, 4), ks=[3])
    pooled = given_split(data, {"val": (split.val, split.val_neg), "test": (split.test, split.test_neg)})
    assert "mrr" not in pooled.report(scorer)  # not known to be each link's
    own = split.test.repeat_interleave(2, 1)  # one end in each, as in ogbl-citation2
    free = [next(v for v in range(60) if v != u and {u, v} not in map(set, split.train.t().tolist())) for u in own[0]]
    given = LinkSplit(
        split.train, split.val, split.test, split.val_neg, torch.stack([own[0], torch.tensor(free)]), 0, ""
    )
    assert "mrr" in given.report(scorer)
    with pytest.raises(ValueError, match="'part' must be 'val' or 'test'"):
        split.report(scorer, "train")


@pytest.mark.parametrize("negatives", ["uniform", "heart"])
def test_transform(negatives):
    data = random_graph()
    data.edge_attr = data.edge_index.t().float()
    transform = SplitLinks((0.6, 0.2, 0.2), 1, num_neg=4, negatives=negatives)
    train, val, test = graphs = transform(data)
    split = transform.split(data)
    assert split.hash == split_links(data, (0.6, 0.2, 0.2), 1, num_neg=4, negatives=negatives).hash
    for graph, name in zip(graphs, ("train", "val", "test"), strict=True):
        assert linked(graph.edge_index) == linked(split.train)
        assert torch.equal(graph.edge_attr, graph.edge_index.t().float())
        assert torch.equal(graph.edge_label_index[:, graph.edge_label == 1], getattr(split, name))
    for graph, name in ((val, "val_neg"), (test, "test_neg")):
        assert torch.equal(graph.edge_label_index[:, graph.edge_label == 0], getattr(split, name))
    assert bool(train.edge_label.all())
    assert "edge_label_index" not in data
    assert data.num_edges > train.num_edges
    data.known = {"pairs": split.test}
    with pytest.raises(ValueError, match="rule L1: 'graph' has .* of the held-out links in 'known.pairs'"):
        transform(data)


def shop(seed=0):
    """Users and items, with the links a second time under another name and one link more there, and other relations."""
    generator = torch.Generator().manual_seed(seed)
    bought = (torch.rand(30, 20, generator=generator) < 0.3).nonzero().t()
    data = HeteroData()
    for name, num in (("item", 20), ("tag", 5), ("user", 30)):
        data[name].num_nodes = num
    data[BUYS].edge_index, data[BUYS].edge_attr = bought, bought.t().float()
    free = (torch.rand(30, 20, generator=generator) < 0.1).nonzero().t()
    data["item", "bought_by", "user"].edge_index = torch.cat([bought, free], 1).flip(0)
    data["user", "knows", "user"].edge_index = torch.randint(30, (2, 90), generator=generator)
    data["item", "has", "tag"].edge_index = torch.randint(5, (2, 30), generator=generator)
    return data


@pytest.mark.parametrize("negatives", ["uniform", "heart"])
def test_one_relation_of_several(negatives):
    data = shop()
    bought = set(map(tuple, data[BUYS].edge_index.t().tolist()))
    transform = SplitLinks((0.6, 0.2, 0.2), num_neg=3, negatives=negatives, edge_type=BUYS)
    graphs = transform(data)
    split = transform.split(data)
    assert_no_leak(
        split, SharedNodePair([], Data(edge_index=data[BUYS].edge_index + torch.tensor([[0], [30]]), num_nodes=50))
    )
    held = set()
    for graph, part in zip(graphs, ("train", "val", "test"), strict=True):
        pairs, label = graph[BUYS].edge_label_index, graph[BUYS].edge_label
        assert torch.equal(pairs[:, label == 1] + torch.tensor([[0], [30]]), getattr(split, part))
        links, others = (set(map(tuple, pairs[:, label == value].t().tolist())) for value in (1, 0))
        assert links <= bought
        assert not others & bought
        assert all(u < 30 and v < 20 for u, v in others)
        held |= others if part == "train" else links | others
    for graph in graphs:
        assert torch.equal(graph[BUYS].edge_attr, graph[BUYS].edge_index.t().float())
        assert not held & set(map(tuple, graph[BUYS].edge_index.t().tolist()))
        assert not held & set(map(tuple, graph["item", "bought_by", "user"].edge_index.flip(0).t().tolist()))
        for kind in (("user", "knows", "user"), ("item", "has", "tag")):
            assert torch.equal(graph[kind].edge_index, data[kind].edge_index)
    train = graphs[0]["item", "bought_by", "user"].edge_index.flip(0)
    every = data["item", "bought_by", "user"].edge_index.flip(0)
    assert set(map(tuple, train.t().tolist())) == set(map(tuple, every.t().tolist())) - held


def test_a_relation_within_one_type():
    data = shop()
    known = SplitLinks(edge_type=("user", "knows", "user"), num_neg=2, between="any")
    train, _, test = known(data)
    kind = ("user", "knows", "user")
    shown = nx.Graph(train[kind].edge_index.t().tolist())
    assert not any(shown.has_edge(u, v) for u, v in test[kind].edge_label_index.t().tolist())
    assert torch.equal(train[BUYS].edge_index, data[BUYS].edge_index)


def test_what_the_transform_refuses():
    for transform, graph, error, match in (
        (SplitLinks(), shop(), ValueError, "'edge_type' must be one of"),
        (SplitLinks(edge_type=("user", "sells", "item")), shop(), ValueError, "'edge_type' must be one of"),
        (SplitLinks(edge_type=BUYS), random_graph(), TypeError, "'data' must be a HeteroData where 'edge_type' is"),
        (SplitLinks(negatives="hard"), random_graph(), ValueError, "'negatives' must be one of"),
    ):
        with pytest.raises(error, match=match):
            transform(graph)
    assert repr(SplitLinks(num_neg=3)).startswith("SplitLinks(ratios=(0.8, 0.1, 0.1), seed=0, num_neg=3")


def test_gitl_chooses_among_what_needs_no_source():
    data = random_graph(200)
    split = split_links(data, seed=0)
    fitted = GITL.small(epochs=3, student_epochs=3).fit(data, split)
    tried = set(fitted.validation) - {"GITL", "combination", "combination, cross-fitted"}
    assert tried == {"teacher", "teacher+edge_labels", "xmc", "pagerank", "resource_allocation"} | {
        "preferential_attachment",
        "cosine",
    }
    assert fitted.validation["GITL"] >= max(fitted.validation[name] for name in tried)
    with pytest.warns(UserWarning, match="the pair has no source, which these need: xmc_enriched"):
        GITL.small(3, 3, candidates=("xmc", "xmc_enriched")).fit(data, split)
    with pytest.raises(ValueError, match="the pair has no source, which all of the candidates need"):
        GITL.small(3, 3, candidates=("xmc_enriched",)).fit(data, split)
