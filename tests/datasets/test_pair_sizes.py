import pytest
import torch
from intersecting import expected, random_pair

from graphsparse.datasets.pair_sizes import pair_sizes


@pytest.mark.parametrize("seed", range(5))
def test_against_sets(seed):
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
