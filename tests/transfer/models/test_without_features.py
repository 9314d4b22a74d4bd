"""Pairs whose nodes have no features: networks on graphs train a vector for each node."""

import pickle

import pytest
import torch
from torch_geometric.data import Data
from transfer_pairs import window_pair

from graphsparse.metrics import auroc
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
from graphsparse.transfer.models.link_model import featured

TRAINING = link_training(epochs=40, lr=1e-2)


@pytest.fixture(scope="module")
def bare():
    """A pair without features: four classes of 30 nodes, three links in ten within a class and none between them.

    Scores that know the classes have an area under the ROC curve of about 0.9, as a fifth of the non-links are within.
    """
    num, generator = 120, torch.Generator().manual_seed(0)
    pairs = torch.combinations(torch.arange(num)).t()
    pairs = pairs[:, (pairs[0] % 4 == pairs[1] % 4) & (torch.rand(pairs.size(1), generator=generator) < 0.3)]
    data = Data(edge_index=torch.cat([pairs, pairs.flip(0)], 1), x=torch.ones(num, 1), num_nodes=num)
    pair = window_pair(data)
    graphs = [Data(edge_index=g.edge_index, key=g.key, num_nodes=g.num_nodes) for g in (*pair.source, pair.target)]
    pair = SharedNodePair(*graphs, "key", "key")
    return pair, split_links(pair)


def teacher(**options):
    return LinkTeacher(sage_encoder(16, dropout=0.0), id_channels=16, **options)


def area(scorer, split):
    links, rest = scorer.score(split.test), scorer.score(split.test_neg)
    return auroc(torch.cat([links, rest]), torch.arange(links.numel() + rest.numel()) < links.numel())


def test_a_teacher_learns_links_of_all_target_nodes(bare):
    pair, split = bare
    fitted = teacher(training=TRAINING).fit(pair, split)
    assert area(fitted, split) > 0.7
    assert fitted.model.table.weight.shape == (pair.num_union_nodes, 16)
    assert fitted.embed("intersection").shape == (int(pair.shared.sum()), 16)
    asked = teacher(scope="enriched_target", training=TRAINING).fit(pair, split)
    assert torch.equal(fitted.score(split.test), asked.score(split.test))


def test_batches_with_full_fan_out_equal_the_whole_graph(bare):
    pair, split = bare
    short = link_training(epochs=6, lr=1e-2, eval_every=2)
    whole = teacher(training=short).fit(pair, split)
    parts = teacher(training=short, num_neighbors=[-1, -1], batch_size=10_000).fit(pair, split)
    assert torch.allclose(whole.score(split.test), parts.score(split.test), atol=1e-5)


def test_nodes_keep_their_vectors_in_every_graph(bare):
    pair, table = featured(bare[0], 4, 0)
    assert table.weight.shape == (pair.num_union_nodes, 4)
    for name in ("target", "enriched_target", "enriched_intersection", "union", "source"):
        graph = pair.graph(name)
        assert torch.equal(graph.x.view(-1), graph.n_id)


def test_gitl_goes_without_features(bare, tmp_path):
    pair, split = bare
    gitl = GITL.small(30, 60).fit(pair, split)
    assert not any(name.startswith(("student", "cosine")) for name in gitl.fitted)
    assert {"teacher", "teacher+edge_labels", "pagerank"} <= set(gitl.fitted)
    assert area(gitl, split) > 0.7
    gitl.save(tmp_path / "gitl.safetensors")
    again = GITL.load(tmp_path / "gitl.safetensors", pair)
    assert torch.equal(again.score(split.test), gitl.score(split.test))
    with pytest.warns(UserWarning, match="no features 'x', which these need: cosine, student$"):
        few = GITL.small(2, 2, candidates=("pagerank", "cosine", "student")).fit(pair, split)
    assert list(few.fitted) == ["pagerank", "teacher"]
    with pytest.raises(ValueError, match="no features 'x', which all of the candidates need"):
        GITL(("cosine",)).fit(pair, split)


def test_what_needs_features_says_so(bare):
    with pytest.raises(ValueError, match="'scope' must be 'enriched_target'"):
        LinkTeacher(scope="intersection").fit(*bare)
    with pytest.raises(ValueError, match="no features 'x' to learn from"):
        MLPStudent(emb_weight=0.0).fit(*bare)


@pytest.mark.parametrize("scope", [None, "enriched_target", "target"])
@pytest.mark.parametrize("options", [{}, {"num_neighbors": [3, 3], "batch_size": 100}])
def test_every_scope(bare, scope, options):
    pair, split = bare
    fitted = teacher(scope=scope, training=link_training(epochs=2, eval_every=1), **options).fit(pair, split)
    assert fitted.score(split.test).isfinite().all()


#: Baselines that read features, and nothing else or not without them.
READ_FEATURES = ["cosine", "mlp_target", "mlp_enriched", "dgi_features", "egi_features"]


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_do_without_features(bare, name, tmp_path):
    pair, split = bare
    training = link_training(epochs=2)
    options = BaselineOptions(hidden=8, training=training, student_training=training, pretraining_epochs=2)
    if name in READ_FEATURES:
        with pytest.raises(
            ValueError, match="the target has no features 'x' to learn from; 'pair.with_x' returns a pair"
        ):
            BASELINES[name](pair, split, 0, options)
        return
    scorer = BASELINES[name](pair, split, 0, options)
    scores = scorer.score(split.test)
    scorer.save(tmp_path / "scorer")
    assert torch.equal(LinkPredictor.load(tmp_path / "scorer", pair).score(split.test), scores)
    assert torch.equal(pickle.loads(pickle.dumps(scorer)).score(split.test), scores)
    assert scores.shape == (split.test.size(1),)
    assert bool(scores.isfinite().all())


def test_features_are_taken_where_there_are_any():
    pair = window_pair(random_graph())
    assert featured(pair, 4, 0) == (pair, None)


def test_a_table_follows_from_the_seed(bare):
    first, second, third = (featured(bare[0], 4, seed)[1].weight for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
