"""What all predictors have in common: files, pickles, and what they refuse."""

import copy
import itertools
import json
import pickle

import pytest
import torch
from safetensors import safe_open
from torch_geometric.nn import GraphSAGE
from transfer_pairs import small_pair

from graphsparse.training import link_training
from graphsparse.transfer import (
    BASELINES,
    GITL,
    BaselineOptions,
    EdgeLabelPropagation,
    LinkPredictor,
    LinkTeacher,
    MLPStudent,
    sage_encoder,
)

SHORT = link_training(epochs=4, lr=1e-2, eval_every=2)
OPTIONS = BaselineOptions(hidden=8, student_hidden=8, training=SHORT, student_training=SHORT, pretraining_epochs=3)
FIXED = EdgeLabelPropagation(lam=0.3)


@pytest.fixture(scope="module")
def data():
    return small_pair()


def fitted(name, pair, split):
    teacher = LinkTeacher(sage_encoder(12), training=SHORT)
    student = MLPStudent(16, training=SHORT)
    if name == "teacher":
        return teacher.fit(pair, split)
    if name == "student":
        return student.fit(pair, split, teacher.fit(pair, split))
    chains = {
        "GITL": {},
        "one of all": {"combine": False, "settings": OPTIONS, "candidates": tuple(BASELINES)},
        "published chain": {"combine": False, "candidates": GITL.PUBLISHED, "propagation": FIXED},
    }
    if name in chains:
        return GITL(teacher=teacher, student=student, **chains[name]).fit(pair, split)
    return BASELINES[name](pair, split, 3, OPTIONS)


def always_better():
    """A metric that grows each time it is asked for, so that what comes last is taken."""
    count = itertools.count()
    return lambda links, non_links: float(next(count))


