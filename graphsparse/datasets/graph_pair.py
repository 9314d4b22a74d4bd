"""Two graphs cut out of one: what every recipe for intersecting graphs has in common."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data


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
    codes = torch.cat([pairs[0] * size + pairs[1], pairs[1] * size + pairs[0]])
    codes.numpy().sort()  # in place and vectorised; torch.sort returns an order as well
    row = codes // size
    return torch.stack([row, codes - row * size])


def kept_at_random(pairs: Tensor, num_nodes: int, drop: float, rng: np.random.Generator) -> Tensor:
    """Say of edges which are kept when each pair of nodes is dropped with a probability, both directions together.

    Args:
        pairs: Edges ``[2, E]``.
        num_nodes: Number of nodes.
        drop: The probability.
        rng: Draws one number per different pair, in ascending order of smaller and larger end.
    """
    low, high = torch.minimum(*pairs), torch.maximum(*pairs)
    codes, place = np.unique((low * num_nodes + high).numpy(), return_inverse=True)
    return torch.from_numpy(rng.random(len(codes)) >= drop)[torch.from_numpy(place)]


def once(codes: Tensor) -> Tensor:
    """Sort numbers in place, and return each once.

    Example:
        >>> once(torch.tensor([3, 1, 3]))
        tensor([1, 3])
    """
    codes.numpy().sort()  # vectorised; unique of NumPy and torch are many times slower
    new = torch.ones(codes.numel(), dtype=torch.bool)
    torch.ne(codes[1:], codes[:-1], out=new[1:])
    return codes[new]
