"""Loaders of training batches, each seeded: clusters, neighbours, random walks, layer-wise samples."""

from graphsparse.loader.batches import Batches, FullBatch
from graphsparse.loader.layerwise import FastGCNBatches, LadiesBatches
from graphsparse.loader.make import SAMPLERS, make_loader
from graphsparse.loader.neighbor import NeighborBatches
from graphsparse.loader.parts import ClusterBatches, ClusterData, RandomNodeBatches
from graphsparse.loader.saint import SaintWalkBatches
from graphsparse.loader.weighted_sums import check_sums_weighted_messages

__all__ = [
    "SAMPLERS",
    "Batches",
    "ClusterBatches",
    "ClusterData",
    "FastGCNBatches",
    "FullBatch",
    "LadiesBatches",
    "NeighborBatches",
    "RandomNodeBatches",
    "SaintWalkBatches",
    "check_sums_weighted_messages",
    "make_loader",
]
