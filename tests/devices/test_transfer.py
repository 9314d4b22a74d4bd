"""Transfer on a device that is not the CPU: equal to that on the CPU, and files that are read on the other one."""

import pytest
import torch
from both_devices import assert_equal, there
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
    SharedNodePair,
    XMCPropagation,
    sage_encoder,
)

pytestmark = pytest.mark.cuda

# Not by Adam, which makes a step of a gradient that is nothing but rounding.
SHORT = link_training(epochs=1, lr=1e-2, optimizer=lambda parameters, lr, weight_decay: torch.optim.SGD(parameters, lr))
OPTIONS = BaselineOptions(
    hidden=8, student_hidden=8, dropout=0.0, training=SHORT, student_training=SHORT, pretraining_epochs=2
)
OURS = [
    name for name, made in BASELINES.items() if "graphsparse." in getattr(made.maker, "func", made.maker).__module__
]


def teacher(**options):
    return LinkTeacher(sage_encoder(12, dropout=0.0), training=SHORT, **options)


def student():
    return MLPStudent(16, dropout=0.0, training=SHORT)


def chain(*names, **options):
    return GITL(names, combine=False, teacher=teacher(), student=student(), **options)


MAKERS = {
    "teacher": teacher,
    "teacher with neighbours": lambda: teacher(num_neighbors=[3, 3], batch_size=40),
    "edge labels": lambda: chain("student+edge_labels_enriched", propagation=EdgeLabelPropagation(lam=0.5)),
    "best of some": lambda: chain("teacher", "xmc", "student+edge_labels", "pagerank"),
    **{name: lambda name=name: BASELINES[name].make(OPTIONS) for name in OURS},
}


@pytest.fixture(scope="module")
def pair_and_split():
    return small_pair(num_nodes=60)


@pytest.mark.parametrize("name", MAKERS)
def test_equal_to_the_cpu_and_saved_there(name, pair_and_split, device, tmp_path):
    pair, split = pair_and_split
    away = SharedNodePair(*(there(graph, device) for graph in (pair.source[0], pair.target)))
    expected = MAKERS[name]().fit(pair, split, seed=1).score(split.test)
    fitted = MAKERS[name]().fit(away, split, seed=1)
    found = fitted.score(split.test)
    assert_equal(found, expected, 1e-3)
    assert_equal(fitted.score(split.test.to(device)), expected, 1e-3)
    fitted.save(tmp_path / "p")
    for where in (pair, away):
        assert_equal(LinkPredictor.load(tmp_path / "p", where).score(split.test), there(found, "cpu"))


@pytest.mark.parametrize("mode", ["residual", "outcome"])
@pytest.mark.parametrize("anchors_there", [True, False])
@pytest.mark.parametrize("asked_there", [True, False])
def test_edge_labels_are_asked_for_anywhere(mode, anchors_there, asked_there, device):
    anchors = torch.tensor([[0, 0, 1, 4, 2], [1, 2, 2, 5, 6]])
    y, p = torch.tensor([1.0, 1.0, 0.0, torch.nan, 0.0]), torch.linspace(0.2, 0.8, 5)
    queries, asked = torch.tensor([[0, 4, 6, 1], [3, 6, 7, 0]]), torch.linspace(0.3, 0.7, 4)
    expected = EdgeLabelPropagation(lam=0.5, mode=mode).fit(anchors, y, p, 8).correct(queries, asked)
    own, other = (device if flag else torch.device("cpu") for flag in (anchors_there, asked_there))
    fitted = EdgeLabelPropagation(lam=0.5, mode=mode).fit(anchors.to(own), y.to(other), p.to(other), 8)
    assert_equal(fitted.correct(queries.to(other), asked.to(other)), expected, device=other)
    assert_equal(fitted.correct(queries, asked.to(other)), expected, device=other)
    labels = torch.tensor([1, 0, 1])
    chosen = fitted.choose_lambda(queries[:, :3].to(other), labels, asked[:3].to(other))
    here = EdgeLabelPropagation(mode=mode).fit(anchors, y, p, 8)
    assert chosen == here.choose_lambda(queries[:, :3], labels, asked[:3])


@pytest.mark.parametrize("directed", [False, True])
def test_walks_are_asked_for_anywhere(directed, device):
    path, queries = torch.tensor([[0, 1, 2], [1, 2, 3]]), torch.tensor([[0, 0], [2, 3]])
    expected = XMCPropagation(directed=directed).fit(path, 4).score(queries)
    assert_equal(XMCPropagation(directed=directed).fit(path.to(device), 4).score(queries), expected)
    found = XMCPropagation(directed=directed).fit(path, 4).score(queries.to(device))
    assert_equal(found, expected, device=device)
