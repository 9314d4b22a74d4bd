"""Graphs kept without their features: edges, labels and split in one file, and features computed from the edges."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.utils import to_undirected

from graphsparse.datasets.check import check_edges
from graphsparse.utils.files import ContentError, read_arrays, reading
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

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds something else, or is damaged; the message has its path.
    """
    path, script = STRUCTURE_FILES[name]
    file = root / path
    if not file.is_file():
        raise FileNotFoundError(
            f"{name}: no file {file}; make it from the official {name.removesuffix('-structure')} with "
            f"datasets/{script} of the graphsparse repository (--root names the data root)"
        )
    arrays = read_arrays(file, "edge_index", "y", "split", optional=["year"])
    found = {key: torch.from_numpy(array.astype(np.int64)) for key, array in arrays.items()}
    with reading(file):
        size = found["y"].numel()
        check_edges(found["edge_index"], (size, size))
        for key in found.keys() - {"edge_index"}:
            if found[key].shape != (size,):
                raise ContentError(f"{key!r} is not one number for each of {size} nodes")
        if size == 0 or int(found["y"].min()) < 0:
            raise ContentError("'y' is no class for each node")
    split = found.pop("split")
    masks = {f"{part}_mask": split == number for number, part in enumerate(("train", "val", "test"))}
    years = {"node_year": found.pop("year")} if "year" in found else {}
    return {**found, **masks, **years}
