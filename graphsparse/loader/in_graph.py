"""A graph as batches are cut out of it: the edges into some nodes, and the edges between them."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from graphsparse.ops.pattern import Pattern


class InGraph:
    """The edges of a graph by destination, on the CPU, built once for all batches.

    Besides the edges it holds 8 bytes per node.

    Args:
        edge_index: Edges ``[2, E]`` in any order; repeated edges stay apart.
        num_nodes: Number of nodes.

    Attributes:
        rowptr: Where the edges into each node start, ``[N + 1]``.
        source: Source of each edge, by destination, ``[E]``.

    Example:
        >>> graph = InGraph(torch.tensor([[0, 2, 3], [1, 0, 1]]), num_nodes=4)
        >>> graph.degree()
        tensor([1, 2, 0, 0])
        >>> graph.between(torch.tensor([1, 3]))
        (tensor([[1],
                [0]]), tensor([2]))
    """

    def __init__(self, edge_index: Tensor, num_nodes: int) -> None:
        source, destination = edge_index.as_subclass(Tensor).cpu()
        pattern = Pattern.build(destination, source, num_nodes, num_nodes)
        self.rowptr, self.source = pattern.rowptr.long(), pattern.col
        self._edge_id = None if pattern.perm is None else pattern.perm.long()
        self.num_nodes = num_nodes
        self._place = torch.full((num_nodes,), -1)

    def degree(self) -> Tensor:
        """Return the number of edges into each node, ``[N]``."""
        return self.rowptr.diff()

    def edge_id(self, place: Tensor) -> Tensor:
        """Return which edges of ``edge_index`` are at some places of the order by destination."""
        return place if self._edge_id is None else self._edge_id[place]

    def by_destination(self, value: Tensor) -> Tensor:
        """Return values ``[E]`` of the edges in the order by destination."""
        return value if self._edge_id is None else value[self._edge_id]

    def into(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """Return all edges into some nodes.

        Args:
            nodes: Nodes ``[n]``.

        Returns:
            The places of the edges in the order by destination, ``[m]``, and for each the position of its destination
            in ``nodes``, ``[m]``.
        """
        start = self.rowptr[nodes]
        count = self.rowptr[nodes + 1] - start
        target = torch.arange(nodes.numel()).repeat_interleave(count)
        place = torch.arange(target.numel())
        place += (start - (count.cumsum(0) - count))[target]
        return place, target

    @contextmanager
    def numbered(self, nodes: Tensor) -> Iterator[Tensor]:
        """Yield the position of each node of the graph in ``nodes``, ``[N]``, -1 for others; valid inside the block."""
        self._place[nodes] = torch.arange(nodes.numel())
        try:
            yield self._place
        finally:
            self._place[nodes] = -1

    def between(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """Return the edges with both ends among some nodes.

        Args:
            nodes: Nodes ``[n]``, each named once.

        Returns:
            Edges ``[2, m]`` as positions in ``nodes``, by destination, and their places in the order by destination.
        """
        place, target = self.into(nodes)
        with self.numbered(nodes) as position:
            source = position[self.source[place].long()]
        inside = source >= 0
        return torch.stack([source[inside], target[inside]]), place[inside]
