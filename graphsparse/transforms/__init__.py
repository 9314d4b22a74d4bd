"""PyG transforms."""

from graphsparse.transforms.reorder_nodes import ReorderNodes
from graphsparse.transforms.sparsify_edges import SparsifyEdges

__all__ = ["ReorderNodes", "SparsifyEdges"]
