"""Other ways to predict the links of a target, under the same split."""

from graphsparse.transfer.baselines.common_neighbors import CommonNeighbors
from graphsparse.transfer.baselines.cosine import FeatureCosine
from graphsparse.transfer.baselines.gnn import GraphLinkPredictor
from graphsparse.transfer.baselines.options import BaselineOptions
from graphsparse.transfer.baselines.pagerank import PersonalizedPageRank
from graphsparse.transfer.baselines.pretraining import PretrainedLinkPredictor
from graphsparse.transfer.baselines.registry import BASELINES

__all__ = [
    "BASELINES",
    "BaselineOptions",
    "CommonNeighbors",
    "FeatureCosine",
    "GraphLinkPredictor",
    "PersonalizedPageRank",
    "PretrainedLinkPredictor",
]
