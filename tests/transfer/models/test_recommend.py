"""The best partners of some nodes are those of all scores; new nodes are scored from their features; files keep it."""

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch_geometric.data import Data
from transfer_pairs import small_pair

from graphsparse.testing import random_graph
from graphsparse.training import link_training
from graphsparse.transfer import (
    BASELINES,
    GITL,
    BaselineOptions,
    LinkPredictor,
    LinkTeacher,
    MLPStudent,
    SharedNodePair,
    sage_encoder,
    split_links,
)
from graphsparse.transfer.baselines import heuristics
from graphsparse.transfer.data import partners, reach

SHORT = link_training(epochs=2, eval_every=1)
OPTIONS = BaselineOptions(hidden=8, student_hidden=8, training=SHORT, student_training=SHORT)
KINDS = ("common_neighbors", "adamic_adar", "resource_allocation", "pagerank", "xmc")
NODES = torch.tensor([70, 0, 5, 0])


def fitted(name, pair, split):
    if name == "chain":
        teacher = LinkTeacher(sage_encoder(8), training=SHORT)
        return GITL(("teacher", "xmc"), teacher=teacher).fit(pair, split)
    return BASELINES[name](pair, split, 0, OPTIONS)


def as_all_scores_say(scorer, split, nodes, k, num_nodes, *, exclude_known, directed=False, positive=False):
    """Compare with all scores of each node, sorted."""
    found, scores = scorer.recommend(nodes, k, exclude_known=exclude_known)
    assert found.shape == scores.shape == (nodes.numel(), k)
    known = set(map(tuple, split.train.t().tolist()))
    known |= set() if directed else {(v, u) for u, v in known}
    side = torch.full((num_nodes,), -1) if split.side is None else split.side
    for u, row, values in zip(nodes.tolist(), found, scores, strict=True):
        others = [v for v in range(num_nodes) if v != u and not (exclude_known and (u, v) in known)]
        others = torch.tensor([v for v in others if side[u] < 0 or side[v] != side[u]])
        every = scorer.score(torch.stack([torch.full_like(others, u), others]))
        best = every[every > 0] if positive else every
        best = best.sort(descending=True).values[:k]
        there = row >= 0
        assert torch.equal(there, torch.arange(k) < best.numel())
        assert torch.allclose(values[there], best, atol=1e-6)
        assert bool((values[~there] == -torch.inf).all())
        place = torch.searchsorted(others, row[there])
        assert torch.equal(others[place], row[there])
        assert torch.allclose(every[place], values[there], atol=1e-6)
        assert row[there].unique().numel() == int(there.sum())


@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("directed", [False, True])
@pytest.mark.parametrize("name", [*KINDS, "cosine", "gnn_target", "mlp_target", "chain"])
def test_the_best_of_all_scores(name, directed, small, monkeypatch):
    if small:  # blocks of a few nodes and candidates
        for module, key, value in ((partners, "_ROWS", 3), (partners, "_COLUMNS", 7), (reach, "_FIRST", 1)):
            monkeypatch.setattr(module, key, value)
        monkeypatch.setattr(heuristics, "_LEAST_COLUMNS", 2)
        monkeypatch.setattr(heuristics, "_NUMBERS", 2)
    pair = SharedNodePair([], random_graph(80), directed=directed)
    split = split_links(pair, (0.7, 0.1, 0.2))
    scorer = fitted(name, pair, split)
    for exclude_known in (True, False):
        options = {"exclude_known": exclude_known, "directed": directed, "positive": name in KINDS}
        as_all_scores_say(scorer, split, NODES, 6, 80, **options)
    empty, scores = scorer.recommend(NODES[:0], 3)
    assert empty.shape == scores.shape == (0, 3)


