"""Figures of merit and of cost."""

from graphsparse.metrics.classification import accuracy, energy_score, expected_calibration_error, max_softmax_score
from graphsparse.metrics.compare_graphs import GraphComparison, compare_graphs
from graphsparse.metrics.cost import count_macs, edge_sparsity, weight_sparsity
from graphsparse.metrics.link_report import link_report
from graphsparse.metrics.mean_average_distance import mean_average_distance
from graphsparse.metrics.ranking import auroc, average_precision, fpr_at_recall

__all__ = [
    "GraphComparison",
    "accuracy",
    "auroc",
    "average_precision",
    "compare_graphs",
    "count_macs",
    "edge_sparsity",
    "energy_score",
    "expected_calibration_error",
    "fpr_at_recall",
    "link_report",
    "max_softmax_score",
    "mean_average_distance",
    "weight_sparsity",
]
