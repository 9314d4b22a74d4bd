"""The metric backbone of a weighted graph: the edges that shortest paths are made of."""

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.csgraph import dijkstra
from torch import Tensor

from graphsparse.edges.scores.neighborhood import triangle_blocks
from graphsparse.edges.undirected import UndirectedEdges
from graphsparse.ops.blocks import row_blocks

#: Nodes up to which all distances are computed, a block of rows at a time.
_MOST_NODES = 20_000


def metric_backbone_mask(
    edges: UndirectedEdges, score: Tensor, *ties: Tensor, edge_weight: Tensor | None = None
) -> Tensor:
    """Mark the edges that no path of two edges is shorter than, bool ``[M]``; the length of an edge is 1 / weight.

    What is not marked is on no shortest path, so that every distance stays what it was. Scores are not used.

    Raises:
        ValueError: If there are no weights: with equal lengths no path of two edges is shorter than an edge.

    Source: Kalavri, Simas and Logothetis, *The shortest path is not always a straight line*, VLDB 9 (2016), its
    first-order semi-metric edges.
    """
    length = _length(edge_weight)
    keep = torch.ones(edges.num_edges, dtype=torch.bool, device=length.device)
    for a, b, c in triangle_blocks(edges, edges.degree()):
        for edge, first, second in ((a, b, c), (b, c, a), (c, a, b)):
            keep[edge[length[first] + length[second] < length[edge]]] = False
    return keep


def exact_metric_backbone_mask(
    edges: UndirectedEdges, score: Tensor, *ties: Tensor, edge_weight: Tensor | None = None
) -> Tensor:
    """Mark the edges that no path at all is shorter than, bool ``[M]``; see :func:`metric_backbone_mask`.

    Raises:
        ValueError: If there are no weights, or more than 20,000 nodes: Dijkstra's algorithm runs from every one.
    """
    if edges.num_nodes > _MOST_NODES:
        raise ValueError(
            f"'core' 'metric_exact' is for at most {_MOST_NODES} nodes (got {edges.num_nodes}), 'metric' for any"
        )
    length = _length(edge_weight).cpu().numpy()
    num_nodes, key = edges.num_nodes, edges.key.cpu().numpy()
    u, v = np.divmod(key, max(num_nodes, 1))
    graph = sparse.csr_array((np.tile(length, 2), (np.r_[u, v], np.r_[v, u])), shape=(num_nodes, num_nodes))
    keep = np.ones(len(key), dtype=bool)
    for rows in row_blocks(num_nodes, num_nodes):
        here = slice(*np.searchsorted(u, [rows.start, rows.stop]))
        if here.start == here.stop:
            continue
        sources, row = np.unique(u[here], return_inverse=True)
        distance = dijkstra(graph, indices=sources, limit=length[here].max())
        keep[here] = distance[row, v[here]] >= length[here]
    return torch.from_numpy(keep).to(edges.key.device)


def _length(edge_weight: Tensor | None) -> Tensor:
    if edge_weight is None:
        raise ValueError("'edge_weight' must be given for a metric core (got None): edges of equal length all stay")
    return 1 / edge_weight.double()
