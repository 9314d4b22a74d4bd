"""A graph kept without its features: edges, labels and split in one file, and features computed from the edges."""

from pathlib import Path

import numpy as np
import torch
from torch_geometric.data import Data
from torch_geometric.utils import to_undirected

from graphsparse.utils.structural_features import structural_features


def read_structure(file: Path, name: str, script: str, *, dim: int, seed: int, undirected: bool) -> Data:
    """Read a graph and compute its features.

    Args:
        file: Holds ``edge_index`` ``[2, E]``, ``y`` ``[N]`` and ``split`` ``[N]`` (0, 1, 2 for training, validation and
            test), and perhaps ``year`` ``[N]``.
        name: Name of the data set.
        script: Script of the repository that makes the file.
        dim: Width of the features.
        seed: Seeds the random projection of the features.
        undirected: Return both directions of every edge.

    Raises:
        FileNotFoundError: If the file is missing; the message says how to make it.
    """
    if not file.is_file():
        official = name.removesuffix("-structure")
        raise FileNotFoundError(
            f"{name}: no file {file}; make it from the official {official} with "
            f"datasets/{script} of the graphsparse repository (--root names the data root)"
        )
    with np.load(file, allow_pickle=False) as stored:
        wanted = [key for key in ("edge_index", "y", "split", "year") if key in stored]
        found = {key: torch.from_numpy(stored[key].astype(np.int64)) for key in wanted}
    edge_index, y, split = found["edge_index"], found["y"], found["split"]
    data = Data(
        x=structural_features(edge_index, y.numel(), dim=dim, seed=seed),
        edge_index=to_undirected(edge_index, num_nodes=y.numel()) if undirected else edge_index,
        y=y,
        train_mask=split == 0,
        val_mask=split == 1,
        test_mask=split == 2,
    )
    if "year" in found:
        data.node_year = found["year"]
    data.num_classes, data.name = int(y.max()) + 1, name
    return data