NAMES = ["teacher", "student", "GITL", "one of all", "published chain", *BASELINES]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_and_a_pickle_give_the_same_scores(data, tmp_path, name):
    pair, split = data
    scorer = fitted(name, pair, split)
    expected = scorer.score(split.test)
    scorer.save(tmp_path / "fitted.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["fitted.safetensors"]
    for kind in (type(scorer), LinkPredictor):
        again = kind.load(tmp_path / "fitted.safetensors", pair)
        assert type(again) is type(scorer)
        assert torch.equal(again.score(split.test), expected)
        assert again.origin == scorer.origin
    again.save(tmp_path / "again.safetensors")  # what was read can be written
    assert torch.equal(LinkPredictor.load(tmp_path / "again.safetensors", pair).score(split.test), expected)
    assert torch.equal(pickle.loads(pickle.dumps(scorer)).score(split.test), expected)


@pytest.mark.parametrize("name", ["teacher", "student", "GITL", "gnn_target", "pagerank_enriched", "xmc_enriched"])
def test_links_with_a_direction(tmp_path, name):
    pair, split = small_pair(directed=True)
    scorer = fitted(name, pair, split)
    scorer.save(tmp_path / "fitted.safetensors")
    again = LinkPredictor.load(tmp_path / "fitted.safetensors", pair)
    assert torch.equal(again.score(split.test), scorer.score(split.test))
    assert not torch.equal(scorer.score(split.queries), scorer.score(split.queries.flip(0)))


def test_what_was_read_goes_on(data, tmp_path):
    """A teacher teaches, a student takes new nodes, and a chain says what it chose."""
    pair, split = data
    teacher = fitted("teacher", pair, split)
    teacher.save(tmp_path / "teacher")
    again = LinkTeacher.load(tmp_path / "teacher", pair)
    assert again.options() == teacher.options()
    for place in ("target", "intersection"):
        assert torch.equal(again.embed(place), teacher.embed(place))
    student = MLPStudent(16, training=SHORT).fit(pair, split, again)
    assert torch.equal(student.score(split.test), fitted("student", pair, split).score(split.test))
    student.save(tmp_path / "student")
    x = torch.randn(7, 8)
    assert torch.equal(MLPStudent.load(tmp_path / "student", pair).embed(x), student.embed(x))
    gitl = fitted("GITL", pair, split)
    gitl.save(tmp_path / "gitl")
    read = GITL.load(tmp_path / "gitl", pair)
    assert read.summary() == gitl.summary()
    assert (read.kept, read.validation, read.options()) == (gitl.kept, gitl.validation, gitl.options())
    assert set(read.kept) <= set(read.fitted) <= set(gitl.fitted)
    for name, candidate in read.fitted.items():
        assert torch.equal(candidate.score(split.test), gitl.fitted[name].score(split.test))


def test_links_that_several_candidates_hold_are_in_a_file_once(tmp_path):
    pair, split = small_pair()
    names = ("pagerank_enriched", "preferential_attachment_enriched", "cosine")
    gitl = GITL(names, metric=always_better()).fit(pair, split)
    rules = [name for name in gitl.kept if name != "cosine"]
    assert len(rules) > 1
    gitl.save(tmp_path / "gitl")
    with safe_open(tmp_path / "gitl", framework="pt") as file:
        assert sum(name.endswith("edge_index") for name in file.keys()) == 1  # noqa: SIM118
    read = GITL.load(tmp_path / "gitl", pair)
    assert torch.equal(read.score(split.test), gitl.score(split.test))


def test_a_file_holds_tensors_and_plain_values(data, tmp_path):
    fitted("published chain", *data).save(tmp_path / "chain")
    with safe_open(tmp_path / "chain", framework="pt") as file:
        header = json.loads(file.metadata()["header"])
        assert {"student/vectors", "student/network.mlp.lins.0.weight"} <= set(file.keys())
        assert not any(name.startswith("teacher/") for name in file.keys())  # noqa: SIM118
    assert header["class"] == "GITL"
    assert header["options"]["student"]["hidden"] == 16
    assert header["origin"]["split"] == data[1].hash


def test_what_is_refused(data, tmp_path):
    pair, split = data
    with pytest.raises(RuntimeError, match="this MLPStudent has learned nothing yet"):
        MLPStudent().save(tmp_path / "a")
    with pytest.raises(RuntimeError, match="this GITL has learned nothing yet"):
        GITL().summary()
    fitted("teacher", pair, split).save(tmp_path / "a")
    with pytest.raises(ValueError, match="holds a LinkTeacher, and not a MLPStudent"):
        MLPStudent.load(tmp_path / "a", pair)
    with pytest.raises(ValueError, match="was fitted on another target"):
        LinkTeacher.load(tmp_path / "a", small_pair(1)[0])
    split.save(tmp_path / "split")
    with pytest.raises(ValueError, match="not a link predictor"):
        LinkPredictor.load(tmp_path / "split", pair)
    data = bytearray((tmp_path / "a").read_bytes())
    data[-5] ^= 1
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(ValueError, match="damaged or was edited"):
        LinkPredictor.load(tmp_path / "a", pair)


def best_first(links, non_links):
    return float(links.mean() - non_links.mean())


def test_what_no_pickle_and_no_file_can_hold(data, tmp_path):
    """Functions without a name of their own: a pickle says which, and what to do; files and copies go without them."""
    pair, split = data
    teacher = LinkTeacher(
        lambda width: GraphSAGE(width, 8, 2), metric=lambda *scores: best_first(*scores), training=SHORT
    )
    chain = GITL(("teacher",), teacher=teacher).fit(pair, split)
    expected = chain.score(split.test)
    for scorer in (chain, chain.teacher):
        with pytest.raises(TypeError, match="'encoder' of this LinkTeacher cannot be pickled .* 'save.path.'"):
            pickle.dumps(scorer)
    for again in (copy.copy(chain), copy.deepcopy(chain)):
        assert torch.equal(again.score(split.test), expected)
    chain.save(tmp_path / "chain")
    assert torch.equal(GITL.load(tmp_path / "chain", pair).score(split.test), expected)
    named = LinkTeacher(sage_encoder(8), metric=best_first, training=SHORT).fit(pair, split)
    assert torch.equal(pickle.loads(pickle.dumps(named)).score(split.test), named.score(split.test))

    class Odd(LinkPredictor):
        def learn(self, pair, split, seed):
            return {"degree": torch.ones(pair.num_nodes), "seen": {1, 2}}

    with pytest.raises(TypeError, match=r"a file holds tensors and plain values, and 'state\['seen'\]' is neither"):
        Odd().fit(pair, split).save(tmp_path / "odd")


def test_a_failed_training_leaves_nothing_fitted(data):
    pair, split = data
    teacher = fitted("teacher", pair, split)
    with pytest.raises(ValueError, match="another pair"):
        teacher.fit(pair, small_pair(1)[1])
    assert teacher.score(split.test).isfinite().all()  # nothing was begun
    with pytest.raises(TypeError, match="must be torch.float32"):
        teacher.fit(pair.with_x(pair.union().x.double()), split)
    with pytest.raises(RuntimeError, match="has learned nothing yet"):
        teacher.score(split.test)
