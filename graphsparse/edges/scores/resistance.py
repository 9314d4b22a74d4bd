r"""Effective resistances: how much an edge carries that no other path does.

With :math:`\mathbf{L} = \mathbf{D} - \mathbf{A}` the weighted Laplacian and :math:`\mathbf{b}_e = \mathbf{1}_u -
\mathbf{1}_v`, the resistance of an edge is :math:`R_e = \mathbf{b}_e^\top \mathbf{L}^+ \mathbf{b}_e` and its leverage
:math:`w_e R_e`: the share of all spanning trees, drawn with the product of their weights, that hold it.
"""

import warnings
from collections.abc import Iterator

import torch
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from graphsparse.edges.entries import Entries, check_edge_weight
from graphsparse.edges.score import edge_score_rule
from graphsparse.edges.undirected import UndirectedEdges
from graphsparse.ops import Adjacency, spmm
from graphsparse.ops.blocks import CACHED, blocks
from graphsparse.ops.check import check_count, check_edge_index, check_number
from graphsparse.ops.pairs import key_pairs
from graphsparse.ops.pattern import Pattern
from graphsparse.ops.sort import index_dtype
from graphsparse.utils.counter_random import GAMMA, check_seed, mix64

#: Most nodes of a graph that is solved exactly: a dense matrix of them is inverted.
EXACT_NODES = 2000
#: Probes that are solved together: a row of them is a cache line.
_WIDTH = 16


@edge_score_rule("resistance")
def resistance(
    edges: UndirectedEdges,
    seed: int | None,
    *,
    edge_weight: Tensor | None = None,
    probes: int = 48,
    exact: bool = False,
) -> Tensor:
    """Leverage of every edge, weight times effective resistance; see :func:`effective_resistance`."""
    if seed is None:
        seed = int(torch.randint(2**62, ()))
    return leverage(edges, edge_weight, probes=probes, seed=seed, exact=exact)


def effective_resistance(
    edge_index: Tensor,
    edge_weight: Tensor | None = None,
    *,
    num_nodes: int | tuple[int, int] | None = None,
    probes: int = 48,
    seed: int = 0,
    exact: bool = False,
    tol: float = 1e-2,
    max_iter: int = 500,
) -> Tensor:
    r"""Return the effective resistance between the ends of every edge, the graph taken as a network of conductors.

    With :math:`\mathbf{L} = \mathbf{D} - \mathbf{A}` the Laplacian of the undirected graph and :math:`\mathbf{L}^+` its
    pseudo-inverse,

    .. math::
        R_{uv} = (\mathbf{1}_u - \mathbf{1}_v)^\top \mathbf{L}^+ (\mathbf{1}_u - \mathbf{1}_v), \qquad
        \frac{1}{w + \frac{(d_u - w) (d_v - w)}{d_u + d_v - 2 w}} \le R_{uv} \le \frac{1}{w}

    where :math:`w` is the weight of the edge and :math:`d` are the sums of the weights at its ends; the sum of
    :math:`w_{uv} R_{uv}` over all edges is the number of nodes less that of components.

    By default it is estimated for all edges at once, from the solutions of ``probes`` linear systems with random signs
    (Johnson and Lindenstrauss), by conjugate gradients in float32. What one step of Jacobi's method says of the same
    signs is known without them, and corrects the estimate, which is then cut to both bounds. The signs are a hash of
    the edge, so the order of the edges changes nothing, but other numbers of the nodes do. On CPU two calls return the
    same bits; other machines differ by what rounding does to an iteration. The error falls with the root of ``probes``;
    where paths are long, as in road networks, the systems take many iterations.

    Args:
        edge_index: Edges as ``[2, E]``, int64 or int32, in any order; a directed graph is taken as its undirected
            counterpart.
        edge_weight: Conductances ``[E]``: positive, or 0 for what is not there. An edge has the mean of its entries;
            without weights all are 1.
        num_nodes: Number of nodes, or ``(num_src, num_dst)`` for a bipartite graph.
        probes: Number of random sign vectors.
        seed: Seed of the signs.
        exact: Invert a dense matrix instead, in float64, for at most 2,000 nodes.
        tol: Where conjugate gradients stop: residual relative to that at the start, in the norm of Jacobi's
            preconditioner.
        max_iter: Most iterations.

    Returns:
        Resistances ``[E]``, aligned with ``edge_index``, float32, or float64 with ``exact``; both directions and all
        duplicates of an edge have the same. Self-loops and entries of weight 0 have 0.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an index, a weight or a number is out of range, or ``exact`` is asked for too large a graph.

    Warns:
        UserWarning: If ``max_iter`` iterations were not enough; it names the residual.

    Example:
        >>> triangle_with_tail = torch.tensor([[0, 0, 1, 2], [1, 2, 2, 3]])
        >>> effective_resistance(triangle_with_tail, exact=True)
        tensor([0.6667, 0.6667, 0.6667, 1.0000], dtype=torch.float64)

    Source: Spielman and Srivastava, *Graph sparsification by effective resistances*, SIAM J. Comput. 40 (2011), for the
    random signs; the correction is ours.
    """
    there = None
    if edge_weight is not None:
        check_edge_index(edge_index, num_nodes)
        num_nodes = check_edge_index(edge_index)[0] if num_nodes is None else num_nodes
        edge_weight = check_edge_weight(edge_weight, edge_index)
        there = edge_weight > 0
        edge_index, edge_weight = edge_index[:, there], edge_weight[there]
    entries = Entries(edge_index, num_nodes)
    weight = None if edge_weight is None else entries.per_edge(edge_weight, "mean")
    values = leverage(entries.edges, weight, probes=probes, seed=seed, exact=exact, tol=tol, max_iter=max_iter)
    if weight is not None:
        values = (values / weight).to(values.dtype)
    found = entries.per_entry(values, loops=0)
    if there is None:
        return found
    out = found.new_zeros(there.numel())
    out[there] = found
    return out


