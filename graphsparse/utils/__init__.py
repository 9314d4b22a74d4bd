"""Functions on graphs."""

from graphsparse.utils.edge_score import edge_score, teddy_score
from graphsparse.utils.sparsify_edge import sparsify_edge

__all__ = ["edge_score", "sparsify_edge", "teddy_score"]
