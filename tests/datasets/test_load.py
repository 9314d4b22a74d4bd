import ogb_sets
import pytest
import torch
from torch_geometric.transforms import NormalizeFeatures

from graphsparse.datasets import load, load_ogb
from graphsparse.datasets.load import NAMES
from graphsparse.datasets.pyg_source import PYG_SOURCES, read_pyg

pytestmark = pytest.mark.once

PUBLIC = {"cora": (140, 500, 1000), "citeseer": (120, 500, 1000), "pubmed": (60, 500, 1000)}

# name: nodes, columns of edge_index, features, classes, both directions there, edge homophily as published or None.
# Homophily is that of Zhu et al., NeurIPS 2020 (Planetoid, WebKB, Actor), Platonov et al., ICLR 2023 (minesweeper,
# tolokers, the filtered graphs) and Lim et al., NeurIPS 2021 (ogbn-arxiv). The 0.21 of wisconsin counts a mutual link
# once, PyG twice.
SETS = {
    "cora": (2708, 2 * 5278, 1433, 7, True, 0.81),
    "citeseer": (3327, 2 * 4552, 3703, 6, True, 0.74),
    "pubmed": (19717, 2 * 44324, 500, 3, True, 0.80),
    "texas": (183, 325, 1703, 5, False, 0.11),
    "cornell": (183, 298, 1703, 5, False, 0.30),
    "wisconsin": (251, 515, 1703, 5, False, None),
    "actor": (7600, 30019, 932, 5, False, 0.22),
    "cora_ml": (2995, 2 * 8158, 2879, 7, True, None),
    "citeseer_full": (4230, 2 * 5337, 602, 6, True, None),
    "dblp": (17716, 2 * 52867, 1639, 4, True, None),
    "minesweeper": (10000, 2 * 39402, 7, 2, True, 0.68),
    "tolokers": (11758, 2 * 519000, 10, 2, True, 0.59),
    "chameleon_filtered": (890, 2 * 8854, 2325, 5, True, 0.24),
    "squirrel_filtered": (2223, 2 * 46998, 2089, 5, True, 0.21),
    "airports-usa": (1190, 13599, 1190, 4, False, None),
    "airports-brazil": (131, 1074, 131, 4, False, None),
    "airports-europe": (399, 5995, 399, 4, False, None),
    "ogbn-arxiv-structure": (169343, 2315598, 128, 40, True, 0.655),
    "flickr-structure": (89250, 2 * 449878, 128, 7, True, 0.319),
}


def splits(data):
    return tuple(int(data[f"{part}_mask"].sum()) for part in ("train", "val", "test"))


def test_every_name_is_tested():
    assert set(SETS) | {"synthetic"} == set(NAMES)


@pytest.mark.parametrize("name", SETS)
def test_counts(name, data_root):
    nodes, columns, features, classes, undirected, homophily = SETS[name]
    data = load(name, data_root)
    assert (data.num_nodes, data.edge_index.size(1), data.x.size(1)) == (nodes, columns, features)
    assert (data.name, data.num_classes) == (name, classes)
    assert data.y.unique().tolist() == list(range(classes))
    assert (data.x.dtype, data.y.dtype, data.edge_index.dtype) == (torch.float32, torch.int64, torch.int64)
    data.validate()
    row, col = data.edge_index
    key = (row * nodes + col).sort().values
    assert (key.diff() > 0).all()
    assert torch.equal((col * nodes + row).sort().values, key) == undirected
    if homophily is not None:
        same = (data.y[row] == data.y[col]).double().mean().item()
        assert same == pytest.approx(homophily, abs=0.0065)

    masks = torch.stack([data.train_mask, data.val_mask, data.test_mask])
    assert masks.dtype == torch.bool
    assert masks.shape == (3, nodes)
    assert int(masks.sum(0).max()) == 1
    if name in PUBLIC:
        assert splits(data) == PUBLIC[name]
    else:
        assert bool(masks.any(0).all())


def test_public_split_is_the_published_one(data_root):
    data = load("cora", data_root)
    assert data.train_mask.nonzero().flatten().tolist() == list(range(140))
    assert data.val_mask.nonzero().flatten().tolist() == list(range(140, 640))
    assert data.test_mask.nonzero().flatten().tolist() == list(range(1708, 2708))
    assert torch.bincount(data.y[data.train_mask]).tolist() == [20] * 7


