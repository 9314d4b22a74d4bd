"""Averages of the vectors of neighbouring pairs, aligned at the node they share."""

import torch
from torch import Tensor

from graphsparse.ops.adjacency import Adjacency
from graphsparse.ops.check import check_share
from graphsparse.ops.pairs import PairTable
from graphsparse.ops.spmm import spmm
from graphsparse.transfer.data.queries import check_queries

#: Numbers gathered at a time.
_BLOCK = 1 << 20


class EmbPropagation:
    r"""Scores pairs by their own vectors and those of the anchors at their ends, in one step.

    The vector of a pair is :math:`[\mathbf{h}_u \Vert \mathbf{h}_v]`. An anchor that shares a node with the query is
    turned so that this node is on the same side. With the anchors at a node counted in :math:`\mathbf{c}`, and
    :math:`\mathbf{n}_u = \sum_{\{u, w\} \in C} \mathbf{h}_w`, the mean over both ends is

    .. math::
        \mathbf{l}_{uv} = \frac{c_u \mathbf{h}_u + \mathbf{n}_v}{c_u + c_v}, \quad
        \mathbf{r}_{uv} = \frac{\mathbf{n}_u + c_v \mathbf{h}_v}{c_u + c_v}, \qquad
        s_{uv} = \big( (1 - \lambda) \mathbf{h}_u + \lambda \mathbf{l}_{uv} \big) \cdot
                 \big( (1 - \lambda) \mathbf{h}_v + \lambda \mathbf{r}_{uv} \big) .

    The score is the same in both directions. Without anchors at its ends a pair has the score
    :math:`\mathbf{h}_u \cdot \mathbf{h}_v`. A query that is an anchor is left out of its own mean.

    Args:
        lam: :math:`\lambda` in [0, 1].

    Raises:
        TypeError, ValueError: If ``lam`` is no number in [0, 1].

    Example:
        >>> h = torch.eye(3)
        >>> emb = EmbPropagation(lam=0.5).fit(torch.tensor([[0, 1], [1, 2]]), h)
        >>> emb.score(torch.tensor([[0, 2], [2, 0]]))
        tensor([0.0625, 0.0625])

    Source: the variant ``emb`` in the released code of Zheng et al., 2023, arXiv 2302.14189, which keeps the ends of a
    pair in the order of its storage, and clips the vectors.
    """

    def __init__(self, lam: float = 0.002) -> None:
        self.lam = check_share(lam, "lam")
        self._table: PairTable | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}(lam={self.lam!r})"

    @torch.no_grad()
    def fit(self, anchors: Tensor, h: Tensor) -> "EmbPropagation":
        """Take in the anchors and the vectors of the nodes.

        Args:
            anchors: Undirected pairs ``[2, C]``, each once, without self-loops.
            h: Vectors ``[N, d]``.

        Returns:
            The object itself.

        Raises:
            TypeError: If a tensor is not of the type described.
            ValueError: If a shape or an index is out of range, or a pair is a self-loop or comes twice.
        """
        if not isinstance(h, Tensor) or not h.is_floating_point():
            raise TypeError(f"'h' must be a floating point tensor (got {getattr(h, 'dtype', type(h).__name__)})")
        if h.dim() != 2:
            raise ValueError(f"'h' must be [N, d] (got shape {list(h.shape)})")
        self._table = PairTable(anchors, h.size(0), "anchors")
        self._h = h.detach()
        half = torch.stack([self._table.low, self._table.high])
        adjacency = Adjacency.from_edge_index(torch.cat([half, half.flip(0)], 1), num_nodes=h.size(0), symmetric=True)
        self._count = adjacency.row_sum(h.dtype)
        self._sum = spmm(adjacency, self._h)
        return self

    @torch.no_grad()
    def score(self, queries: Tensor) -> Tensor:
        """Return the scores of some pairs.

        Args:
            queries: Undirected pairs ``[2, Q]``; no self-loops.

        Returns:
            Scores ``[Q]`` of the type of the vectors, higher = more likely a link.

        Raises:
            RuntimeError: If there are no anchors yet.
            TypeError: If ``queries`` is not an integer tensor.
            ValueError: If its shape or an index is out of range, or a pair is a self-loop.
        """
        if self._table is None:
            raise RuntimeError("'fit' must be called first")
        queries = check_queries(queries, self._h.size(0), "queries")
        score = self._h.new_empty(queries.size(1))
        step = max(1, _BLOCK // max(self._h.size(1), 1))
        for begin in range(0, score.numel(), step):
            pairs = queries[:, begin : begin + step]
            own = (self._table.find(pairs) >= 0).to(self._h.dtype)[:, None]
            left, right = self._h[pairs[0]], self._h[pairs[1]]
            # The query itself is among the anchors of both its ends, and would count twice.
            count = [self._count[end][:, None] - own for end in pairs]
            total = [self._sum[pairs[0]] - own * right, self._sum[pairs[1]] - own * left]
            num = count[0] + count[1]
            lam = (num > 0).to(self._h.dtype) * self.lam
            num = num.clamp(min=1)
            first = (1 - lam) * left + lam * (count[0] * left + total[1]) / num
            second = (1 - lam) * right + lam * (total[0] + count[1] * right) / num
            score[begin : begin + step] = (first * second).sum(1)
        return score
