"""Small link sets laid out as the archives of OGB are."""

import gzip
from pathlib import Path

import numpy as np
import torch


def _write(folder, arrays, split):
    for name, array in arrays.items():
        path = folder / "raw" / f"{name}.csv.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        with gzip.open(path, "wt") as file:
            np.savetxt(file, array, delimiter=",", fmt="%.3f" if name == "node-feat" else "%d")
    (folder / "split" / "time").mkdir(parents=True)
    for part, content in split.items():
        torch.save(content, folder / "split" / "time" / f"{part}.pt")
    (folder / "RELEASE_v1.txt").write_text("v1")


def write_citation2(root, num_nodes=300, num_edges=1500, seed=0):
    """Write a tiny ``ogbl-citation2``: papers cite older or equally old ones; return its arrays."""
    rng = np.random.default_rng(seed)
    year = rng.integers(2009, 2020, num_nodes)
    ends = rng.integers(0, num_nodes, (num_edges, 2))
    ends = ends[ends[:, 0] != ends[:, 1]]
    newer = year[ends[:, 0]] < year[ends[:, 1]]
    ends[newer] = ends[newer][:, ::-1]
    arrays = {
        "edge": ends,
        "num-node-list": np.array([num_nodes]),
        "num-edge-list": np.array([len(ends)]),
        "node-feat": rng.normal(size=(num_nodes, 4)).round(3),
        "node_year": year[:, None],
    }
    some = {"source_node": ends[:3, 0], "target_node": ends[:3, 1]}
    held = {**some, "target_node_neg": rng.integers(0, num_nodes, (3, 5))}
    _write(Path(root) / "ogbl_citation2", arrays, {"train": some, "valid": held, "test": held})
    return arrays


def write_collab(root, num_nodes=200, num_edges=900, seed=0):
    """Write a tiny ``ogbl-collab``: one line per pair and year, some pairs in several years; return its arrays."""
    rng = np.random.default_rng(seed)
    ends = np.sort(rng.integers(0, num_nodes, (num_edges, 2)), axis=1)
    ends = ends[ends[:, 0] != ends[:, 1]]
    ends = np.concatenate([ends, ends[:200]])
    year = rng.integers(2010, 2018, len(ends))
    arrays = {
        "edge": ends,
        "num-node-list": np.array([num_nodes]),
        "num-edge-list": np.array([len(ends)]),
        "node-feat": rng.normal(size=(num_nodes, 4)).round(3),
        "edge_weight": np.ones((len(ends), 1), dtype=int),
        "edge_year": year[:, None],
    }
    train = {"edge": ends, "weight": np.ones(len(ends)), "year": year}
    held = {"edge": ends[:5], "edge_neg": ends[5:10]}
    _write(Path(root) / "ogbl_collab", arrays, {"train": train, "valid": held, "test": held})
    return arrays
