from dataclasses import replace

import pytest
import torch
from torch import nn
from transfer_pairs import clear_pair, small_pair

import graphsparse.transfer.baselines.gnn as module
from graphsparse.transfer.baselines.gnn import GraphLinkPredictor, last_layer
from graphsparse.transfer.baselines.options import BaselineOptions
from graphsparse.transfer.data.leak import assert_no_leak
from graphsparse.transfer.models.link_training import LinkTraining
from graphsparse.transfer.models.validation import link_auroc

OPTIONS = BaselineOptions(hidden=12, dropout=0.0, training=LinkTraining(epochs=10, lr=1e-2, eval_every=2))
GRAPHS = ("target", "union", "enriched_target", "enriched_intersection", "source")


@pytest.fixture(scope="module")
def data():
    return small_pair()


@pytest.mark.parametrize("train_on", GRAPHS)
def test_every_graph_without_a_leak(data, train_on, monkeypatch):
    pair, split = data
    seen = []
    task = module.LinkTask
    monkeypatch.setattr(module, "LinkTask", lambda *args, **options: seen.append(args) or task(*args, **options))
    messages = "union" if train_on == "union" else "target"
    fitted = GraphLinkPredictor(train_on, messages, options=OPTIONS).fit(pair, split)
    for graph in seen[0][:2]:
        assert_no_leak(split, pair, graph=graph)
    assert seen[0][0].num_nodes == pair.graph(train_on).num_nodes
    assert fitted.score(split.test).shape == (split.test.size(1),)


def test_union_scores_are_those_of_the_target_nodes(data):
    pair, split = data
    fitted = GraphLinkPredictor("union", "union", options=OPTIONS).fit(pair, split)
    with pytest.raises(ValueError, match="'pairs'"):
        fitted.score(torch.tensor([[0], [pair.num_nodes]]))


def test_source_zero_shot_knows_more_than_chance():
    pair, split = clear_pair()
    options = BaselineOptions(hidden=12, training=LinkTraining(epochs=40, lr=1e-2))
    fitted = GraphLinkPredictor("source", "target", options=options).fit(pair, split)
    assert link_auroc(fitted.score(split.test), fitted.score(split.test_neg)) > 0.65


@pytest.mark.parametrize("which", ["all", "last"])
def test_fine_tuning_changes_what_it_should(data, which):
    pair, split = data
    zero = GraphLinkPredictor("source", "target", options=OPTIONS).fit(pair, split, seed=1)
    tuned = GraphLinkPredictor("source", "target", which, OPTIONS).fit(pair, split, seed=1)
    assert len(tuned.results) == 2
    assert tuned.results[0].val == zero.results[0].val
    first, last = ([model.encoder.convs[i].lin_l.weight for model in (zero.model, tuned.model)] for i in range(2))
    assert torch.equal(*first) == (which == "last")
    assert not torch.equal(*last)


def test_batches(data):
    pair, split = data
    options = BaselineOptions(**{**vars(OPTIONS), "num_neighbors": [-1, -1], "batch_size": 10_000})
    whole, parts = (GraphLinkPredictor("union", "union", options=o).fit(pair, split) for o in (OPTIONS, options))
    assert torch.allclose(whole.score(split.test), parts.score(split.test), atol=1e-5)


def test_what_is_refused(data):
    pair, split = data
    for arguments, message in (
        (("both", "target"), "'train_on'"),
        (("target", "source"), "'messages'"),
        (("source", "target", "first"), "'fine_tune'"),
    ):
        with pytest.raises(ValueError, match=message):
            GraphLinkPredictor(*arguments)
    with pytest.raises(RuntimeError, match="nothing has been learned"):
        GraphLinkPredictor("target", "target").score(split.test)
    with pytest.raises(ValueError, match="another pair"):
        GraphLinkPredictor("target", "target", options=OPTIONS).fit(pair, small_pair(1)[1])
    with pytest.raises(ValueError, match="'num_neighbors' must hold one fan-out per layer, 2"):
        GraphLinkPredictor("target", "target", options=replace(OPTIONS, num_neighbors=[5])).fit(pair, split)
    with pytest.raises(ValueError, match="no message passing layer"):
        last_layer(nn.Linear(2, 2))
