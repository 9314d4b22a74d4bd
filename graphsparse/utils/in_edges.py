"""Edges sorted by destination, and blocks of them that a layer can run on."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from graphsparse.ops.adjacency import Adjacency


@dataclass
class Block:
    """Some destinations, all edges into them, and the sources of these edges.

    Attributes:
        nodes: The nodes of the block, destinations first, ``[S]``.
        num_dst: Number of destinations.
        rowptr: Where the edges into each destination start, ``[num_dst + 1]``.
        source: Source of each edge as a position in ``nodes``, ``[E_block]``.
        edges: The edges' positions in the sorted order: a slice, or a tensor ``[E_block]``.
    """

    nodes: Tensor
    num_dst: int
    rowptr: Tensor
    source: Tensor
    edges: slice | Tensor

    def edge_index(self) -> Tensor:
        """Return the edges as ``[2, E_block]``, positions in ``nodes``."""
        target = torch.arange(self.num_dst, device=self.source.device)
        return torch.stack([self.source, target.repeat_interleave(self.rowptr.diff())])

    def csr(self, value: Tensor) -> Tensor:
        """Return the edges as a torch CSR matrix ``[num_dst, S]`` with these values."""
        size = (self.num_dst, self.nodes.numel())
        return torch.sparse_csr_tensor(self.rowptr, self.source, value, size, check_invariants=False)

    def to(self, device: torch.device) -> "Block":
        """Return the block with what a layer needs of it on a device."""
        return Block(self.nodes, self.num_dst, self.rowptr.to(device), self.source.to(device), self.edges)


class InEdges:
    """The edges of a graph in the order of their destinations, and those into one node in the order of their sources.

    Args:
        adjacency: The graph; its values, if any, are not looked at.
        edge_id: The edge of the input at each place of the sorted order, ``[E]``; ``None`` if the input is sorted.

    Example:
        >>> edges = InEdges.sort(torch.tensor([[0, 2, 3], [1, 0, 1]]), num_nodes=4)
        >>> edges.degree()
        tensor([1, 2, 0, 0])
        >>> block = edges.block(1, 2)
        >>> block.nodes, block.edge_index()
        (tensor([1, 0, 3]), tensor([[1, 2],
                [0, 0]]))
        >>> edges.ids(block.edges)
        tensor([0, 2])
    """

    def __init__(self, adjacency: Adjacency, edge_id: Tensor | None) -> None:
        self.adjacency = adjacency
        self.rowptr = adjacency.rowptr.long()
        self.col = adjacency.col
        self.edge_id = edge_id
        self.num_nodes = self.rowptr.numel() - 1
        self.num_edges = self.col.numel()
        self._place = torch.empty(self.num_nodes, dtype=torch.long)

    @staticmethod
    def sort(edge_index: Tensor, num_nodes: int) -> "InEdges":
        """Sort edges by their destination.

        Args:
            edge_index: Edges ``[2, E]``.
            num_nodes: Number of nodes.
        """
        # The numbers of the edges travel as values, exact up to 2^53.
        number = torch.arange(edge_index.size(1), dtype=torch.float64)
        adjacency = Adjacency.from_edge_index(edge_index.cpu(), number, num_nodes)
        if adjacency.value is None or torch.equal(adjacency.value, number):
            return InEdges(adjacency.with_value(None), None)
        return InEdges(adjacency.with_value(None), adjacency.value.long())

    def degree(self) -> Tensor:
        """Return the number of edges into each node, ``[N]``."""
        return self.rowptr.diff()

    def ids(self, edges: slice | Tensor) -> slice | Tensor:
        """Return which edges of the input are at some places of the sorted order."""
        return edges if self.edge_id is None else self.edge_id[edges]

    def ranges(self, max_nodes: int, max_edges: int | None = None) -> Iterator[tuple[int, int]]:
        """Cut the nodes into ranges; a node with more edges than allowed has a range to itself.

        Args:
            max_nodes: Most nodes in a range.
            max_edges: Most edges into the nodes of a range; ``None`` for any number.
        """
        start = 0
        while start < self.num_nodes:
            stop = min(start + max_nodes, self.num_nodes)
            if max_edges is not None:
                end = int(self.rowptr[start]) + max_edges
                stop = min(stop, int(torch.searchsorted(self.rowptr, end, right=True)) - 1)
            stop = max(stop, start + 1)
            yield start, stop
            start = stop

    def block(self, start: int, stop: int) -> Block:
        """Return the block of the destinations ``start`` to ``stop - 1``."""
        rowptr = self.rowptr[start : stop + 1]
        edges = slice(int(rowptr[0]), int(rowptr[-1]))
        return self._block(torch.arange(start, stop), rowptr - rowptr[0], edges)

    def block_of(self, nodes: Tensor) -> Block:
        """Return the block of some destinations in any order, each named once."""
        count = self.degree()[nodes]
        rowptr = torch.cat([count.new_zeros(1), count.cumsum(0)])
        shift = (self.rowptr[nodes] - rowptr[:-1]).repeat_interleave(count)
        return self._block(nodes, rowptr, torch.arange(int(rowptr[-1])) + shift)

    def _block(self, dst: Tensor, rowptr: Tensor, edges: slice | Tensor) -> Block:
        col = self.col[edges].long()
        if 16 * col.numel() < self.num_nodes:
            found: Tensor = torch.unique(col)
        else:  # one pass over all nodes is cheaper than a sort of the edges
            flag = torch.zeros(self.num_nodes, dtype=torch.bool)
            flag[col] = True
            found = flag.nonzero().view(-1)
        self._place[found] = -1
        self._place[dst] = torch.arange(dst.numel())
        others = found[self._place[found] < 0]
        self._place[others] = torch.arange(dst.numel(), dst.numel() + others.numel())
        return Block(torch.cat([dst, others]), dst.numel(), rowptr, self._place[col], edges)
