import pytest
import torch
from torch_geometric.data import Data
from transfer_pairs import window_pair

from graphsparse.testing import random_graph
from graphsparse.transfer import BASELINES, BaselineOptions, MLPStudent
from graphsparse.transfer.data.pair import SharedNodePair
from graphsparse.transfer.data.split import split_links
from graphsparse.transfer.models.link_model import sage_encoder
from graphsparse.transfer.models.link_training import LinkTraining
from graphsparse.transfer.models.node_table import NodeTable, featured, with_ids
from graphsparse.transfer.models.teacher import LinkTeacher
from graphsparse.transfer.models.validation import link_auroc

TRAINING = LinkTraining(epochs=40, lr=1e-2)


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
    return LinkTeacher(sage_encoder(16, dropout=0.0), scope="enriched_target", id_channels=16, **options)


def test_a_teacher_learns_links_without_features(bare):
    pair, split = bare
    fitted = teacher(training=TRAINING).fit(pair, split)
    assert link_auroc(fitted.score(split.test), fitted.score(split.test_neg)) > 0.7
    assert fitted.model.table.weight.shape == (pair.nodes().num_nodes, 16)
    assert fitted.embed("intersection").shape == (int(pair.shared.sum()), 16)


def test_batches_with_full_fan_out_equal_the_whole_graph(bare):
    pair, split = bare
    short = LinkTraining(epochs=6, lr=1e-2, eval_every=2)
    whole = teacher(training=short).fit(pair, split)
    parts = teacher(training=short, num_neighbors=[-1, -1], batch_size=10_000).fit(pair, split)
    assert torch.allclose(whole.score(split.test), parts.score(split.test), atol=1e-5)


def test_nodes_keep_their_vectors_in_every_graph(bare):
    pair = with_ids(bare[0])
    for name in ("target", "enriched_target", "enriched_intersection", "union", "source"):
        graph = pair.graph(name)
        assert torch.equal(graph.x.view(-1), graph.n_id)


def test_a_teacher_of_the_intersection_needs_features(bare):
    with pytest.raises(ValueError, match="'scope' must be 'enriched_target'"):
        LinkTeacher().fit(*bare)


def test_a_student_needs_features(bare):
    with pytest.raises(ValueError, match="no features 'x' to learn from"):
        MLPStudent(emb_weight=0.0).fit(*bare)


@pytest.mark.parametrize("name", ["gnn_target", "gnn_union", "source_zero_shot", "fine_tune_last"])
def test_networks_on_graphs_do_without_features(bare, name):
    pair, split = bare
    options = BaselineOptions(hidden=8, training=LinkTraining(epochs=2))
    scores = BASELINES[name](pair, split, 0, options).score(split.test)
    assert scores.shape == (split.test.size(1),)
    assert bool(scores.isfinite().all())


def test_features_are_taken_where_there_are_any():
    pair = window_pair(random_graph())
    assert featured(pair, 4, 0) == (pair, None)


def test_a_table_follows_from_the_seed(bare):
    first, second, third = (featured(bare[0], 4, seed)[1].weight for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


def test_a_row_is_looked_up_for_each_node():
    table = NodeTable(4, 2)
    assert torch.equal(table(torch.tensor([[3], [3], [0]])), table.weight[[3, 3, 0]])
