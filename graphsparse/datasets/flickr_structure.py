"""The graph, labels and split of Flickr, with features computed from the graph."""

from pathlib import Path

from torch_geometric.data import Data

from graphsparse.datasets.cache import data_root
from graphsparse.datasets.structure_file import read_structure

#: Place of the file below the data root.
FLICKR_FILE = Path("large", "Flickr-GraphSAINT.npz")


def flickr_structure(root: str | Path | None = None, *, dim: int = 128, seed: int = 0) -> Data:
    """Return the Flickr graph of GraphSAINT with structural features in place of the words of captions.

    89,250 images, 449,878 undirected edges between images with common properties, 7 groups of tags. The split is that
    of GraphSAINT: 44,625 images for training, 22,312 for validation, 22,313 for the test. The features come from
    :func:`graphsparse.utils.structural_features.structural_features` and see every edge but no label, so accuracies
    must not be compared with those published for Flickr.

    Args:
        root: Data root, which holds ``large/Flickr-GraphSAINT.npz``; by default the folder named by
            ``GRAPHSPARSE_DATA``, else ``data`` in the current folder. It is only read.
        dim: Width of the features.
        seed: Seeds the random projection of the features.

    Returns:
        ``Data`` with ``x`` ``[N, dim]`` float32, ``edge_index`` ``[2, 899756]``, ``y`` ``[N]`` int64, bool masks
        ``train_mask``, ``val_mask``, ``test_mask`` ``[N]``, ``num_classes`` and ``name``.

    Raises:
        FileNotFoundError: If the file is missing; the message says how to make it.

    Example:
        ::

            data = flickr_structure(dim=64)

    Source: Zeng et al., "GraphSAINT", arXiv 1907.04931 (graph, split); FastRP, arXiv 1908.11512 (features).
    """
    file = (data_root() if root is None else Path(root).expanduser()) / FLICKR_FILE
    script = "prepare_flickr_structure.py"
    return read_structure(file, "flickr-structure", script, dim=dim, seed=seed, undirected=True)
