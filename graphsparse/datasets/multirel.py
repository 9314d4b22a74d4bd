"""Several kinds of links on the same nodes: a dense one as the source, a sparse one as the target."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from graphsparse.datasets.graph_pair import GraphPair, both_directions, cut_graph
from graphsparse.datasets.load import load

#: Name -> file below ``multirel`` in the data root, and the kinds of links of source and target.
RELATION_PAIRS: dict[str, tuple[str, str, str]] = {
    "cora-coauthor-citation": ("cora_citation_coauthor_cocitation", "coauthor", "citation"),
    "cora-coauthor-cocitation": ("cora_citation_coauthor_cocitation", "coauthor", "cocitation"),
    "acm-psp-pap": ("heco_acm", "psp", "pap"),
    "dblp-apcpa-apa": ("heco_dblp", "apcpa", "apa"),
    "freebase-mam-mdm": ("heco_freebase", "mam", "mdm"),
    "freebase-mam-mwm": ("heco_freebase", "mam", "mwm"),
}


def relation_pair(name: str, root: Path) -> GraphPair:
    """Return two kinds of links on the same nodes; any link of the target may be held out.

    ======================== ===== ========================== ======================= =========
    name                     nodes source                     target                  in common
    ======================== ===== ========================== ======================= =========
    cora-coauthor-citation   2,708 same author, 14,942        citation, 5,278         1,960
    cora-coauthor-cocitation 2,708 same author, 14,942        cited together, 4,256   1,030
    acm-psp-pap              4,019 same subject, 2,167,097    same author, 26,917     14,131
    dblp-apcpa-apa           4,057 same conference, 2,498,219 same paper, 3,528       3,528
    freebase-mam-mdm         3,492 same actor, 125,605        same director, 2,456    1,457
    freebase-mam-mwm         3,492 same actor, 125,605        same writer, 3,607      1,294
    ======================== ===== ========================== ======================= =========

    Citation and "cited together" are no pair here: the one is computed from the other. In ``dblp-apcpa-apa`` every
    link of the target is one of the source, because who writes together publishes at the same conference: held-out
    links must be left out of the source, and the non-links they are compared with too.

    The features are words; ``freebase`` has none.

    Source: HyperGCN (NeurIPS 2019) for Cora, HeCo (KDD 2021) for the others.
    """
    stem, *kinds = RELATION_PAIRS[name]
    file = root / "multirel" / f"{stem}.npz"
    if not file.is_file():
        raise FileNotFoundError(f"{name}: no file {file}")
    with np.load(file, allow_pickle=False) as stored:
        size = int(stored["num_nodes"])
        links = [torch.from_numpy(stored[f"edges_{kind}"].astype(np.int64)) for kind in kinds]
        y = torch.from_numpy(stored["y"].astype(np.int64)) if "y" in stored else None
        x = _words(stored) if "x_indptr" in stored else None
    if stem.startswith("cora"):
        x = load("cora", root).x  # the same nodes in the same order
    graphs = [cut_graph(torch.arange(size), both_directions(pairs), {"x": x, "y": y}, {}) for pairs in links]
    return GraphPair(graphs[0], graphs[1], "all")


def _words(stored: "np.lib.npyio.NpzFile") -> Tensor:
    """Return the features, which are kept as compressed rows, as a dense matrix."""
    rows, columns = (int(length) for length in stored["x_shape"])
    x = torch.zeros(rows, columns)
    row = torch.arange(rows).repeat_interleave(torch.from_numpy(np.diff(stored["x_indptr"]).astype(np.int64)))
    x[row, torch.from_numpy(stored["x_indices"].astype(np.int64))] = torch.from_numpy(stored["x_data"])
    return x
