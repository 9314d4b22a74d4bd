"""Small data sets in the formats of OGB, for the tests of its loaders."""

import gzip
from pathlib import Path

import numpy as np


def snapshot(folder):
    """Everything that would change if anything in a folder did."""
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(Path(folder).rglob("*"))}


def write_arxiv(root):
    """Write a tiny ``ogbn-arxiv`` the way its archive is laid out, and return its arrays."""
    rng = np.random.default_rng(0)
    nodes = rng.permutation(12)
    arrays = {
        "raw/edge": rng.integers(0, 12, (30, 2)),
        "raw/num-node-list": np.array([12]),
        "raw/num-edge-list": np.array([30]),
        "raw/node-feat": rng.normal(size=(12, 4)).round(3),
        "raw/node-label": rng.integers(0, 40, (12, 1)),
        "raw/node_year": rng.integers(2010, 2020, (12, 1)),
        "split/time/train": nodes[:6],
        "split/time/valid": nodes[6:9],
        "split/time/test": nodes[9:],
    }
    _write_csv(Path(root) / "ogbn_arxiv", arrays)
    return arrays


def write_proteins(root):
    """Write a tiny ``ogbn-proteins``, whose features are those of edges and whose nodes have 112 labels."""
    rng = np.random.default_rng(0)
    nodes = rng.permutation(12)
    arrays = {
        "raw/edge": rng.integers(0, 12, (30, 2)),
        "raw/num-node-list": np.array([12]),
        "raw/num-edge-list": np.array([30]),
        "raw/edge-feat": rng.random((30, 8)).round(3),
        "raw/node_species": rng.integers(0, 3, (12, 1)),
        "raw/node-label": (np.argsort(nodes)[:, None] + np.arange(112)) % 2,  # both, in every part
        "split/species/train": nodes[:4],
        "split/species/valid": nodes[4:8],
        "split/species/test": nodes[8:],
    }
    _write_csv(Path(root) / "ogbn_proteins", arrays)


def _write_csv(folder, arrays):
    for name, array in arrays.items():
        path = folder / f"{name}.csv.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        with gzip.open(path, "wt") as file:
            np.savetxt(file, array, delimiter=",", fmt="%.3f" if name.endswith("-feat") else "%d")
    (folder / "RELEASE_v1.txt").write_text("v1")


def save_with_ogb(folder, name, graphs, labels, split, *, version=1, hetero=False, task=None, split_name="time"):
    """Write a set with OGB's own DatasetSaver below ``folder`` and return its description."""
    from ogb.io import DatasetSaver

    saver = DatasetSaver(name, hetero, version=version, root=str(folder / "submission"))
    saver.save_graph_list(graphs)
    if labels is not None:
        saver.save_target_labels(labels)
    saver.save_split(split, split_name)
    (folder / "mapping").mkdir()
    (folder / "mapping" / "README.md").write_text("no mapping")
    saver.copy_mapping_dir(str(folder / "mapping"))
    saver.save_task_info(*(task or ("multiclass classification", "acc", 3)))
    return saver.get_meta_dict()
