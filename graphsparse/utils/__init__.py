"""Functions on graphs."""

from graphsparse.utils.fingerprint import graph_fingerprint
from graphsparse.utils.layerwise_inference import layerwise_inference
from graphsparse.utils.partition import partition_graph
from graphsparse.utils.structural_features import structural_features

__all__ = [
    "graph_fingerprint",
    "layerwise_inference",
    "partition_graph",
    "structural_features",
]
