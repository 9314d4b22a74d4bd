import numpy as np
import pytest
import torch
from intersecting import key_of_node, listed, random_pair
from torch_geometric.data import Data

from graphsparse.transfer.data.keys import GRAPHS
from graphsparse.transfer.data.node_features import take_rows
from graphsparse.transfer.data.pair import SharedNodePair


@pytest.mark.parametrize("sparse", [False, True])
def test_target_features_win_then_the_first_source(sparse):
    sources, target = random_pair(1, num_sources=2)
    row = {}
    for graph in (target, *sources):
        for key, x in zip(listed(graph.key), graph.x.tolist(), strict=True):
            row.setdefault(key, x)
        graph.x = graph.x.to_sparse_csr() if sparse else graph.x
    pair = SharedNodePair(sources, target)
    key = key_of_node(pair)
    for name in GRAPHS:
        graph = pair.graph(name)
        x = graph.x.to_dense() if sparse else graph.x
        assert torch.equal(x, torch.tensor([row[key[i]] for i in graph.n_id.tolist()]))
        assert graph.x.layout == target.x.layout


def test_no_copy_where_the_nodes_are_the_targets():
    sources, target = random_pair(1)
    pair = SharedNodePair(sources, target)
    assert pair.enriched_target().x is target.x
    assert pair.graph("target").x is target.x
    whole = SharedNodePair(target, target)
    assert all(whole.graph(name).x is target.x for name in GRAPHS)
    assert "x" not in pair.graph("union", features=False)


@pytest.mark.parametrize("layout", [torch.strided, torch.sparse_csr])
def test_rows(layout):
    dense = torch.randn(6, 4).relu()
    x = dense if layout == torch.strided else dense.to_sparse_csr()
    rows = torch.tensor([4, 0, 0, 5])
    found = take_rows(x, rows)
    assert torch.equal(found if layout == torch.strided else found.to_dense(), dense[rows])


def test_a_source_without_features():
    sources, target = random_pair(1)
    del sources[0].x
    pair = SharedNodePair(sources, target)
    assert pair.enriched_target().x is target.x
    with pytest.raises(ValueError, match="'union' has nodes of source 0 alone, which has no features"):
        pair.union()
    assert "x" not in pair.union(features=False)


@pytest.mark.parametrize(
    ("error", "match", "target", "source"),
    [
        (ValueError, "'x' of the source 0 has 3 columns of .* the target 2 of", torch.ones(9, 2), torch.ones(9, 3)),
        (ValueError, "source 0 has features 'x', but the target has none", None, torch.ones(9, 3)),
        (ValueError, "'x' of the target must have shape .N, F., a row for each of 9 nodes", torch.ones(9), None),
        (ValueError, "'x' of the target must have shape .N, F., a row for each of 9 nodes", torch.ones(8, 2), None),
        (ValueError, "'x' of the source 0 must have shape", torch.ones(9, 2), torch.ones(8, 2)),
        (ValueError, "columns of torch.float64", torch.ones(9, 2), torch.ones(9, 2).double()),
        (TypeError, "'x' of the target must be a dense or CSR tensor .got list", [1.0] * 9, None),
        (TypeError, "'x' of the target must be a dense or CSR tensor .got ndarray", np.ones((9, 2)), None),
        (
            TypeError,
            "'x' of the source 0 must be .* .got torch.sparse_coo",
            torch.ones(9, 2),
            torch.ones(9, 2).to_sparse(),
        ),
        (ValueError, "'x' of the target holds NaN: fill it in", torch.full((9, 2), torch.nan), None),
        (ValueError, "'x' of the source 0 holds NaN", torch.ones(9, 2), torch.full((9, 2), torch.nan)),
        (ValueError, "'x' of the source 0 holds infinity", torch.ones(9, 2), torch.full((9, 2), -torch.inf)),
        (ValueError, "'x' of the target holds NaN", torch.full((9, 2), torch.nan).to_sparse_csr(), None),
    ],
)
def test_bad_features(error, match, target, source):
    graphs = [Data(edge_index=torch.tensor([[0], [1]]), key=torch.arange(9), num_nodes=9) for _ in range(2)]
    for graph, x in zip(graphs, (source, target), strict=True):
        if x is not None:
            graph.x = x
    with pytest.raises(error, match=match):
        SharedNodePair(*graphs)
