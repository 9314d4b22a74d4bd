"""PyG transforms."""

from graphsparse.transforms.sparsify_edges import SparsifyEdges

__all__ = ["SparsifyEdges"]