def leverage(
    edges: UndirectedEdges,
    weight: Tensor | None = None,
    *,
    probes: int = 48,
    seed: int = 0,
    exact: bool = False,
    tol: float = 1e-2,
    max_iter: int = 500,
) -> Tensor:
    """Return weight times resistance of every edge, ``[M]``: float64 where exact, else float32."""
    check_count(probes, "probes")
    check_seed(seed)
    check_number(tol, "tol", least=0, most=1, strictly=True)
    check_count(max_iter, "max_iter")
    if exact and edges.num_nodes > EXACT_NODES:
        raise ValueError(
            f"'exact' inverts a dense matrix, for at most {EXACT_NODES} nodes (got {edges.num_nodes}); "
            "leave it out and raise 'probes'"
        )
    if edges.num_edges == 0:
        return torch.zeros(0, dtype=torch.float64 if exact else torch.float32, device=edges.key.device)
    if weight is not None:
        weight = weight.to(torch.float64) / weight.to(torch.float64).mean()  # a common factor changes no leverage
    if exact:
        return _exact_leverage(edges, weight)
    return _estimate(edges, weight, probes, seed, tol, max_iter)


def _exact_leverage(edges: UndirectedEdges, weight: Tensor | None) -> Tensor:
    """Return the leverages from the inverse of the Laplacian plus a constant block for each component."""
    n, device = edges.num_nodes, edges.key.device
    u, v = key_pairs(edges.key.cpu(), n)
    w = torch.ones(u.numel(), dtype=torch.float64) if weight is None else weight.cpu()
    laplacian = torch.zeros(n, n, dtype=torch.float64)
    laplacian[u, v] = laplacian[v, u] = -w
    laplacian.diagonal().copy_(-laplacian.sum(1))
    label = connected_components(csr_matrix((w, (u, v)), shape=(n, n)), directed=False)[1]
    label = torch.from_numpy(label)
    # On what sums to 0 in each component, as the ends of an edge do, the inverse is then that of the Laplacian.
    laplacian += (label[:, None] == label) * laplacian.diagonal().mean()
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(laplacian))
    return (w * (inverse[u, u] + inverse[v, v] - 2 * inverse[u, v])).to(device)


def _estimate(
    edges: UndirectedEdges, weight: Tensor | None, probes: int, seed: int, tol: float, max_iter: int
) -> Tensor:
    r"""Estimate the leverages: what one step of Jacobi's method knows of them, and by random signs what it does not.

    For signs :math:`q` of the edges and :math:`\mathbf{g} = \sum_e q_e \sqrt{w_e} \mathbf{b}_e`, let
    :math:`x_e = \sqrt{w_e} \mathbf{b}_e^\top \mathbf{L}^+ \mathbf{g}` and
    :math:`y_e = \sqrt{w_e} \mathbf{b}_e^\top \mathbf{D}^{-1} \mathbf{g}`. The leverage is the mean of :math:`x_e^2`,
    and :math:`2 x_e y_e - y_e^2` has the mean :math:`w_e/d_u + w_e/d_v - 2 w_e^2/(d_u d_v)`. Their difference,
    :math:`(x_e - y_e)^2`, is far smaller than the leverage where the graph mixes well, and so is what signs err in it.
    """
    degree = _strength(edges, weight)
    scale = degree.rsqrt().masked_fill_(degree == 0, 0).to(torch.float32)
    adj = _normalised(edges, weight, scale)
    rest = torch.zeros(edges.num_edges, device=edges.key.device)
    worst = 0.0
    for first in range(0, probes, _WIDTH):
        right = _right_sides(edges, weight, seed, first, min(_WIDTH, probes - first)).mul_(scale[:, None])
        solution, residual = _solve(adj, right, tol, max_iter)
        worst = max(worst, residual)
        solution.sub_(right).mul_(scale[:, None])
        del right
        for where, u, v in _cached_blocks(edges):
            rest[where] += solution.index_select(0, u).sub_(solution.index_select(0, v)).square_().sum(1)
        del solution
    if worst > tol:
        warnings.warn(
            f"effective resistances are inexact: after {max_iter} iterations the largest relative residual is "
            f"{worst:.2g}, above 'tol' = {tol:g}; raise 'max_iter' or 'tol'",
            stacklevel=4,  # where the public function was called
        )
    for where, u, v in edges.blocks():
        left, right, w = degree[u], degree[v], 1.0 if weight is None else weight[where]
        value = w / left + w / right - 2 * w * w / (left * right) + w * rest[where].to(torch.float64) / probes
        # With all other edges of both ends joined in one node it would be less, and without them it would be 1.
        around = (left - w) * (right - w) / (left + right - 2 * w)
        rest[where] = value.maximum(w / (w + around.nan_to_num_(0))).clamp_(max=1).to(torch.float32)
    return rest


