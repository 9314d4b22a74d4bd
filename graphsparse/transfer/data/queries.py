"""What scores pairs of nodes of a target, and the pairs it may be asked for."""

from typing import Protocol

import torch
from torch import Tensor

from graphsparse.ops.check import check_edge_index
from graphsparse.transfer.data.pair import SharedNodePair
from graphsparse.transfer.data.split import LinkSplit


class Scorer(Protocol):
    """Anything that scores pairs of target nodes."""

    def score(self, pairs: Tensor) -> Tensor:
        """Return scores ``[Q]`` of pairs ``[2, Q]`` of target nodes, higher = more likely a link."""
        ...


def check_queries(pairs: Tensor, num_nodes: int, name: str = "pairs") -> Tensor:
    """Return pairs of target nodes as int64, or refuse them.

    Example:
        >>> check_queries(torch.tensor([[0, 2], [1, 2]]), 3)
        Traceback (most recent call last):
        ...
        ValueError: 'pairs' must hold no self-loops (got 1, the first for node 2)
    """
    check_edge_index(pairs, num_nodes, name)
    pairs = pairs.long()
    loops = pairs[0] == pairs[1]
    if bool(loops.any()):
        first = int(pairs[0, loops][0])
        raise ValueError(f"'{name}' must hold no self-loops (got {int(loops.sum())}, the first for node {first})")
    return pairs


def check_split(pair: SharedNodePair, split: LinkSplit) -> None:
    """Refuse a split of another pair of graphs."""
    for name, value, kind in (("pair", pair, SharedNodePair), ("split", split, LinkSplit)):
        if not isinstance(value, kind):
            raise TypeError(f"'{name}' must be a {kind.__name__} (got {type(value).__name__})")
    split.check(pair)


def check_dense_x(pair: SharedNodePair) -> None:
    """Refuse a pair without dense features.

    Example:
        >>> from torch_geometric.data import Data
        >>> graph = Data(edge_index=torch.tensor([[0], [1]]), key=torch.arange(3), num_nodes=3)
        >>> check_dense_x(SharedNodePair(graph, graph))
        Traceback (most recent call last):
        ...
        ValueError: the target has no features 'x' to learn from; 'pair.with_x' returns a pair that has
    """
    x = pair.target.get("x")
    if x is None:
        raise ValueError("the target has no features 'x' to learn from; 'pair.with_x' returns a pair that has")
    if x.layout != torch.strided or not x.is_floating_point():
        raise TypeError(f"'x' of the target must be dense floating point numbers (got {x.dtype}, {x.layout})")
