import subprocess
import sys

import networkx as nx
import numpy as np
import pytest
import torch
from torch_geometric.nn import GCN
from torch_geometric.utils import to_networkx

from graphsparse.datasets import load, synthetic_citation

pytestmark = pytest.mark.once


def test_default_against_networkx():
    data = synthetic_citation()
    data.validate()
    graph = to_networkx(data, to_undirected=True)
    y = data.y.tolist()
    assert (graph.number_of_nodes(), graph.number_of_edges(), data.num_edges) == (2000, 4000, 8000)
    assert nx.number_of_selfloops(graph) == 0
    assert sum(y[u] == y[v] for u, v in graph.edges) / 4000 == 0.8
    assert not list(nx.isolates(graph))
    degrees = [degree for _, degree in graph.degree]
    assert np.median(degrees) == 3
    assert 60 < max(degrees) < 200
    assert max(map(len, nx.connected_components(graph))) > 1900
    sizes = torch.bincount(data.y)
    assert int(sizes.max() - sizes.min()) <= 1


def test_neighbourhoods_are_as_uneven_as_in_citation_graphs():
    """In Cora the median node of at least three neighbours has them all in its class, a tenth of them below 34 %."""
    data = synthetic_citation(20_000)
    row, col = data.edge_index
    degree = torch.bincount(row, minlength=data.num_nodes)
    same = torch.zeros(data.num_nodes).index_add_(0, row, (data.y[row] == data.y[col]).float()) / degree
    low, median = torch.quantile(same[degree >= 3], torch.tensor([0.1, 0.5])).tolist()
    assert 0.2 < low < 0.5
    assert median > 0.85


@pytest.mark.parametrize("num_nodes", [1000, 30_000])
@pytest.mark.parametrize(("avg_degree", "homophily"), [(1.0, 0.5), (4.0, 0.9), (9.0, 0.0), (12.0, 1.0), (3.0, 0.37)])
def test_statistics_match_the_arguments(num_nodes, avg_degree, homophily):
    data = synthetic_citation(num_nodes, avg_degree=avg_degree, homophily=homophily, num_classes=4, seed=3)
    edges = {(min(u, v), max(u, v)) for u, v in data.edge_index.t().tolist()}
    y = data.y.tolist()
    assert 2 * len(edges) == data.num_edges
    assert 2 * len(edges) / num_nodes == pytest.approx(avg_degree, rel=1e-3)
    assert sum(y[u] == y[v] for u, v in edges) / len(edges) == pytest.approx(homophily, abs=1e-3)


@pytest.mark.parametrize("exponent", [2.3, 3.5])
def test_tail_of_the_degrees(exponent):
    data = synthetic_citation(200_000, degree_exponent=exponent, avg_degree=6.0, num_features=10)
    tail = np.sort(np.bincount(data.edge_index[0].numpy()))[-2000:]
    # Hill's estimator; half of the degree, the started citations, does not follow the law and bends it a little.
    assert 1 + 1 / np.mean(np.log(tail / (tail[0] - 0.5))) == pytest.approx(exponent, rel=0.15)


def test_equal_seeds_give_equal_bits():
    np.random.seed(1)  # noqa: NPY002 - the global state is what must not be touched
    torch.manual_seed(1)
    before = np.random.get_state()[1].copy(), torch.random.get_rng_state()  # noqa: NPY002
    first, again, other = (synthetic_citation(seed=seed) for seed in (5, 5, 6))
    assert np.array_equal(np.random.get_state()[1], before[0])  # noqa: NPY002
    assert torch.equal(torch.random.get_rng_state(), before[1])
    for key in ("x", "edge_index", "y", "train_mask", "val_mask", "test_mask"):
        assert torch.equal(first[key], again[key])
        assert not torch.equal(first[key], other[key])


def test_sparse_features_change_nothing_else():
    dense, sparse = (synthetic_citation(1500, sparse_features=flag) for flag in (False, True))
    assert torch.equal(sparse.x.to_dense(), dense.x)
    assert torch.equal(sparse.edge_index, dense.edge_index)


def test_split():
    data = synthetic_citation(1500, num_classes=3, train_per_class=9, num_val=70)
    assert torch.bincount(data.y[data.train_mask]).tolist() == [9, 9, 9]
    assert int(data.val_mask.sum()) == 70
    assert int(data.test_mask.sum()) == 1000


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"num_nodes": 1e4}, TypeError, "'num_nodes' must be an integer"),
        ({"num_nodes": 1}, ValueError, "'num_nodes' must be at least 2"),
        ({"num_classes": 1}, ValueError, "'num_classes' must be at least 2"),
        ({"num_features": 6}, ValueError, "'num_features' must be at least 7"),
        ({"seed": -1}, ValueError, "'seed' must be at least 0"),
        ({"avg_degree": -1.0}, ValueError, "'avg_degree' must be a finite number"),
        ({"avg_degree": float("inf")}, ValueError, "'avg_degree' must be a finite number"),
        ({"avg_degree": 100.0}, ValueError, "'avg_degree' is too high for 2000 nodes"),
        (
            {"num_nodes": 10_000, "avg_degree": 100.0, "homophily": 0.99, "concentration": 0.05},
            ValueError,
            "'avg_degree' .* is too high together with",
        ),
        ({"homophily": 1.01}, ValueError, r"'homophily' must be a finite number in \[0, 1\]"),
        ({"homophily": float("nan")}, ValueError, "'homophily'"),
        ({"homophily": "high"}, TypeError, "'homophily' must be a number"),
        ({"degree_exponent": 2.0}, ValueError, "'degree_exponent' must be a finite number above 2"),
        ({"concentration": 0.0}, ValueError, "'concentration' must be a finite number above 0"),
        ({"words_per_node": 0.5}, ValueError, "'words_per_node'"),
        ({"topic_share": 1.5}, ValueError, "'topic_share'"),
        ({"train_per_class": 300}, ValueError, "'train_per_class' is 300, but the smallest class has 285"),
        ({"num_val": 1000, "num_test": 1000}, ValueError, "'num_val' and 'num_test' need 1000"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        synthetic_citation(**arguments)


def accuracy(data, edge_index):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = GCN(data.num_features, 32, 2, data.num_classes, dropout=0.5)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.02, weight_decay=5e-4)
        for _ in range(100):
            optimizer.zero_grad()
            out = model(data.x, edge_index)
            torch.nn.functional.cross_entropy(out[data.train_mask], data.y[data.train_mask]).backward()
            optimizer.step()
        model.eval()
        correct = model(data.x, edge_index).argmax(1) == data.y
    return float(correct[data.test_mask].float().mean())


@pytest.mark.bands
def test_graph_matters():
    data = load("synthetic")
    with_graph, without = accuracy(data, data.edge_index), accuracy(data, data.edge_index[:, :0])
    assert 0.75 < with_graph < 0.9
    assert without < with_graph - 0.2
    assert without > 2 / 7  # the words alone say something


@pytest.mark.slow
def test_a_million_nodes_fit():
    script = """
import resource
from graphsparse.datasets import synthetic_citation
data = synthetic_citation(1_000_000, avg_degree=8.0, num_features=1000, sparse_features=True)
assert data.num_edges == 8_000_000 and data.x.shape == (1_000_000, 1000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""
    peak = float(subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout)
    assert peak < 1.5  # GiB, with 0.4 for the imports
