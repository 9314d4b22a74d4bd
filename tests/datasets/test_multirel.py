import numpy as np
import pytest
import torch

from graphsparse.datasets.multirel import RELATION_PAIRS, relation_pair

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


def test_windows(data_root):
    whole, part = (relation_pair("freebase-mam-mdm", data_root, window=window) for window in (None, (0.4, 0.8)))
    assert (part.source.num_nodes, part.target.num_nodes) == (2794, 2095)
    inside = torch.isin(whole.target.edge_index, part.target.key).all(0)
    assert part.target.num_edges == int(inside.sum())
    assert np.isin(codes(part.target), codes(whole.target)).all()
    other = relation_pair("freebase-mam-mdm", data_root, window=(0.4, 0.8), seed=1)
    assert not torch.equal(other.target.key, part.target.key)


def test_missing_names_and_files(tmp_path):
    with pytest.raises(ValueError, match="'name' must be one of cora-coauthor-citation, .* .got 'imdb'"):
        relation_pair("imdb", tmp_path)
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
