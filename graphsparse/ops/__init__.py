"""Functions on plain tensors: checks, exact selection, dropout, and products with sparse matrices."""

from graphsparse.ops.adjacency import Adjacency
from graphsparse.ops.check import check_edge_index, check_sparsity
from graphsparse.ops.dense import linear
from graphsparse.ops.dropout import dropout
from graphsparse.ops.select import num_removed, smallest_k_mask
from graphsparse.ops.spmm import spmm

__all__ = [
    "Adjacency",
    "check_edge_index",
    "check_sparsity",
    "dropout",
    "linear",
    "num_removed",
    "smallest_k_mask",
    "spmm",
]
