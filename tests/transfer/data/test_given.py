"""Links and non-links that somebody else split: taken by every method, and judged as OGB judges them."""

import numpy as np
import pytest
import torch
from ogb.linkproppred import Evaluator
from sklearn.metrics import average_precision_score, roc_auc_score
from torch_geometric.data import Data
from transfer_pairs import window_pair

from graphsparse.metrics import link_report
from graphsparse.testing import random_graph
from graphsparse.training import link_training
from graphsparse.transfer import (
    BASELINES,
    GITL,
    BaselineOptions,
    LinkSplit,
    LinkTeacher,
    MLPStudent,
    SharedNodePair,
    assert_no_leak,
    given_split,
    sage_encoder,
    split_links,
)
from graphsparse.transfer.data.keys import GRAPHS

SHORT = link_training(epochs=2, eval_every=1)
OPTIONS = BaselineOptions(hidden=8, student_hidden=8, training=SHORT, student_training=SHORT, pretraining_epochs=2)


@pytest.fixture(scope="module")
def whole():
    """A pair, and links and non-links of its target in OGB's form: more links than non-links for validation."""
    pair = window_pair(random_graph(150))
    drawn = split_links(pair, hold_out="all", num_neg=2)
    official = {
        "train": {"edge": drawn.train.t().numpy()},
        "valid": {"edge": drawn.val.t(), "edge_neg": drawn.val_neg[:, : drawn.val.size(1) - 7].t()},
        "test": {"edge": drawn.test.flip(0).t(), "edge_neg": drawn.test_neg[:, 5:].t()},
    }
    return pair, drawn, official


@pytest.fixture(scope="module")
def official(whole):
    """The same as OGB has it: the target's edges are those for training."""
    pair, drawn, parts = whole
    target = pair.target.clone()
    target.edge_index = pair.graph("target", without=drawn.heldout).edge_index
    shown = SharedNodePair(pair.source[0], target)
    return shown, given_split(shown, parts)


def test_the_parts_are_as_given(whole, official, tmp_path):
    pair, drawn, parts = whole
    for one, split in ((pair, given_split(pair, parts)), official):
        assert torch.equal(split.train, drawn.train)
        assert torch.equal(split.val, drawn.val)
        assert torch.equal(split.test, drawn.test)
        assert torch.equal(split.val_neg, drawn.val_neg[:, : drawn.val.size(1) - 7])
        assert torch.equal(split.test_neg, drawn.test_neg[:, 5:])
        assert split.num_neg == 0
        assert_no_leak(split, one)
        for name in GRAPHS:
            assert_no_leak(split, one, graph=one.graph(name, without=split))
        split.save(tmp_path / "split")
        assert LinkSplit.load(tmp_path / "split", one).hash == split.hash
    without_train = {"val": (drawn.val, drawn.val_neg), "test": (drawn.test, drawn.test_neg[:, :3])}
    assert torch.equal(given_split(pair, without_train).train, drawn.train)


@pytest.mark.parametrize("name", ["GITL", *BASELINES])
def test_every_method_takes_it(official, name):
    pair, split = official
    if name == "GITL":
        teacher, student = LinkTeacher(sage_encoder(8), training=SHORT), MLPStudent(8, training=SHORT)
        scorer = GITL(teacher=teacher, student=student).fit(pair, split)
    else:
        scorer = BASELINES[name](pair, split, 0, OPTIONS)
    assert_no_leak(split, pair, score=scorer.score)
    links, rest = scorer.score(split.test), scorer.score(split.test_neg)
    report = link_report(links, rest, ks=[20])
    truth = np.arange(links.numel() + rest.numel()) < links.numel()
    scores = torch.cat([links, rest]).numpy()
    assert report["auroc"] == pytest.approx(roc_auc_score(truth, scores))
    assert report["average precision"] == pytest.approx(average_precision_score(truth, scores))
    assert report["hits@20"] == Evaluator("ogbl-ddi").eval({"y_pred_pos": links, "y_pred_neg": rest})["hits@20"]


def test_non_links_of_each_link():
    """As in ogbl-citation2: directed, and a thousand non-links of each link, of which some come twice."""
    generator = torch.Generator().manual_seed(0)
    edges = torch.randint(60, (2, 300), generator=generator).sort(0, descending=True).values
    edges = torch.unique(edges[:, edges[0] != edges[1]], dim=1)
    target = Data(edge_index=edges[:, 40:], key=torch.arange(60), num_nodes=60)
    pair = SharedNodePair(target, target, directed=True)
    linked = set(map(tuple, edges.t().tolist()))

    def part(links):
        rows = [[v for v in range(60) if v != u and (u, v) not in linked][:9] for u in links[0].tolist()]
        return {"source_node": links[0], "target_node": links[1], "target_node_neg": torch.tensor(rows)}

    parts = {"train": {"source_node": edges[0, 40:], "target_node": edges[1, 40:]}}
    parts |= {"valid": part(edges[:, :20]), "test": part(edges[:, 20:40])}
    split = given_split(pair, parts)
    assert split.val_neg.size(1) == 180
    assert torch.equal(split.val_neg[0].view(20, 9), split.val[0, :, None].expand(20, 9))
    assert torch.equal(split.test_neg[1].view(20, 9), parts["test"]["target_node_neg"])
    assert torch.unique(split.val_neg, dim=1).size(1) < 180
    scorer = BASELINES["pagerank"](pair, split)
    links, rest = scorer.score(split.test), scorer.score(split.test_neg).view(20, 9)
    found = Evaluator("ogbl-citation2").eval({"y_pred_pos": links, "y_pred_neg": rest})["mrr_list"].mean()
    assert link_report(links, rest)["mrr"] == pytest.approx(float(found))


