"""Functions on plain tensors: exact selection, dropout, products with dense and sparse matrices, what is constant."""

from graphsparse.ops.adjacency import Adjacency
from graphsparse.ops.dense import linear
from graphsparse.ops.dropout import dropout
from graphsparse.ops.remember import constant
from graphsparse.ops.select import num_removed, smallest_k_mask
from graphsparse.ops.spmm import spmm

__all__ = [
    "Adjacency",
    "constant",
    "dropout",
    "linear",
    "num_removed",
    "smallest_k_mask",
    "spmm",
]
