import pytest
import torch
from transfer_pairs import area, clear_pair, small_pair

from graphsparse.training import link_training
from graphsparse.transfer import BASELINES, BaselineOptions, MLPStudent, assert_no_leak
from graphsparse.transfer.baselines.networks import GraphLinkPredictor

TRAINING = link_training(epochs=10, lr=1e-2, eval_every=2)
OPTIONS = BaselineOptions(hidden=12, dropout=0.0, training=TRAINING, student_training=TRAINING)
GRAPHS = ("target", "union", "enriched_target", "enriched_intersection", "source")


@pytest.fixture(scope="module")
def data():
    return small_pair()


@pytest.mark.parametrize("train_on", GRAPHS)
def test_every_graph_without_a_leak(data, train_on, monkeypatch):
    pair, split = data
    seen = {}
    derive = type(pair).graph

    def watched(self, name, **options):
        seen[name] = derive(self, name, **options)
        return seen[name]

    monkeypatch.setattr(type(pair), "graph", watched)
    messages = "union" if train_on == "union" else "target"
    fitted = GraphLinkPredictor(train_on, messages, settings=OPTIONS).fit(pair, split)
    assert set(seen) == {train_on, messages}
    for graph in seen.values():
        assert_no_leak(split, pair, graph=graph)
    assert fitted.score(split.test).shape == (split.test.size(1),)


def test_union_scores_are_those_of_the_target_nodes(data):
    pair, split = data
    fitted = GraphLinkPredictor("union", "union", settings=OPTIONS).fit(pair, split)
    with pytest.raises(ValueError, match="'pairs'"):
        fitted.score(torch.tensor([[0], [pair.num_nodes]]))


def test_source_zero_shot_knows_more_than_chance():
    pair, split = clear_pair()
    options = BaselineOptions(hidden=12, training=link_training(epochs=40, lr=1e-2))
    fitted = GraphLinkPredictor("source", "target", settings=options).fit(pair, split)
    assert area(fitted, split) > 0.65


@pytest.mark.parametrize("which", ["all", "last"])
def test_fine_tuning_changes_what_it_should(data, which):
    pair, split = data
    zero = GraphLinkPredictor("source", "target", settings=OPTIONS).fit(pair, split, seed=1)
    tuned = GraphLinkPredictor("source", "target", which, OPTIONS).fit(pair, split, seed=1)
    assert len(tuned.results) == 2
    assert tuned.results[0].val == zero.results[0].val
    first, last = ([model.encoder.convs[i].lin_l.weight for model in (zero.model, tuned.model)] for i in range(2))
    assert torch.equal(*first) == (which == "last")
    assert not torch.equal(*last)


def test_batches(data):
    pair, split = data
    options = BaselineOptions(**{**vars(OPTIONS), "num_neighbors": [-1, -1], "batch_size": 10_000})
    whole, parts = (GraphLinkPredictor("union", "union", settings=o).fit(pair, split) for o in (OPTIONS, options))
    assert torch.allclose(whole.score(split.test), parts.score(split.test), atol=1e-5)


def test_networks_without_a_graph_are_students_without_a_teacher(data):
    pair, split = data
    student = MLPStudent(256, channels=12, dropout=0.0, input_dropout=0.0, emb_weight=0.0, training=TRAINING)
    expected = student.fit(pair, split, seed=3).score(split.test)
    assert torch.equal(BASELINES["mlp_target"](pair, split, 3, OPTIONS).score(split.test), expected)
    assert not torch.equal(BASELINES["mlp_enriched"](pair, split, 3, OPTIONS).score(split.test), expected)


def test_small_options():
    options = BaselineOptions.small(epochs=7, student_epochs=9)
    assert (options.training.epochs, options.student_training.epochs) == (7, 9)
    assert options.training.lr == options.student_training.lr == 5e-3
    assert BASELINES["gnn_target"].make(options).encoder(10).hidden_channels == 64
