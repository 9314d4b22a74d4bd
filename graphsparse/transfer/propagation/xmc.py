"""Propagation of links over the rows of the adjacency, read at single pairs."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphsparse.edges.undirected import undirected_edges
from graphsparse.ops.adjacency import Adjacency
from graphsparse.ops.check import check_count, check_edge_index, check_share
from graphsparse.ops.pairs import is_among, key_pairs, pair_keys, unique_keys
from graphsparse.transfer.data.queries import check_queries
from graphsparse.transfer.propagation.sparse_rows import Ints, RowBlock, SparseGraph

#: Entries of a block of rows, full or not, 4 bytes each: a block that fits no cache is slow, and one of a few rows of a
#: large graph pays for its columns. So it has 64 rows if they have not more entries than the second number.
_SCRATCH, _LARGE_SCRATCH = 1 << 25, 1 << 28


#: Weights for scores that are added to a probability. They are small where nodes have many links, so that large ones
#: may be needed.
XMC_GRID = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)


class XMCPropagation:
    r"""Scores pairs by links that are propagated as labels: row :math:`u` of the adjacency are the labels of node `u`.

    .. math::
        \mathbf{F} = \alpha^K \mathbf{S}^K \mathbf{Y} + (1 - \alpha) \sum_{k < K} \alpha^k \mathbf{S}^k \mathbf{A},
        \qquad \mathbf{S} = \mathbf{D}^{-1} \mathbf{A}, \quad \mathbf{Y} = \mathbf{A},

    which is what ``K`` rounds of :math:`\mathbf{F} \leftarrow \alpha \mathbf{S} \mathbf{F} + (1 - \alpha) \mathbf{A}`
    give: a truncated personalised PageRank. The term of :math:`\mathbf{S} \mathbf{A}` is the number of common
    neighbours, divided by the degree. For an undirected graph the score is the mean of :math:`F_{uv}` and
    :math:`F_{vu}`.

    **A query that is a link of the graph is scored without that link**, exactly: neither as an entry, in either
    direction unless directed, nor in a degree.

    Nothing N x N is built. Rows :math:`\mathbf{e}_u^\top \mathbf{S}^k` of a block of sources are sparse, and of their
    products with the adjacency only the entries that are asked for are computed, by a sum over the neighbours of the
    other end. It runs on CPU.

    Args:
        alpha: :math:`\alpha` in [0, 1].
        K: Number of rounds; with more than 2 rows fill up, unless ``topk`` is set.
        topk: Entries of a row kept after each round, the largest ones; all, and exact, when ``None``.
        directed: Whether links have a direction; :math:`F_{uv}` is the score then.
        block_size: Most sources in a block; fewer in a large graph.

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

    def __init__(
        self,
        alpha: float = 0.5,
        K: int = 2,  # noqa: N803
        topk: int | None = None,
        *,
        directed: bool = False,
        block_size: int = 1024,
    ) -> None:
        self.alpha, self.K = check_share(alpha, "alpha"), check_count(K, "K", 0)
        self.topk = None if topk is None else check_count(topk, "topk")
        self.directed, self.block_size = bool(directed), check_count(block_size, "block_size")
        self._graph: SparseGraph | None = None

    def __repr__(self) -> str:
        fields = ("alpha", "K", "topk", "directed")
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in fields)})"

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
        edge_index = edge_index.cpu()
        if self.directed:
            proper = edge_index[:, edge_index[0] != edge_index[1]]
            self._key = unique_keys(pair_keys(proper, num_nodes, directed=True))
            edges = key_pairs(self._key, num_nodes)
            rows = Adjacency.from_edge_index(edges.flip(0), num_nodes=num_nodes)  # rows are destinations there
            back = Adjacency.from_edge_index(edges, num_nodes=num_nodes)
            self._graph = SparseGraph(rows.rowptr, rows.col, (back.rowptr, back.col))
            return self
        links = undirected_edges(edge_index, num_nodes)
        self._key = links.key
        half = key_pairs(links.key, num_nodes).int()
        whole = Adjacency.from_edge_index(torch.cat([half, half.flip(0)], 1), num_nodes=num_nodes, symmetric=True)
        self._graph = SparseGraph(whole.rowptr, whole.col, None)
        return self

    @torch.no_grad()
    def score(self, queries: Tensor, start: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        r"""Return the scores of some pairs.

        Args:
            queries: Pairs ``[2, Q]``; no self-loops.
            start: The entries of :math:`\mathbf{Y}`, in place of the adjacency: a function of pairs ``[2, M]`` that
                returns numbers ``[M]``, such as the probabilities of a teacher. Called for the nodes in the last row of
                the source only, some million pairs at once.

        Returns:
            Scores between 0 and 1 (if those of ``start`` are), float32 ``[Q]``, higher = more likely a link.

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
        u, v = (end.numpy() for end in pairs)
        if self.directed:
            score = self._entries(u, v, linked, start)
        else:
            both = np.concatenate([u, v]), np.concatenate([v, u])
            score = self._entries(*both, np.concatenate([linked, linked]), start).reshape(2, -1).mean(0)
        return torch.from_numpy(score.astype(np.float32)).to(queries.device)

    def _entries(
        self, u: Ints, v: Ints, linked: NDArray[np.bool_], start: Callable[[Tensor], Tensor] | None
    ) -> NDArray[np.float64]:
        """Return the entries ``[u, v]`` of the result."""
        assert self._graph is not None
        score = np.zeros(len(u))
        columns = max(self._graph.num_nodes, 1)
        rows = max(_SCRATCH // columns, min(64, _LARGE_SCRATCH // columns), 1)
        rows = max(1, min(rows, self.block_size, len(u)))
        scratch = np.zeros(rows * self._graph.num_nodes, dtype=np.float32)
        for where, row, sources, partners in self._blocks(u, v, linked, rows):
            block = RowBlock(self._graph, sources, partners, not self.directed, scratch)
            for k in range(self.K + 1):
                share = (1 - self.alpha) * self.alpha**k if k < self.K else self.alpha**self.K
                if share > 0:
                    if k == self.K and start is not None:
                        value = block.sums_of(row, v[where], start)
                    else:
                        value = block.products(row, v[where])
                    score[where] += share * value
                if k < self.K:
                    block.step(self.topk)
            block.close()
        return score

    @staticmethod
    def _blocks(
        u: Ints, v: Ints, linked: NDArray[np.bool_], rows: int
    ) -> Iterator[tuple[Ints, Ints, Ints, Ints | None]]:
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
