"""Two graphs cut out of one: what every protocol of intersecting graphs has in common."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from graphsparse.edges.undirected import UndirectedEdges, undirected_edges
from graphsparse.ops.pairs import both_ways, key_pairs, pair_keys, unique_keys


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
    """Say of edges which are kept when each pair of nodes is dropped with a probability, both directions together.

    One number is drawn per different pair, in ascending order of smaller and larger end.
    """
    keys, place = np.unique(pair_keys(pairs, num_nodes).numpy(), return_inverse=True)
    return torch.from_numpy(rng.random(len(keys)) >= drop)[torch.from_numpy(place)]


def pair_sizes(source: Data, target: Data) -> dict[str, dict[str, float]]:
    """Return ``num_nodes``, ``num_links``, ``mean_degree``, ``median_degree`` of all graphs derived from a pair.

    Links are undirected. The nodes of the intersection are the shared ones.

    Example:
        >>> graph = Data(edge_index=torch.tensor([[0], [1]]), key=torch.arange(2), num_nodes=2)
        >>> pair_sizes(graph, graph)["union"]
        {'num_nodes': 2, 'num_links': 1, 'mean_degree': 1.0, 'median_degree': 1.0}
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
