import pytest
import torch
from transfer_pairs import small_pair

from graphsparse.training import link_training
from graphsparse.transfer import BASELINES, BaselineOptions

TRAINING = link_training(epochs=4, lr=1e-2, eval_every=2)
OPTIONS = BaselineOptions(
    hidden=8, student_hidden=8, training=TRAINING, student_training=TRAINING, pretraining_epochs=3
)


@pytest.fixture(scope="module")
def data():
    return small_pair()


def test_there_are_30_of_them():
    both = ("common_neighbors", "adamic_adar", "resource_allocation", "pagerank", "xmc", "source_zero_shot")
    both = (*both, "preferential_attachment", "fine_tune_all", "fine_tune_last", "dgi", "egi")
    more = ("cosine", "dgi_features", "egi_features", "gnn_target", "gnn_union", "gnn_enriched", "mlp_target")
    names = {*both, *(f"{name}_enriched" for name in both), *more, "mlp_enriched"}
    assert len(names) == 30
    assert names <= set(BASELINES)


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_scores_pairs_and_follows_from_the_seed(data, name):
    pair, split = data
    first, second = (BASELINES[name](pair, split, 3, OPTIONS).score(split.test_neg) for _ in range(2))
    assert first.shape == (split.test_neg.size(1),)
    assert first.isfinite().all()
    assert torch.equal(first, second)
    # The order of a pair does not matter, and no query influences another.
    scorer = BASELINES[name](pair, split, 3, OPTIONS)
    few = split.test_neg[:, [5, 2, 9]]
    assert torch.allclose(scorer.score(few.flip(0)), first[[5, 2, 9]], atol=1e-5)
    with pytest.raises(ValueError, match="no self-loops"):
        scorer.score(torch.tensor([[3], [3]]))


@pytest.mark.parametrize("name", BASELINES)
def test_a_split_of_another_pair_is_refused(data, name):
    with pytest.raises(ValueError, match="another pair"):
        BASELINES[name](data[0], small_pair(1)[1], 0, OPTIONS)
    with pytest.raises(TypeError, match="'split' must be a LinkSplit"):
        BASELINES[name](data[0], None, 0, OPTIONS)
