"""Functions on graphs."""

from graphsparse.utils.edge_score import edge_score, teddy_score
from graphsparse.utils.fingerprint import graph_fingerprint
from graphsparse.utils.partition import partition_graph
from graphsparse.utils.sparsify_edge import sparsify_edge
from graphsparse.utils.structural_features import structural_features

__all__ = [
    "edge_score",
    "graph_fingerprint",
    "partition_graph",
    "sparsify_edge",
    "structural_features",
    "teddy_score",
]