def test_a_held_out_link_that_the_source_has(whole):
    pair, drawn, parts = whole
    shared = drawn.test[:, pair.shared[drawn.test].all(0)][:, :4]
    assert shared.size(1)
    local = torch.searchsorted(pair.source[0].key, pair.target.key[shared])
    source = pair.source[0].clone()
    source.edge_index = torch.cat([source.edge_index, local.flip(0), local], 1)
    other = SharedNodePair(source, pair.target)
    split = given_split(other, parts)
    for name in GRAPHS:
        assert_no_leak(split, other, graph=other.graph(name, without=split))


def test_what_is_refused(whole, official):
    pair, drawn, _ = whole
    good = {"val": (drawn.val, drawn.val_neg), "test": (drawn.test, drawn.test_neg)}
    link, non_link = drawn.train[:, :1], drawn.test_neg[:, :1]

    def add(pairs, more):
        return torch.cat([pairs, more], 1)

    cases = [
        ({"test": good["test"]}, "must hold links and non-links under 'val'"),
        ({"val": (drawn.val, add(drawn.val_neg, link))}, "rule L4: 1 of .* in 'val_neg' are links of the target"),
        ({"val": (drawn.val, add(drawn.val_neg, drawn.test[:, :1]))}, "rule L4: 1 of .* in 'val_neg' are links"),
        ({"val": (add(drawn.val, drawn.test[:, :2].flip(0)), drawn.val_neg)}, "rule L3: 'val' and 'test' have 2 pairs"),
        ({"val": (add(drawn.val, drawn.val[:, :1]), drawn.val_neg)}, "rule L3: 'split.val' has pairs more than once"),
        ({"val": (add(drawn.val, torch.zeros(2, 1).long()), drawn.val_neg)}, "rule L3: 'split.val' has self-loops"),
        ({"train": add(drawn.train, drawn.val[:, :3])}, "3 links for training are held out, too, .* leave 'train' out"),
        ({"train": add(drawn.train, non_link)}, "1 links for training are no links of the target"),
        ({"train": drawn.train[:, 2:]}, "2 links of the target are in no part"),
        ({"val": (drawn.val.t(), drawn.val_neg)}, "must have shape .2, E"),
        ({"val": (drawn.val + 10**6, drawn.val_neg)}, "holds the index"),
        ({"val": {"head": drawn.val[0], "relation": drawn.val[0]}}, "links of several relations are not taken"),
        ({"val": {"edge": drawn.val.t()}}, "must hold pairs under 'edge' and 'edge_neg'"),
    ]
    for changed, match in cases:
        parts = {key: value for key, value in {**good, **changed}.items() if changed != {"test": good["test"]}}
        with pytest.raises(ValueError, match=match):
            given_split(pair, parts or changed)
    for wrong, match in (
        ((drawn, good), "'pair' must be a SharedNodePair"),
        ((pair, [1]), "'parts' must be a dictionary"),
        ((pair, {**good, "val": drawn.val}), "must hold links and non-links .* under 'val'"),
    ):
        with pytest.raises(TypeError, match=match):
            given_split(*wrong)
    with pytest.raises(ValueError, match="another pair"):
        GITL.small(2, 2).fit(pair, official[1])


def test_sides_of_given_non_links():
    generator = torch.Generator().manual_seed(0)
    pairs = (torch.rand(30, 20, generator=generator) < 0.3).nonzero().t() + torch.tensor([[0], [30]])
    free = torch.tensor([[u, v] for u in range(30) for v in range(30, 50) if [u, v] not in pairs.t().tolist()]).t()
    target = Data(edge_index=pairs, key=torch.arange(50), num_nodes=50)
    pair = SharedNodePair(target, target)
    good = {"val": (pairs[:, :9], free[:, :4]), "test": (pairs[:, 9:20], free[:, 10:30])}
    assert "between=30 and 20 nodes (found)" in repr(given_split(pair, good))
    users = torch.tensor([[0, 1], [2, 3]])
    wrong = {**good, "test": (pairs[:, 9:20], torch.cat([free[:, 10:30], users], 1))}
    with pytest.raises(ValueError, match="rule L6: 2 of 22 pairs in 'test_neg' are not between .* between='any' lets"):
        given_split(pair, wrong)
    assert given_split(pair, wrong, between="any").side is None