def _strength(edges: UndirectedEdges, weight: Tensor | None) -> Tensor:
    """Return the sum of the weights at every node, float64 ``[N]``."""
    if weight is None:
        return edges.degree().to(torch.float64)
    strength = torch.zeros(edges.num_nodes, dtype=torch.float64, device=edges.key.device)
    for where, u, v in edges.blocks():
        strength.index_add_(0, u, weight[where]).index_add_(0, v, weight[where])
    return strength


def _normalised(edges: UndirectedEdges, weight: Tensor | None, scale: Tensor) -> Adjacency:
    """Return the matrix with entries ``scale[u] * w * scale[v]``: a Laplacian, after Jacobi's, is 1 minus that."""
    n = edges.num_nodes
    pointer, col = (part.to(index_dtype(2 * edges.num_edges, n)) for part in edges.csr())
    pattern = Pattern(pointer, col, n, symmetric=True)
    value = torch.empty(col.numel(), device=col.device)
    # Above the diagonal the entries are the edges in canonical order, below it in that of their higher ends.
    order = None if weight is None else edges.by_higher_end()[2]
    above = below = 0
    for where, row, column in pattern.blocks(CACHED):
        value[where] = scale[row] * scale[column]
        if weight is not None and order is not None:
            upper = row < column
            end = above + int(upper.count_nonzero())
            rest = slice(below, below + row.numel() - (end - above))
            value[where][upper] *= weight[above:end].to(torch.float32)
            value[where][~upper] *= weight[order[rest].long()].to(torch.float32)
            above, below = end, rest.stop
    return Adjacency(pattern, value, symmetric=True)


def _cached_blocks(edges: UndirectedEdges) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Yield ``(slice, u, v)`` for blocks of edges, of which wide rows stay in the cache."""
    for where in blocks(edges.num_edges, CACHED // 2):
        u, v = key_pairs(edges.key[where], edges.num_nodes)
        yield where, u, v


def _right_sides(edges: UndirectedEdges, weight: Tensor | None, seed: int, first: int, width: int) -> Tensor:
    """Return the sums of the signed roots of the weights at every node, ``[N, width]``: + at the smaller end."""
    device = edges.key.device
    # The signs of eight probes by a byte of a hash of the edge.
    table = (1 - 2 * (torch.arange(256)[:, None] >> torch.arange(8) & 1)).to(device, torch.float32)
    stream = ((seed + 1) * GAMMA + first) % 2**63
    total = torch.zeros(edges.num_nodes, width, device=device)
    for where, u, v in _cached_blocks(edges):
        byte = mix64(edges.key[where] + stream).view(torch.uint8).view(-1, 8)[:, : _WIDTH // 8]
        sign = table.index_select(0, byte.reshape(-1).int()).view(-1, _WIDTH)[:, :width]
        if weight is not None:
            sign.mul_(weight[where, None].sqrt().to(torch.float32))
        total.index_add_(0, u, sign).index_add_(0, v, sign.neg_())  # three times as fast as with a factor of -1
    return total


def _solve(adj: Adjacency, right: Tensor, tol: float, max_iter: int) -> tuple[Tensor, float]:
    """Solve ``x - adj x = right`` by conjugate gradients, and return the largest relative residual of a column."""
    x, residual, step = torch.zeros_like(right), right.clone(), right.clone()
    square = right.square().sum(0)
    begin = square.clone().clamp_(min=torch.finfo(square.dtype).tiny)
    for _ in range(max_iter):
        active = square > tol**2 * begin
        if not bool(active.any()):
            break
        image = spmm(adj, step).sub_(step).neg_()
        # A column that is done stands still: its next step would be 0 / 0.
        length = (square / (step * image).sum(0)).masked_fill_(~active, 0)
        x.addcmul_(step, length)
        residual.addcmul_(image, length, value=-1)
        new = residual.square().sum(0)
        step.mul_((new / square).masked_fill_(~active, 0)).add_(residual)
        square = new
    return x, float((square / begin).max().sqrt())
