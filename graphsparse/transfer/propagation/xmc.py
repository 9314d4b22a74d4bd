"""Propagation of links over the rows of the adjacency, read at single pairs."""

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphsparse.ops.adjacency import Adjacency
from graphsparse.ops.blocks import blocks_by_size
from graphsparse.ops.check import check_count, check_edge_index, check_share
from graphsparse.ops.pairs import is_among, key_pairs, pair_keys, unique_keys
from graphsparse.transfer.data.split import check_queries

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
#: Entries of a block of rows, full or not, 4 bytes each: a block that fits no cache is slow, and one of a few rows of a
#: large graph pays for its columns. So it has 64 rows if they have not more entries than the second number.
_SCRATCH, _LARGE_SCRATCH = 1 << 25, 1 << 28
#: Most rows of a block, and entries looked at together where single entries are computed.
_ROWS, _BLOCK = 1024, 1 << 20


@dataclass(eq=False)
class XMCPropagation:
    r"""Scores pairs by links that are propagated as labels: row :math:`u` of the adjacency are the labels of node `u`.

    .. math::
        \mathbf{F} = \alpha^K \mathbf{S}^K \mathbf{A} + (1 - \alpha) \sum_{k < K} \alpha^k \mathbf{S}^k \mathbf{A},
        \qquad \mathbf{S} = \mathbf{D}^{-1} \mathbf{A},

    which is what ``K`` rounds of :math:`\mathbf{F} \leftarrow \alpha \mathbf{S} \mathbf{F} + (1 - \alpha) \mathbf{A}`
    give from :math:`\mathbf{F} = \mathbf{A}` on: a truncated personalised PageRank. The term of
    :math:`\mathbf{S} \mathbf{A}` is the number of common neighbours, divided by the degree. For an undirected graph the
    score is the mean of :math:`F_{uv}` and :math:`F_{vu}`.

    **A query that is a link of the graph is scored without that link**, exactly: neither as an entry, in either
    direction unless directed, nor in a degree.

    Nothing N x N is built. Rows :math:`\mathbf{e}_u^\top \mathbf{S}^k` of a block of sources are sparse, and of their
    products with the adjacency only the entries that are asked for are computed, by a sum over the neighbours of the
    other end. With more than 2 rounds rows fill up. It runs on CPU.

    Args:
        alpha: :math:`\alpha` in [0, 1].
        K: Number of rounds.
        directed: Whether links have a direction; :math:`F_{uv}` is the score then.

    Raises:
        TypeError, ValueError: If an argument is not of the kind described.

    Example:
        >>> path = torch.tensor([[0, 1, 2], [1, 2, 3]])
        >>> xmc = XMCPropagation(alpha=1.0, K=1).fit(path, num_nodes=4)
        >>> xmc.score(torch.tensor([[0, 0], [2, 3]]))
        tensor([0.7500, 0.0000])

    Source: the variant ``xmc`` in the released code of Zheng et al., 2023, arXiv 2302.14189, which builds the whole
    matrix and takes links to predict for labels.
    """

    alpha: float = 0.5
    K: int = 2
    _: KW_ONLY
    directed: bool = False

    def __post_init__(self) -> None:
        check_share(self.alpha, "alpha")
        check_count(self.K, "K", 0)
        self._graph: SparseGraph | None = None

    def fit(self, edge_index: Tensor, num_nodes: int) -> "XMCPropagation":
        """Take in the training graph.

        Args:
            edge_index: Links ``[2, E]``, in one or both directions unless directed. Repetitions count once, self-loops
                not at all.
            num_nodes: Number of nodes.

        Returns:
            The object itself.

        Raises:
            TypeError: If ``edge_index`` is not an integer tensor.
            ValueError: If its shape or an index is out of range.
        """
        check_edge_index(edge_index, num_nodes)
        proper = edge_index[:, edge_index[0] != edge_index[1]].cpu()
        self._key = unique_keys(pair_keys(proper, num_nodes, directed=self.directed))
        edges = key_pairs(self._key, num_nodes)
        if self.directed:
            rows = Adjacency.from_edge_index(edges.flip(0), num_nodes=num_nodes)  # rows are destinations there
            back = Adjacency.from_edge_index(edges, num_nodes=num_nodes)
            self._graph = SparseGraph(rows, back)
        else:
            both = torch.cat([edges, edges.flip(0)], 1)
            whole = Adjacency.from_edge_index(both, num_nodes=num_nodes, symmetric=True)
            self._graph = SparseGraph(whole, whole)
        return self

    @torch.no_grad()
    def score(self, queries: Tensor) -> Tensor:
        r"""Return the scores of some pairs.

        Args:
            queries: Pairs ``[2, Q]``; no self-loops.

        Returns:
            Scores between 0 and 1, float32 ``[Q]``, higher = more likely a link.

        Raises:
            RuntimeError: If there is no graph yet.
            TypeError: If ``queries`` is not an integer tensor.
            ValueError: If its shape or an index is out of range, or a pair is a self-loop.
        """
        if self._graph is None:
            raise RuntimeError("'fit' must be called first")
        num_nodes = self._graph.num_nodes
        pairs = check_queries(queries, num_nodes, "queries").cpu()
        linked = is_among(pair_keys(pairs, num_nodes, directed=self.directed), self._key).numpy()
        u, v = pairs.numpy()
        if self.directed:
            score = self._entries(self._graph, u, v, linked)
        else:
            both = np.concatenate([u, v]), np.concatenate([v, u]), np.concatenate([linked, linked])
            score = self._entries(self._graph, *both).reshape(2, -1).mean(0)
        return torch.from_numpy(score.astype(np.float32)).to(queries.device)

    def _entries(self, graph: "SparseGraph", u: Ints, v: Ints, linked: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return the entries ``[u, v]`` of the result."""
        score = np.zeros(len(u))
        columns = max(graph.num_nodes, 1)
        rows = max(_SCRATCH // columns, min(64, _LARGE_SCRATCH // columns), 1)
        rows = max(1, min(rows, _ROWS, len(u)))
        scratch = np.zeros(rows * graph.num_nodes, dtype=np.float32)
        for where, row, sources, partners in _blocks(u, v, linked, rows):
            block = RowBlock(graph, sources, partners, not self.directed, scratch)
            for k in range(self.K + 1):
                share = (1 - self.alpha) * self.alpha**k if k < self.K else self.alpha**self.K
                if share > 0:
                    score[where] += share * block.products(row, v[where])
                if k < self.K:
                    block.step()
            block.close()
        return score


class SparseGraph:
    """An adjacency with entries 1 as compressed rows, and its transpose, for products on CPU."""

    def __init__(self, rows: Adjacency, columns: Adjacency) -> None:
        from scipy.sparse import csr_array  # slow to import, and nothing else here needs it

        self.num_nodes = rows.rowptr.numel() - 1
        ones = np.ones(rows.col.numel(), dtype=np.float32)
        shape = (self.num_nodes, self.num_nodes)
        kind = torch.promote_types(rows.rowptr.dtype, rows.col.dtype)
        self.matrix = csr_array((ones, rows.col.to(kind).numpy(), rows.rowptr.to(kind).numpy()), shape=shape)
        self.degree: Ints = np.diff(rows.rowptr.numpy()).astype(np.int64)
        self.in_ptr: Ints = columns.rowptr.numpy().astype(np.int64)
        self.in_col = columns.col.numpy()


class RowBlock:
    r"""Rows :math:`\mathbf{e}_u^\top \mathbf{S}^k` of some sources, :math:`\mathbf{S} = \mathbf{D}^{-1} \mathbf{A}`.

    They start at :math:`k = 0`, and :meth:`step` takes them on. Each row may have an edge of its own that is not there
    for it, neither as an entry nor in a degree.

    Args:
        graph: The graph.
        sources: Source of each row, ``[B]``.
        partners: The other end of the edge at the source that is not there for the row, ``[B]``; ``None`` for none.
        both: Whether the opposite direction of that edge is not there either.
        scratch: Zeros, at least ``B * N``; they are zeros again after :meth:`close`.
    """

    def __init__(self, graph: SparseGraph, sources: Ints, partners: Ints | None, both: bool, scratch: Floats) -> None:
        from scipy.sparse import csr_array

        self.graph, self.sources, self.partners, self.both = graph, sources, partners, both
        self._scratch = scratch
        num = len(sources)
        # Indices of the type that the matrix has: SciPy would convert the whole matrix at every product otherwise.
        kind = graph.matrix.indices.dtype
        ones, ends = np.ones(num, dtype=np.float32), np.arange(num + 1, dtype=kind)
        self.rows: Any = csr_array((ones, sources.astype(kind), ends), shape=(num, graph.num_nodes))
        self._base = np.arange(num, dtype=np.int64) * graph.num_nodes
        self._load()

    def step(self) -> None:
        """Multiply the rows by the transition matrix."""
        graph, rows = self.graph, self.rows
        degree = graph.degree[rows.indices]
        if self.partners is not None:
            number = self._row_of_entries()
            degree -= rows.indices == self.sources[number]
            if self.both:
                degree -= rows.indices == self.partners[number]
        # A walk that came to a node without a way on ends there.
        share = np.divide(rows.data, degree, out=np.zeros_like(rows.data), where=degree > 0, casting="same_kind")
        self.close()
        gone = []
        if self.partners is not None:
            self._scratch[self._place] = share
            ends = [(self.sources, self.partners)] + ([(self.partners, self.sources)] if self.both else [])
            gone = [(self._base + there, self._scratch[self._base + here]) for here, there in ends]
            self._scratch[self._place] = 0
        rows.data = share
        self.rows = rows @ graph.matrix
        self._load()
        if self.partners is not None:
            for place, value in gone:
                self._scratch[place] = np.maximum(self._scratch[place] - value, 0)
            self.rows.data = self._scratch[self._place]

    def products(self, row: Ints, column: Ints) -> NDArray[np.float64]:
        """Return entries of the product of the rows with the adjacency: sums over the edges into the columns."""
        graph = self.graph
        start = graph.in_ptr[column]
        count = graph.in_ptr[column + 1] - start
        result = np.zeros(len(row))
        for part in blocks_by_size(torch.from_numpy(count), _BLOCK):
            entry = np.repeat(np.arange(part.stop - part.start), count[part])
            before = count[part].cumsum() - count[part]
            pick = np.arange(len(entry)) + (start[part] - before)[entry]
            value = self._scratch[self._base[row[part]][entry] + graph.in_col[pick]]
            result[part] = np.bincount(entry, weights=value, minlength=part.stop - part.start)
        if self.partners is not None:
            own = self.partners[row] == column
            result -= own * self._scratch[self._base[row] + self.sources[row]]
            if self.both:
                back = self.sources[row] == column
                result -= back * self._scratch[self._base[row] + self.partners[row]]
        return np.maximum(result, 0)

    def close(self) -> None:
        """Make the scratch zeros again."""
        self._scratch[self._place] = 0

    def _load(self) -> None:
        self._place = self._base[self._row_of_entries()] + self.rows.indices
        self._scratch[self._place] = self.rows.data

    def _row_of_entries(self) -> Ints:
        return np.repeat(np.arange(len(self.sources)), np.diff(self.rows.indptr))


def _blocks(u: Ints, v: Ints, linked: NDArray[np.bool_], rows: int) -> Iterator[tuple[Ints, Ints, Ints, Ints | None]]:
    """Yield queries, the row of each, and source and partner of each row, for blocks of rows.

    Queries of one source share a row; one that is a link has a row for itself, in which that link is missing.
    """
    free = np.flatnonzero(~linked)
    free = free[np.argsort(u[free], kind="stable")]
    sources, first = np.unique(u[free], return_index=True)
    first = np.append(first, len(free))
    for begin in range(0, len(sources), rows):
        end = min(begin + rows, len(sources))
        where = free[first[begin] : first[end]]
        yield where, np.repeat(np.arange(end - begin), np.diff(first[begin : end + 1])), sources[begin:end], None
    bound = np.flatnonzero(linked)
    for begin in range(0, len(bound), rows):
        where = bound[begin : begin + rows]
        yield where, np.arange(len(where)), u[where], v[where]
