import numpy as np
import pytest
import torch
from intersecting import expected, random_pair

from graphsparse.datasets.graph_pair import both_directions, cut_graph, kept_at_random, pair_sizes


def test_cut():
    nodes = torch.tensor([1, 3, 4])
    data = cut_graph(
        nodes, torch.tensor([[4, 1], [3, 4]]), {"x": torch.eye(5), "y": None}, {"edge_year": torch.tensor([7, 8])}
    )
    assert data.edge_index.tolist() == [[2, 0], [1, 2]]
    assert torch.equal(data.x, torch.eye(5)[nodes])
    assert (data.key.tolist(), data.num_nodes, data.edge_year.tolist()) == ([1, 3, 4], 3, [7, 8])
    assert "y" not in data
    data.validate()
    x = torch.eye(3)
    assert cut_graph(torch.arange(3), torch.empty(2, 0, dtype=torch.int64), {"x": x}, {}).x is x


def test_both_directions():
    assert both_directions(torch.tensor([[0, 0], [3, 1]])).tolist() == [[0, 0, 1, 3], [1, 3, 0, 0]]


def test_directions_are_dropped_together():
    pairs = torch.randint(30, (2, 400), generator=torch.Generator().manual_seed(0))
    pairs = torch.cat([pairs, pairs.flip(0)], dim=1)
    kept = kept_at_random(pairs, 30, 0.6, np.random.default_rng(0))
    found = {}
    for pair, keep in zip(pairs.t().tolist(), kept.tolist(), strict=True):
        assert found.setdefault(frozenset(pair), keep) == keep
    share = sum(found.values()) / len(found)
    assert abs(share - 0.4) < 5 * (0.24 / len(found)) ** 0.5
    assert kept_at_random(pairs, 30, 0.0, np.random.default_rng(0)).all()
    assert not kept_at_random(pairs, 30, 1.0, np.random.default_rng(0)).any()


@pytest.mark.parametrize("seed", range(5))
def test_sizes_against_sets(seed):
    sources, target = random_pair(seed)
    for graph in (sources[0], target):
        graph.key = graph.key + 50  # not negative
    for name, (nodes, links) in expected(sources, target).items():
        found = pair_sizes(sources[0], target)[name]
        degree = dict.fromkeys(nodes, 0)
        for link in links:
            for key in link:
                degree[key] += 1
        assert found["num_nodes"] == len(nodes)
        assert found["num_links"] == len(links)
        values = torch.tensor(sorted(degree.values()), dtype=torch.float64)
        assert found["mean_degree"] == pytest.approx(float(values.mean()))
        assert found["median_degree"] == float(values.quantile(0.5))
