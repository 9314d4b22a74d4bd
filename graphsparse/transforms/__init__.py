"""PyG transforms."""

from graphsparse.transforms.edge_resampler import EdgeResampler
from graphsparse.transforms.leave_out_classes import LeaveOutClasses
from graphsparse.transforms.perturb import PerturbEdges, PerturbFeatures
from graphsparse.transforms.reorder_nodes import ReorderNodes
from graphsparse.transforms.sparsify_edges import SparsifyEdges

__all__ = [
    "EdgeResampler",
    "LeaveOutClasses",
    "PerturbEdges",
    "PerturbFeatures",
    "ReorderNodes",
    "SparsifyEdges",
]
