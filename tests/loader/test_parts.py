from itertools import combinations

import pytest
import torch

from graphsparse.loader import ClusterBatches, RandomNodeBatches
from graphsparse.testing import random_graph
from graphsparse.utils import partition_graph

DATA = random_graph()


def assert_induced(batch):
    """The batch has exactly the edges of the graph with both ends in it."""
    known = set(batch.n_id.tolist())
    expected = [i for i, (u, v) in enumerate(DATA.edge_index.t().tolist()) if u in known and v in known]
    assert sorted(batch.e_id.tolist()) == expected
    assert torch.equal(batch.n_id[batch.edge_index], DATA.edge_index[:, batch.e_id])
    for key in ("x", "y", "train_mask"):
        assert torch.equal(batch[key], DATA[key][batch.n_id])


def test_clusters_with_the_edges_between_them():
    part = partition_graph(DATA.edge_index, 5, 60, seed=7)
    loader = ClusterBatches(DATA, num_parts=5, parts_per_batch=2, partition_seed=7)
    epochs = [list(loader) for _ in range(12)]
    seen = set()
    for epoch in epochs:
        assert len(epoch) == len(loader) == 3
        assert sorted(torch.cat([batch.n_id for batch in epoch]).tolist()) == list(range(60))
        for batch in epoch:
            assert_induced(batch)
            parts = tuple(part[batch.n_id].unique().tolist())
            assert sorted(batch.n_id.tolist()) == torch.isin(part, torch.tensor(parts)).nonzero().flatten().tolist()
            seen.add(parts)
    # 24 pairs are drawn from 10; one given pair is missing with a probability of (3 / 5)^12 at most: 0.2 %
    assert {parts for parts in seen if len(parts) == 2} == set(combinations(range(5), 2))


def test_many_trainings_share_a_partition(tmp_path):
    first, second = (
        ClusterBatches(DATA, num_parts=6, parts_per_batch=1, method="random", save_dir=tmp_path, seed=seed)
        for seed in (0, 1)
    )
    assert len(list(tmp_path.iterdir())) == 1
    groups = [[tuple(batch.n_id.tolist()) for batch in loader] for loader in (first, second)]
    assert sorted(groups[0]) == sorted(groups[1])
    assert groups[0] != groups[1]


def test_weights_of_nodes_reach_the_partition():
    weight = torch.ones(60)
    weight[:6] = 100
    loader = ClusterBatches(DATA, num_parts=6, parts_per_batch=1, method="random", node_weight=weight)
    assert [int((batch.n_id < 6).sum()) for batch in loader] == [1] * 6


def test_random_nodes():
    loader = RandomNodeBatches(DATA, num_parts=7)
    first, second = list(loader), list(loader)
    assert len(loader) == len(first) == 7
    for epoch in (first, second):
        assert sorted(torch.cat([batch.n_id for batch in epoch]).tolist()) == list(range(60))
        assert {batch.num_nodes for batch in epoch} == {8, 9}
        for batch in epoch:
            assert_induced(batch)
    assert first[0].n_id.tolist() != second[0].n_id.tolist()


@pytest.mark.parametrize(
    ("make", "options", "error", "message"),
    [
        (ClusterBatches, {"num_parts": 61}, ValueError, "'num_parts' must be between 1 and the number of nodes"),
        (ClusterBatches, {"num_parts": 3, "parts_per_batch": 4}, ValueError, "'parts_per_batch' must be at most"),
        (ClusterBatches, {"parts_per_batch": 0}, ValueError, "'parts_per_batch' must be at least 1"),
        (ClusterBatches, {"method": "louvain"}, ValueError, "'method'"),
        (RandomNodeBatches, {"num_parts": 61}, ValueError, "'num_parts' must be at most the number of nodes, 60"),
        (RandomNodeBatches, {"num_parts": 2.0}, TypeError, "'num_parts' must be an integer"),
    ],
)
def test_bad_options(make, options, error, message):
    with pytest.raises(error, match=message):
        make(DATA, **options)
