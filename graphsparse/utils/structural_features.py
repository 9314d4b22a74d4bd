"""Node features computed from the graph alone, for graphs that come without any."""

import math

import torch
from torch import Tensor

from graphsparse.edges.undirected import UndirectedEdges, undirected_edges
from graphsparse.ops.blocks import CACHED, blocks
from graphsparse.ops.check import check_count, check_edge_index
from graphsparse.ops.csr import csr_tensor
from graphsparse.ops.sort import index_dtype

#: Powers of the transition matrix that count.
_POWERS = (3, 4)
#: One entry of the random matrix in so many is not 0: Achlioptas' choice.
_ONE_IN = 3.0


def structural_features(edge_index: Tensor, num_nodes: int | None = None, *, dim: int = 128, seed: int = 0) -> Tensor:
    r"""Return features of the nodes that say where in the graph they lie, with FastRP; no label is looked at.

    With the transition matrix :math:`P = D^{-1} A` of the undirected graph and a very sparse random matrix
    :math:`R \in \{-\sqrt 3, 0, +\sqrt 3\}^{N \times \mathrm{dim}}`, whose entries are non-zero with probability 1/3,

    .. math::
        N_1 = P R, \qquad N_k = P N_{k-1}, \qquad X = \mathrm{rows}(\mathrm{rows}(N_3) + \mathrm{rows}(N_4)),

    where :math:`\mathrm{rows}` divides each row by its Euclidean length. Dot products of rows of :math:`N_k` estimate
    those of the rows of :math:`P^k`, so nodes with similar neighbourhoods get similar features. The cost is one sparse
    product of the graph with an ``[N, dim]`` matrix per power; memory is three such matrices and the graph.

    The first two powers say little about a node of low degree, and are left out. The paper normalises by degrees, tunes
    the weights of the powers, and takes one entry in :math:`\sqrt N` of :math:`R`, with which few entries reach a node
    of low degree. That rows of every :math:`N_k` are normalised before they are added is an option of the authors'
    program.

    Source: Chen, Sultan, Tian, Chen and Skiena, "Fast and Accurate Network Embeddings via Very Sparse Random
    Projection", CIKM 2019, arXiv 1908.11512, Section 3.
    """
    if isinstance(num_nodes, tuple):
        raise TypeError("'num_nodes' must be an integer: bipartite graphs are not supported")
    check_edge_index(edge_index, num_nodes)
    dim = check_count(dim, "dim")

    edges = undirected_edges(edge_index, num_nodes)
    degree = edges.degree().clamp_(min=1).to(torch.float32).unsqueeze(1)
    adjacency = _matrix(edges)
    del edges
    power = _random_matrix(degree.size(0), dim, seed).to(degree.device)
    total = torch.zeros_like(power)
    for k in range(1, 5):
        power = (adjacency @ power).div_(degree)
        if k in _POWERS:
            total.addcmul_(power, _inverse_length(power))
    return total.mul_(_inverse_length(total))


def _random_matrix(num_rows: int, dim: int, seed: int) -> Tensor:
    """Draw the very sparse random matrix on the CPU, some rows at a time."""
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.empty(num_rows, dim)
    for rows in blocks(num_rows, CACHED):
        block = matrix[rows]
        uniform = torch.rand(block.shape, generator=generator)
        block.copy_((uniform < 0.5 / _ONE_IN).to(torch.float32)).sub_((uniform >= 1 - 0.5 / _ONE_IN).to(torch.float32))
    return matrix.mul_(math.sqrt(_ONE_IN))


def _inverse_length(x: Tensor) -> Tensor:
    """Return one over the Euclidean length of each row as ``[N, 1]``; 0 for a row of zeros."""
    inverse: Tensor = torch.linalg.vector_norm(x, dim=1, keepdim=True).reciprocal_()
    return inverse.masked_fill_(inverse.isinf(), 0.0)


def _matrix(edges: UndirectedEdges) -> Tensor:
    """Return the 0/1 adjacency matrix as a CSR tensor with both directions of every edge."""
    pointer, neighbour = edges.csr()
    # MKL and cuSPARSE multiply with 32-bit indices; they hold every graph of less than 2**31 entries.
    dtype = index_dtype(neighbour.numel())
    pointer, neighbour = pointer.to(dtype), neighbour.to(dtype)
    size = (edges.num_nodes, edges.num_nodes)
    ones = torch.ones(neighbour.numel(), device=neighbour.device)
    return csr_tensor(pointer, neighbour, ones, size)
