"""Loaders of training batches, each seeded: clusters, neighbours, random walks, layer-wise samples."""

from graphsparse.loader.batches import Batches
from graphsparse.loader.make import SAMPLERS, make_loader
from graphsparse.loader.parts import ClusterData

__all__ = ["SAMPLERS", "Batches", "ClusterData", "make_loader"]
