import numpy as np
import pytest
import torch

from graphsparse.datasets.graph_pair import RELATION_PAIRS, relation_pair

SIZES = {
    "cora-coauthor-citation": (2708, 14942, 5278, 1960),
    "cora-coauthor-cocitation": (2708, 14942, 4256, 1030),
    "acm-psp-pap": (4019, 2167097, 26917, 14131),
    "dblp-apcpa-apa": (4057, 2498219, 3528, 3528),
    "freebase-mam-mdm": (3492, 125605, 2456, 1457),
    "freebase-mam-mwm": (3492, 125605, 3607, 1294),
}


def codes(graph):
    u, v = graph.key[graph.edge_index]
    return (u * 10_000 + v)[u < v]


@pytest.mark.parametrize("name", list(RELATION_PAIRS))
def test_sizes(data_root, name):
    pair = relation_pair(name, data_root)
    nodes, source, target, common = SIZES[name]
    assert pair.source.num_nodes == pair.target.num_nodes == nodes
    assert (pair.source.num_edges, pair.target.num_edges) == (2 * source, 2 * target)
    assert int(torch.isin(codes(pair.target), codes(pair.source)).sum()) == common
    assert pair.hold_out == "all"
    if name.startswith("freebase"):
        assert "x" not in pair.source
    else:
        assert pair.source.x is pair.target.x
        assert pair.source.x.shape[0] == nodes
    if not name.startswith(("acm", "dblp")):
        assert pair.target.is_undirected()


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="freebase-mam-mdm: no file .*heco_freebase.npz"):
        relation_pair("freebase-mam-mdm", tmp_path)


def test_features(data_root):
    found = relation_pair("dblp-apcpa-apa", data_root).source.x
    with np.load(data_root / "multirel" / "heco_dblp.npz") as stored:
        ptr, col, value = (stored[f"x_{part}"] for part in ("indptr", "indices", "data"))
    assert found.shape == (4057, 334)
    for row in (0, 100, 4056):
        expected = np.zeros(334, dtype=np.float32)
        expected[col[ptr[row] : ptr[row + 1]]] = value[ptr[row] : ptr[row + 1]]
        np.testing.assert_array_equal(found[row], expected)
