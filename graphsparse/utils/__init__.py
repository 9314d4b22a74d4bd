"""Functions on graphs."""

from graphsparse.utils.fingerprint import graph_fingerprint
from graphsparse.utils.partition import partition_graph
from graphsparse.utils.structural_features import structural_features

__all__ = [
    "graph_fingerprint",
    "partition_graph",
    "structural_features",
]
