"""Figures of merit and of cost."""

from graphsparse.metrics.accuracy import accuracy
from graphsparse.metrics.macs import count_macs
from graphsparse.metrics.sparsity import edge_sparsity, weight_sparsity

__all__ = ["accuracy", "count_macs", "edge_sparsity", "weight_sparsity"]