@pytest.mark.parametrize("name", ["common_neighbors", "pagerank", "xmc", "cosine"])
def test_nodes_out_of_reach_and_more_partners_than_there_are(name):
    """Two components, one node without links; heuristics recommend nobody beyond."""
    edges = torch.tensor([[0, 1, 2, 0, 4, 5, 6, 4], [1, 2, 3, 3, 5, 6, 7, 6]])
    data = Data(x=torch.rand(9, 4), edge_index=edges, num_nodes=9)
    split = split_links(data, (0.7, 0, 0.3), num_neg=1, between="any")
    scorer = BASELINES[name](data, split)
    as_all_scores_say(scorer, split, torch.arange(9), 20, 9, exclude_known=True, positive=name != "cosine")
    if name != "cosine":
        assert bool((scorer.recommend(torch.tensor([8]), 2)[0] < 0).all())


@pytest.mark.parametrize("name", ["pagerank", "gnn_target", "xmc"])
def test_partners_are_on_the_other_side(name):
    bought = (torch.rand(30, 20, generator=torch.Generator().manual_seed(0)) < 0.3).nonzero().t()
    data = Data(edge_index=bought + torch.tensor([[0], [30]]), num_nodes=50)
    split = split_links(data, (0.6, 0.2, 0.2))
    assert split.side is not None
    scorer = BASELINES[name](data, split, 0, OPTIONS)
    for exclude_known in (True, False):
        options = {"exclude_known": exclude_known, "positive": name != "gnn_target"}
        as_all_scores_say(scorer, split, torch.tensor([3, 40]), 4, 50, **options)


@pytest.mark.parametrize("name", ["cosine", "mlp_target"])
def test_new_nodes_are_scored_as_known_ones_with_the_same_features(name):
    pair, split = small_pair()
    scorer = BASELINES[name](pair, split, 0, OPTIONS)
    before = scorer.score(split.test)
    num, x = pair.num_nodes, pair.target.x
    more = scorer.extend(x[[4, 9]])
    pairs = torch.tensor([[4, 9, 4], [20, 30, 9]])
    same = torch.tensor([[num, num + 1, num], [20, 30, num + 1]])
    assert torch.allclose(more.score(same), scorer.score(pairs), atol=1e-6)
    assert torch.equal(more.score(split.test), before)
    assert torch.equal(scorer.score(split.test), before)
    with pytest.raises(ValueError, match="index"):
        scorer.score(same)
    as_all_scores_say(more, split, torch.tensor([num, 3]), 5, num + 2, exclude_known=True)
    assert more.extend(x[:1]).score(torch.tensor([[num + 2], [num + 1]])).shape == (1,)
    for wrong, error, match in (
        (x[:, 1:], ValueError, "'x' must be .n, 8., features as those"),
        (x[0], ValueError, "'x' must be .n, 8., features as those"),
        (x.long(), TypeError, "'x' must be dense floating point numbers .got torch.int64"),
    ):
        with pytest.raises(error, match=match):
            scorer.extend(wrong)


def test_new_nodes_on_a_side():
    bought = (torch.rand(30, 20, generator=torch.Generator().manual_seed(0)) < 0.3).nonzero().t()
    data = Data(x=torch.rand(50, 4), edge_index=bought + torch.tensor([[0], [30]]), num_nodes=50)
    split = split_links(data, (0.6, 0.2, 0.2))
    more = BASELINES["cosine"](data, split).extend(data.x[:1])
    found, _ = more.recommend(torch.tensor([50, 0, 40]), 50)
    assert set(found[0].tolist()) == {*range(50)}  # of which side it is nobody knows
    assert {*range(30)} & set(found[1].tolist()) == set()
    assert {50} < set(found[2].tolist()) <= {*range(30), 50, -1}


def test_vectors_of_places_are_no_features():
    data = random_graph()
    scorer = BASELINES["gnn_target"](data, split_links(data), 0, OPTIONS)
    with pytest.raises(TypeError, match="scores nodes by their place in the target, not by features alone"):
        scorer.extend(data.x)


