"""Functions on plain tensors: checks and exact selection."""

from graphsparse.ops.check import check_edge_index, check_sparsity
from graphsparse.ops.select import num_removed, smallest_k_mask

__all__ = ["check_edge_index", "check_sparsity", "num_removed", "smallest_k_mask"]
