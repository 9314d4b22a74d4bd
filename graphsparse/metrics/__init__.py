"""Figures of merit and of cost."""

from graphsparse.metrics.accuracy import accuracy
from graphsparse.metrics.calibration import expected_calibration_error
from graphsparse.metrics.macs import count_macs
from graphsparse.metrics.mean_average_distance import mean_average_distance
from graphsparse.metrics.out_of_distribution import energy_score, max_softmax_score
from graphsparse.metrics.ranking import auroc, average_precision, fpr_at_recall
from graphsparse.metrics.sparsity import edge_sparsity, weight_sparsity

__all__ = [
    "accuracy",
    "auroc",
    "average_precision",
    "count_macs",
    "edge_sparsity",
    "energy_score",
    "expected_calibration_error",
    "fpr_at_recall",
    "max_softmax_score",
    "mean_average_distance",
    "weight_sparsity",
]