@pytest.mark.parametrize("name", ["xmc", "mlp_target"])
def test_a_file_recommends_the_same(tmp_path, name):
    pair, split = small_pair()
    scorer = BASELINES[name](pair, split, 0, OPTIONS)
    scorer.save(tmp_path / "file")
    again = LinkPredictor.load(tmp_path / "file", pair)
    for exclude_known in (True, False):
        one, other = (s.recommend(NODES[1:], 4, exclude_known=exclude_known) for s in (scorer, again))
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])
    if name == "mlp_target":
        new = scorer.extend(pair.target.x[:3])
        new.save(tmp_path / "new")
        pairs = torch.tensor([[pair.num_nodes + 2], [5]])
        assert torch.equal(LinkPredictor.load(tmp_path / "new", pair).score(pairs), new.score(pairs))


SERVE = """
import sys, torch
from safetensors.torch import load_file
from torch_geometric.data import Data
from graphsparse.transfer import LinkPredictor, SharedNodePair
given = load_file(sys.argv[1] + "/graph")
graphs = [Data(edge_index=given[n + ".edges"], key=given[n + ".key"], x=given[n + ".x"]) for n in ("source", "target")]
scorer = LinkPredictor.load(sys.argv[1] + "/fitted", SharedNodePair(*graphs))
assert torch.equal(scorer.score(given["pairs"]), given["scores"])
partners, scores = scorer.recommend(given["nodes"], 3)
assert torch.equal(partners, given["partners"]) and torch.equal(scores, given["best"])
assert "pickle" not in open(sys.argv[1] + "/fitted", "rb").read(9).decode("latin")
print(type(scorer).__name__)
"""


def test_a_fresh_process_gives_the_same_bit_for_bit(tmp_path):
    from safetensors.torch import save_file

    pair, split = small_pair()
    teacher, student = LinkTeacher(sage_encoder(8), training=SHORT), MLPStudent(8, training=SHORT)
    names = ("teacher", "student+edge_labels", "xmc")
    scorer = GITL(names, teacher=teacher, student=student).fit(pair, split)
    scorer.save(tmp_path / "fitted")
    best, scores = scorer.recommend(NODES[1:], 3)
    graph = {
        "pairs": split.test,
        "scores": scorer.score(split.test),
        "nodes": NODES[1:],
        "partners": best,
        "best": scores,
    }
    for name, data in (("source", pair.source[0]), ("target", pair.target)):
        graph |= {f"{name}.edges": data.edge_index, f"{name}.key": data.key, f"{name}.x": data.x}
    save_file({name: value.contiguous() for name, value in graph.items()}, tmp_path / "graph")
    command = [sys.executable, "-W", "ignore", "-c", SERVE, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["GITL"]


def test_what_is_refused(tmp_path):
    data = random_graph()
    split = split_links(data)
    with pytest.raises(RuntimeError, match="has learned nothing yet"):
        MLPStudent().recommend(NODES, 3)
    scorer = BASELINES["cosine"](data, split)
    for arguments, error, match in (
        ((NODES.float(), 3), TypeError, "'nodes' must be integers .n. .got torch.float32"),
        ((NODES[None], 3), TypeError, r"'nodes' must be integers .n. .got torch.int64 \[1, 4\]"),
        ((NODES, 3), ValueError, "'nodes' must be from 0 to 59 .got 0 to 70"),
        ((NODES[1:], 0), ValueError, "'k' must be"),
    ):
        with pytest.raises(error, match=match):
            scorer.recommend(*arguments)
    with pytest.raises(TypeError, match="'exclude_known' must be True or False"):
        scorer.recommend(NODES[1:], 3, exclude_known=1)


def test_cosine_against_torch():
    """The whole chain of blocks against one product."""
    data = random_graph(300)
    split = split_links(data)
    found, scores = BASELINES["cosine"](data, split).recommend(torch.arange(300), 4, exclude_known=False)
    every = F.normalize(data.x) @ F.normalize(data.x).t()
    every.fill_diagonal_(-2)
    best = every.topk(4).values
    assert torch.allclose(scores, best, atol=1e-6)
    assert torch.allclose(every.gather(1, found), best, atol=1e-6)
