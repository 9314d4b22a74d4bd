"""Figures of merit and of cost."""

from graphsparse.metrics.accuracy import accuracy
from graphsparse.metrics.calibration import expected_calibration_error
from graphsparse.metrics.cold_bins import COLD_BINS, cold_bins
from graphsparse.metrics.hits_at_k import hits_at_k
from graphsparse.metrics.link_report import link_report
from graphsparse.metrics.macs import count_macs
from graphsparse.metrics.mean_average_distance import mean_average_distance
from graphsparse.metrics.mrr import mrr
from graphsparse.metrics.out_of_distribution import energy_score, max_softmax_score
from graphsparse.metrics.ranked_links import RankedLinks
from graphsparse.metrics.ranking import auroc, average_precision, fpr_at_recall
from graphsparse.metrics.recall_at_ratio import recall_at_ratio
from graphsparse.metrics.sparsity import edge_sparsity, weight_sparsity

__all__ = [
    "COLD_BINS",
    "RankedLinks",
    "accuracy",
    "auroc",
    "average_precision",
    "cold_bins",
    "count_macs",
    "edge_sparsity",
    "energy_score",
    "expected_calibration_error",
    "fpr_at_recall",
    "hits_at_k",
    "link_report",
    "max_softmax_score",
    "mean_average_distance",
    "mrr",
    "recall_at_ratio",
    "weight_sparsity",
]
