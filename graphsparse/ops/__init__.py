"""Functions on plain tensors: exact selection, dropout, and products with dense and sparse matrices."""

from graphsparse.ops.adjacency import Adjacency
from graphsparse.ops.dense import linear
from graphsparse.ops.dropout import dropout
from graphsparse.ops.select import num_removed, smallest_k_mask
from graphsparse.ops.spmm import spmm

__all__ = [
    "Adjacency",
    "dropout",
    "linear",
    "num_removed",
    "smallest_k_mask",
    "spmm",
]
