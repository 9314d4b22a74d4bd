"""Algebraic distance: how far apart the ends of an edge stay when random values are averaged along the edges."""

import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from graphsparse.edges.score import edge_score_rule
from graphsparse.edges.undirected import UndirectedEdges
from graphsparse.ops import Adjacency, spmm
from graphsparse.ops.check import check_count
from graphsparse.ops.pattern import Pattern
from graphsparse.ops.sort import index_dtype
from graphsparse.utils.counter_random import CounterRandom

#: Steps between two scalings. A step divides the differences inside a component by four or less (two nodes aside).
_SCALE_EVERY = 5
#: Last steps, in float64: in float32 many distances would be equal.
_EXACT = 3


@edge_score_rule("algebraic_distance")
def algebraic_distance(edges: UndirectedEdges, seed: int | None, *, vectors: int = 10, steps: int = 30) -> Tensor:
    r"""One minus the largest difference, over some random vectors, of the values at both ends after some lazy steps.

    A step is :math:`\mathbf{x} \leftarrow (\mathbf{x} + \mathbf{D}^{-1} \mathbf{A} \mathbf{x}) / 2`, and every vector
    is scaled to :math:`[0, 1]` within each component. An edge that is a whole component has distance 0. The last
    digits depend on the machine, as do those of every sum of floating point numbers.

    Source: Chen and Safro, *Algebraic distance on graphs*, SIAM J. Sci. Comput. 33 (2011), Section 2.
    """
    vectors, steps = check_count(vectors, "vectors"), check_count(steps, "steps")
    seed = int(torch.randint(2**62, ())) if seed is None else seed
    degree = edges.degree()
    adjacency = _adjacency(edges)
    part = _components(adjacency)
    x = CounterRandom(seed, "algebraic_distance").uniform(edges.num_nodes * vectors, device=degree.device)
    x = x.view(edges.num_nodes, vectors)
    for left in range(steps, 0, -1):
        # Scaling does not change the result, and keeps the digits of what shrinks.
        if left % _SCALE_EVERY == 0:
            x = _scale(x, part)
        if left <= _EXACT:
            x = x.to(torch.float64)
        x = x.lerp_(spmm(adjacency, x, "mean"), 0.5)
    columns = _scale(x, part).t().contiguous()
    score = torch.empty(edges.num_edges, dtype=torch.float64, device=degree.device)
    for where, u, v in edges.blocks():
        distance = torch.zeros(u.numel(), dtype=torch.float64, device=degree.device)
        for value in columns:
            torch.maximum(distance, (value[u] - value[v]).abs_(), out=distance)
        distance.masked_fill_((degree[u] == 1) & (degree[v] == 1), 0)
        torch.sub(1, distance, out=score[where])
    return score


def _adjacency(edges: UndirectedEdges) -> Adjacency:
    """Return both directions of the edges as a matrix of ones."""
    pointer, neighbour = edges.csr()
    dtype = index_dtype(neighbour.numel(), edges.num_nodes)
    return Adjacency(Pattern(pointer.to(dtype), neighbour.to(dtype), edges.num_nodes, None, True), None, True)


def _scale(x: Tensor, part: Tensor) -> Tensor:
    """Bring each column to [0, 1] within each component; one without differences becomes 0."""
    index = part.unsqueeze(1).expand_as(x)
    low = torch.full_like(x, torch.inf).scatter_reduce_(0, index, x, "amin")
    span = torch.full_like(x, -torch.inf).scatter_reduce_(0, index, x, "amax").sub_(low)
    span.masked_fill_(span == 0, 1)
    return (x - low.index_select(0, part)).div_(span.index_select(0, part))


def _components(adjacency: Adjacency) -> Tensor:
    """Return a number below ``N`` for the component of each node, int64 ``[N]``."""
    n = adjacency.num_dst
    if adjacency.device.type == "cpu":
        ones = torch.ones(1, dtype=torch.int8).expand(adjacency.num_edges)
        matrix = csr_array((ones.numpy(), adjacency.col.numpy(), adjacency.rowptr.numpy()), shape=(n, n))
        # Of a symmetric matrix the strong components are all there are, and need no transpose.
        return torch.from_numpy(connected_components(matrix, connection="strong")[1]).long()
    return _linked(adjacency)


def _linked(adjacency: Adjacency) -> Tensor:
    """Return the smallest node of the component of each node: neighbours share their label, and labels theirs."""
    label = torch.arange(adjacency.num_dst, device=adjacency.device)
    row, col = adjacency.pattern.row().long(), adjacency.col.long()
    while True:
        lower = label.scatter_reduce(0, label[row], label[col], "amin")
        lower = lower[lower]
        if torch.equal(lower, label):
            return label
        label = lower
