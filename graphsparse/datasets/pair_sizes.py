"""Sizes of the graphs that are derived from a pair, by their keys alone."""

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from graphsparse.datasets.graph_pair import once
from graphsparse.edges.undirected import undirected_edges


def pair_sizes(source: Data, target: Data) -> dict[str, dict[str, float]]:
    """Return ``num_nodes``, ``num_links``, ``mean_degree``, ``median_degree`` of all graphs derived from a pair.

    Links are undirected. The nodes of the intersection are the shared ones.

    Args:
        source: The source, with integer ``key`` ``[N]``.
        target: The target, with integer ``key`` ``[N]``.

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
    inner = [key[shared[key // size] & shared[key % size]] for key in links]
    return {
        "target": _sizes(of_target, in_target),
        "intersection": _sizes(inner[1], shared),
        "enriched_intersection": _sizes(_both(*inner), shared),
        "enriched_target": _sizes(_both(of_target, inner[0]), in_target),
        "union": _sizes(_both(of_source, of_target), in_source | in_target),
        "source": _sizes(of_source, in_source),
    }


def _both(one: Tensor, other: Tensor) -> Tensor:
    return once(torch.cat([one, other]))


def _sizes(key: Tensor, nodes: Tensor) -> dict[str, float]:
    size = nodes.numel()
    degree = torch.bincount(key // size, minlength=size) + torch.bincount(key % size, minlength=size)
    own = degree[nodes].numpy()
    mean, median = (float(own.mean()), float(np.median(own))) if len(own) else (0.0, 0.0)
    return {"num_nodes": len(own), "num_links": key.numel(), "mean_degree": mean, "median_degree": median}
