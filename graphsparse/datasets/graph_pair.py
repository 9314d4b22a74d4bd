"""Two graphs cut out of one: what every recipe for intersecting graphs has in common."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from graphsparse.ops.pairs import both_ways, key_pairs, pair_keys


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
    """Return some nodes of a graph and the given edges between them, with the old number of each node as ``key``.

    Args:
        nodes: Old numbers of the nodes, ascending; all ends of edges are among them.
        edges: Edges in old numbers, ``[2, E]``.
        attributes: Attributes of the nodes of the old graph; those that are ``None`` are left out.
        edge_attributes: Attributes of the edges.

    Example:
        >>> data = cut_graph(torch.tensor([1, 4]), torch.tensor([[4], [1]]), {"y": torch.arange(5)}, {})
        >>> data.edge_index.tolist(), data.key.tolist(), data.y.tolist()
        ([[1], [0]], [1, 4], [1, 4])
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

    Args:
        pairs: Edges ``[2, E]``.
        num_nodes: Number of nodes.
        drop: The probability.
        rng: Draws one number per different pair, in ascending order of smaller and larger end.
    """
    keys, place = np.unique(pair_keys(pairs, num_nodes).numpy(), return_inverse=True)
    return torch.from_numpy(rng.random(len(keys)) >= drop)[torch.from_numpy(place)]
