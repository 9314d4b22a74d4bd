"""Node features computed from the graph alone, for graphs that come without any."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from graphsparse.edges.undirected import UndirectedEdges, undirected_edges
from graphsparse.ops.check import check_count, check_edge_index

#: Rows of the random matrix drawn at a time: temporaries stay small, and the stream does not depend on anything else.
_ROWS = 1 << 16


def structural_features(
    edge_index: Tensor,
    num_nodes: int | None = None,
    *,
    dim: int = 128,
    weights: Sequence[float] = (0.0, 0.0, 1.0, 1.0),
    normalization: float = 0.0,
    s: float = 3.0,
    seed: int = 0,
) -> Tensor:
    r"""Return features of the nodes that say where in the graph they lie, with FastRP; no label is looked at.

    With the transition matrix :math:`P = D^{-1} A` of the undirected graph, the degree normalisation
    :math:`L = \mathrm{diag}(d_1^\beta, \dots, d_N^\beta)` and a very sparse random matrix
    :math:`R \in \{-\sqrt{s}, 0, +\sqrt{s}\}^{N \times \mathrm{dim}}`, whose entries are non-zero with probability
    :math:`1/s`,

    .. math::
        N_1 = P L R, \qquad N_k = P N_{k-1}, \qquad
        X = \mathrm{rows}\Bigl(\sum_{k=1}^{q} \alpha_k\, \mathrm{rows}(N_k)\Bigr),

    where :math:`\mathrm{rows}` divides each row by its Euclidean length. Dot products of rows of :math:`N_k` estimate
    those of the rows of :math:`P^k L`, so nodes with similar neighbourhoods get similar features. The cost is one
    sparse product of the graph with an ``[N, dim]`` matrix per power; memory is three such matrices and the graph.

    The rows of every :math:`N_k` are normalised before they are added, an option of the authors' program, so that
    :math:`\alpha_k` means the same for every degree; without it the first powers, which average over fewer nodes and
    are longer, would drown the others. That also cancels the factor :math:`(2m)^{-\beta}` of the paper's :math:`L`.

    Args:
        edge_index: Edges as ``[2, E]``, int64 or int32, in any order and direction. Directions, self-loops and
            duplicates do not matter.
        num_nodes: Number of nodes ``N``; taken from the largest index when ``None``.
        dim: Width of the features.
        weights: :math:`\alpha_1, \dots, \alpha_q`, one per power of the transition matrix. By default only
            the third and fourth power count: the first two say little about a node of low degree.
        normalization: The exponent :math:`\beta` of the degrees; negative values damp hubs. The paper tunes it;
            0 is our default.
        s: One entry of :math:`R` in ``s`` is non-zero. 3 is Achlioptas' choice and our default; the paper uses the
            square root of the number of nodes, with which few entries reach a node of low degree.
        seed: Seeds :math:`R`, which is drawn on the CPU; equal seeds give equal bits on CPU.

    Returns:
        ``[N, dim]`` float32 on the device of ``edge_index``. Rows have length 1, those of isolated nodes are 0.

    Raises:
        TypeError: If ``edge_index`` is not an integer tensor.
        ValueError: If a shape, an index, ``dim``, ``weights``, ``normalization`` or ``s`` is out of range.

    Example:
        >>> x = structural_features(torch.tensor([[0, 1, 2], [1, 2, 3]]), num_nodes=5, dim=64)
        >>> x.shape, bool(x[4].any())
        (torch.Size([5, 64]), False)

    Source: Chen, Sultan, Tian, Chen and Skiena, "Fast and Accurate Network Embeddings via Very Sparse Random
    Projection", CIKM 2019, arXiv 1908.11512, Section 3.
    """
    if isinstance(num_nodes, tuple):
        raise TypeError("'num_nodes' must be an integer: bipartite graphs are not supported")
    check_edge_index(edge_index, num_nodes)
    dim = check_count(dim, "dim")
    weights = [float(weight) for weight in weights]
    if not any(weights) or not all(map(math.isfinite, weights)):
        raise ValueError(f"'weights' must hold finite numbers, one of them not 0 (got {weights})")
    if not math.isfinite(normalization):
        raise ValueError(f"'normalization' must be a finite exponent (got {normalization!r})")
    if not (math.isfinite(s) and s >= 1):
        raise ValueError(f"'s' must be a finite number of at least 1 (got {s!r})")

    edges = undirected_edges(edge_index, num_nodes)
    degree = edges.degree().clamp_(min=1).to(torch.float32).unsqueeze(1)
    adjacency = _csr(edges)
    del edges
    power = _random_matrix(degree.size(0), dim, s, seed).to(degree.device).mul_(degree**normalization)
    total = torch.zeros_like(power)
    for weight in weights:
        power = (adjacency @ power).div_(degree)
        if weight:
            total.addcmul_(power, weight * _inverse_length(power))
    return total.mul_(_inverse_length(total))


def _random_matrix(num_rows: int, dim: int, s: float, seed: int) -> Tensor:
    """Draw the very sparse random matrix on the CPU, some rows at a time."""
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.empty(num_rows, dim)
    for start in range(0, num_rows, _ROWS):
        block = matrix[start : start + _ROWS]
        uniform = torch.rand(block.shape, generator=generator)
        block.copy_((uniform < 0.5 / s).to(torch.float32)).sub_((uniform >= 1 - 0.5 / s).to(torch.float32))
    return matrix.mul_(math.sqrt(s))


def _inverse_length(x: Tensor) -> Tensor:
    """Return one over the Euclidean length of each row as ``[N, 1]``; 0 for a row of zeros."""
    inverse: Tensor = torch.linalg.vector_norm(x, dim=1, keepdim=True).reciprocal_()
    return inverse.masked_fill_(inverse.isinf(), 0.0)


def _csr(edges: UndirectedEdges) -> Tensor:
    """Return the 0/1 adjacency matrix as a CSR tensor with both directions of every edge."""
    size, device = edges.num_nodes, edges.key.device
    key = torch.empty(2 * edges.num_edges, dtype=torch.int64, device=device)
    key[: edges.num_edges] = edges.key
    for where, u, v in edges.blocks():
        key[edges.num_edges + where.start : edges.num_edges + where.stop] = v * size + u
    if device.type == "cpu":
        key.numpy().sort()  # in place; torch.sort would make an index as well
    else:
        key = key.sort().values
    # MKL and cuSPARSE multiply with 32-bit indices; they hold every graph of less than 2**31 entries.
    index_type = torch.int32 if key.numel() < 2**31 else torch.int64
    row_pointer = torch.zeros(size + 1, dtype=torch.int64, device=device)
    row_pointer[1:] = edges.degree().cumsum(0)
    column = torch.empty(key.numel(), dtype=index_type, device=device)
    for start in range(0, key.numel(), _ROWS * 128):
        block = key[start : start + _ROWS * 128]
        column[start : start + _ROWS * 128] = block % size
    del key
    values = torch.ones(column.numel(), device=device)
    return torch.sparse_csr_tensor(row_pointer.to(index_type), column, values, (size, size), check_invariants=False)
