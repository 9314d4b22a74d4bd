"""Two graphs cut out of one: what every protocol of intersecting graphs has in common."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from graphsparse.datasets.check import check_edges
from graphsparse.datasets.load import load
from graphsparse.edges.undirected import UndirectedEdges, undirected_edges
from graphsparse.ops.pairs import both_ways, key_pairs, pair_keys, unique_keys
from graphsparse.utils.files import ContentError, read_arrays, reading


@dataclass(frozen=True)
class GraphPair:
    """A source and a target that share nodes.

    Attributes:
        source: The source, with the key of each node in ``key``.
        target: The target, with the key of each node in ``key``.
        hold_out: Which links of the target may be held out, as :func:`graphsparse.transfer.split_links` takes it.
    """

    source: Data
    target: Data
    hold_out: str | Tensor


def cut_graph(
    nodes: Tensor, edges: Tensor, attributes: Mapping[str, Any], edge_attributes: Mapping[str, Tensor]
) -> Data:
    """Return some nodes of a graph, ascending, and the given edges between them, with old numbers as ``key``.

    Attributes of nodes that are ``None`` are left out.
    """
    data = Data(edge_index=torch.searchsorted(nodes, edges.contiguous()), key=nodes, num_nodes=nodes.numel())
    for name, value in attributes.items():
        if value is not None:
            # All nodes: the same tensor serves both graphs.
            data[name] = value if nodes.numel() == value.size(0) else value[nodes]
    for name, value in edge_attributes.items():
        data[name] = value
    return data


def both_directions(pairs: Tensor) -> Tensor:
    """Return undirected pairs in both directions, sorted, ``[2, 2P]``."""
    size = int(pairs.max()) + 1 if pairs.numel() else 1
    return key_pairs(both_ways(pair_keys(pairs, size), size), size)


def kept_at_random(pairs: Tensor, num_nodes: int, drop: float, rng: np.random.Generator) -> Tensor:
    """Return which edges are kept when each pair of nodes is dropped with a probability, both directions together.

    One number is drawn per different pair, in ascending order of smaller and larger end.
    """
    keys, place = np.unique(pair_keys(pairs, num_nodes).numpy(), return_inverse=True)
    return torch.from_numpy(rng.random(len(keys)) >= drop)[torch.from_numpy(place)]


def pair_sizes(source: Data, target: Data) -> dict[str, dict[str, float]]:
    """Return ``num_nodes``, ``num_links``, ``mean_degree``, ``median_degree`` of all graphs derived from a pair.

    Links are undirected. The nodes of the intersection are the shared ones.
    """
    size = int(max(source.key.max(), target.key.max())) + 1
    nodes = [torch.zeros(size, dtype=torch.bool) for _ in range(2)]
    links = []
    for mask, graph in zip(nodes, (source, target), strict=True):
        mask[graph.key] = True
        links.append(undirected_edges(graph.key[graph.edge_index], size).key)
    (in_source, in_target), (of_source, of_target) = nodes, links
    shared = in_source & in_target
    inner = [key[shared[key_pairs(key, size)].all(0)] for key in links]
    return {
        "target": _sizes(of_target, in_target),
        "intersection": _sizes(inner[1], shared),
        "enriched_intersection": _sizes(_both(*inner), shared),
        "enriched_target": _sizes(_both(of_target, inner[0]), in_target),
        "union": _sizes(_both(of_source, of_target), in_source | in_target),
        "source": _sizes(of_source, in_source),
    }


def _both(one: Tensor, other: Tensor) -> Tensor:
    return unique_keys(torch.cat([one, other]))


def _sizes(key: Tensor, nodes: Tensor) -> dict[str, float]:
    own = UndirectedEdges(key, nodes.numel()).degree()[nodes].numpy()
    mean, median = (float(own.mean()), float(np.median(own))) if len(own) else (0.0, 0.0)
    return {"num_nodes": len(own), "num_links": key.numel(), "mean_degree": mean, "median_degree": median}


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
    words = [f"x_{part}" for part in ("shape", "indptr", "indices", "data")]
    stored = read_arrays(file, "num_nodes", *(f"edges_{kind}" for kind in kinds), optional=["y", *words])
    with reading(file):
        size = int(stored["num_nodes"])
        links = [torch.from_numpy(stored[f"edges_{kind}"].astype(np.int64)) for kind in kinds]
        for pairs in links:
            check_edges(pairs, (size, size))
        y = torch.from_numpy(stored["y"].astype(np.int64)) if "y" in stored else None
        x = _words(stored) if "x_indptr" in stored else None
        if any(value is not None and value.size(0) != size for value in (x, y)):
            raise ContentError(f"'x' or 'y' is not for {size} nodes")
    if stem.startswith("cora"):
        x = load("cora", root).x  # the same nodes in the same order
    graphs = [cut_graph(torch.arange(size), both_directions(pairs), {"x": x, "y": y}, {}) for pairs in links]
    return GraphPair(graphs[0], graphs[1], "all")


def _words(stored: Mapping[str, Any]) -> Tensor:
    """Return the features, which are kept as compressed rows, as a dense matrix."""
    rows, columns = (int(length) for length in stored["x_shape"])
    x = torch.zeros(rows, columns)
    row = torch.arange(rows).repeat_interleave(torch.from_numpy(np.diff(stored["x_indptr"]).astype(np.int64)))
    x[row, torch.from_numpy(stored["x_indices"].astype(np.int64))] = torch.from_numpy(stored["x_data"])
    return x
