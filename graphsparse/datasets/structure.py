"""Graphs kept without their features: edges, labels and split in one file, and features computed from the edges."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.utils import to_undirected

from graphsparse.utils.structural_features import structural_features

#: Name -> file below the data root, and the script of the repository that makes it from the official set.
STRUCTURE_FILES = {
    "ogbn-arxiv-structure": (Path("ogb", "ogbn_arxiv", "ogbn_arxiv.npz"), "prepare_ogbn_arxiv_structure.py"),
    "flickr-structure": (Path("large", "Flickr-GraphSAINT.npz"), "prepare_flickr_structure.py"),
}


def structure_graph(name: str, root: Path, seed: int) -> Data:
    """Return a graph in both directions of every edge, with 128 features that see the edges but no label."""
    parts = read_structure(name, root)
    edge_index, num_nodes = parts.pop("edge_index"), parts["y"].numel()
    x = structural_features(edge_index, num_nodes, seed=seed)
    data = Data(x=x, edge_index=to_undirected(edge_index, num_nodes=num_nodes), **parts)
    data.num_classes = int(data.y.max()) + 1
    return data


def read_structure(name: str, root: Path) -> dict[str, Tensor]:
    """Read a graph as it is kept: with official directions, and without features.

    The file holds ``edge_index`` ``[2, E]``, ``y`` ``[N]`` and ``split`` ``[N]`` (0, 1, 2 for training, validation and
    test), and perhaps ``year`` ``[N]``.
    """
    path, script = STRUCTURE_FILES[name]
    file = root / path
    if not file.is_file():
        raise FileNotFoundError(
            f"{name}: no file {file}; make it from the official {name.removesuffix('-structure')} with "
            f"datasets/{script} of the graphsparse repository (--root names the data root)"
        )
    with np.load(file, allow_pickle=False) as stored:
        wanted = [key for key in ("edge_index", "y", "split", "year") if key in stored]
        found = {key: torch.from_numpy(stored[key].astype(np.int64)) for key in wanted}
    split = found.pop("split")
    masks = {f"{part}_mask": split == number for number, part in enumerate(("train", "val", "test"))}
    years = {"node_year": found.pop("year")} if "year" in found else {}
    return {**found, **masks, **years}