@pytest.mark.parametrize("name", ["texas", "actor", "minesweeper", "chameleon_filtered"])
def test_split_picks_one_of_ten(name, data_root):
    all_splits = read_pyg(PYG_SOURCES[name], name, data_root)
    for split in (0, 9):
        data = load(name, data_root, split=split)
        for mask in ("train_mask", "val_mask", "test_mask"):
            assert torch.equal(data[mask], all_splits[mask][:, split])
    assert not torch.equal(data.train_mask, load(name, data_root).train_mask)


@pytest.mark.parametrize("name", ["cora_ml", "airports-usa"])
def test_random_split_is_seeded_and_stratified(name, data_root):
    data, same, other = (load(name, data_root, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(data.train_mask, same.train_mask)
    assert not torch.equal(data.train_mask, other.train_mask)
    sizes = torch.bincount(data.y).double()
    for mask, fraction in ((data.train_mask, 0.6), (data.val_mask, 0.2), (data.test_mask, 0.2)):
        assert (torch.bincount(data.y[mask]) - fraction * sizes).abs().max() <= 1


@pytest.mark.parametrize("name", ["cora", "pubmed", "texas", "actor", "dblp"])
def test_words_are_normalised_as_pyg_does(name, data_root):
    raw = load(name, data_root, normalize_features=False)
    torch.testing.assert_close(load(name, data_root).x, NormalizeFeatures()(raw).x, rtol=1e-5, atol=0)
    assert not torch.equal(load(name, data_root).x, raw.x)


@pytest.mark.parametrize("name", ["minesweeper", "squirrel_filtered", "tolokers", "airports-brazil"])
def test_other_features_are_left_alone(name, data_root):
    assert torch.equal(load(name, data_root).x, load(name, data_root, normalize_features=False).x)


def test_root_from_the_environment(data_root, monkeypatch):
    monkeypatch.setenv("GRAPHSPARSE_DATA", str(data_root))
    assert load("Texas").num_nodes == 183


def test_synthetic_needs_no_data(tmp_path):
    data = load("synthetic", tmp_path, seed=2)
    assert (data.num_nodes, data.name, list(tmp_path.iterdir())) == (2000, "synthetic", [])
    torch.testing.assert_close(data.x.sum(1), torch.ones(2000))


def test_unknown_name():
    with pytest.raises(ValueError, match=r"no data set 'siteseer'; did you mean 'citeseer'\? Known are .*pubmed"):
        load("siteseer")
    with pytest.raises(ValueError, match=r"no data set '\?\?'\. Known are .*texas"):
        load("??")
    with pytest.raises(ValueError, match=r"'ogbn-arxive'; did you mean 'ogbn-arxiv'\? Known are .*texas.*ogbl-ddi"):
        load("ogbn-arxive")
    with pytest.raises(TypeError, match="'name'"):
        load(3)


def test_sets_of_ogb_that_are_classes_of_nodes(tmp_path):
    arrays = ogb_sets.write_arxiv(tmp_path / "ogb")
    data, (official, _) = load("OGBN-arxiv", tmp_path), load_ogb("ogbn-arxiv", tmp_path / "ogb")
    assert (data.name, data.num_classes, data.num_nodes) == ("ogbn-arxiv", 40, 12)
    assert data.y.tolist() == arrays["raw/node-label"][:, 0].tolist()
    for key in ("x", "edge_index", "y", "train_mask", "val_mask", "test_mask", "node_year"):
        assert torch.equal(data[key], official[key])
    with pytest.raises(ValueError, match="'split' must be 0 for 'ogbn-arxiv'"):
        load("ogbn-arxiv", tmp_path, split=1)


@pytest.mark.parametrize("name", ["ogbl-ddi", "ogbg-molhiv", "ogbn-mag", "ogbn-proteins", "OGBL-wikikg2"])
def test_other_sets_of_ogb_are_sent_to_load_ogb(name, tmp_path):
    with pytest.raises(ValueError, match=rf"load_ogb\('{name.lower()}'\) loads it"):
        load(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_bad_arguments(data_root):
    with pytest.raises(ValueError, match=r"'split' must be in \[0, 10\) for 'texas' \(got 10\)"):
        load("texas", data_root, split=10)
    with pytest.raises(ValueError, match=r"'split' must be 0 for 'cora' \(got -1\)"):
        load("cora", data_root, split=-1)
    with pytest.raises(ValueError, match="'split' must be 0 for 'synthetic'"):
        load("synthetic", split=1)
    with pytest.raises(TypeError, match="'split' must be an integer"):
        load("synthetic", split="train")
