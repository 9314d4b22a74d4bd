"""The graph, labels, years and official split of ogbn-arxiv, with features computed from the graph."""

from pathlib import Path

from torch_geometric.data import Data

from graphsparse.datasets.cache import data_root
from graphsparse.datasets.structure_file import read_structure

#: Place of the file below the data root.
ARXIV_FILE = Path("ogb", "ogbn_arxiv", "ogbn_arxiv.npz")


def arxiv_structure(root: str | Path | None = None, *, dim: int = 128, seed: int = 0, undirected: bool = True) -> Data:
    """Return ogbn-arxiv with structural features in place of the word vectors of titles and abstracts.

    169,343 papers, 1,166,243 citations, 40 subject areas. The split is the official one, by year of publication: up to
    2017 for training (90,941 papers), 2018 for validation (29,799), later for the test (48,603). The features come
    from :func:`graphsparse.utils.structural_features.structural_features` and see every citation but no label, so
    accuracies are below those published for ogbn-arxiv and must not be compared with them.

    Args:
        root: Data root, which holds ``ogb/ogbn_arxiv/ogbn_arxiv.npz``; by default the folder named by
            ``GRAPHSPARSE_DATA``, else ``data`` in the current folder. It is only read.
        dim: Width of the features.
        seed: Seeds the random projection of the features.
        undirected: Return both directions of every citation, 2,315,598 columns in sorted order, as GNNs use the graph.
            With ``False`` the columns are the official ones, from citing to cited paper. The features are the same.

    Returns:
        ``Data`` with ``x`` ``[N, dim]`` float32, ``edge_index`` ``[2, E]``, ``y`` ``[N]`` int64, ``node_year`` ``[N]``
        int64, bool masks ``train_mask``, ``val_mask``, ``test_mask`` ``[N]``, ``num_classes`` and ``name``.

    Raises:
        FileNotFoundError: If the file is missing; the message says how to make it.

    Example:
        ::

            data = arxiv_structure(dim=64)

    Source: Hu et al., "Open Graph Benchmark", NeurIPS 2020 (graph, split); FastRP, arXiv 1908.11512 (features).
    """
    file = (data_root() if root is None else Path(root).expanduser()) / ARXIV_FILE
    script = "prepare_ogbn_arxiv_structure.py"
    return read_structure(file, "ogbn-arxiv-structure", script, dim=dim, seed=seed, undirected=undirected)
