"""Which edges of a graph are needed: score, select, apply. The undirected edge is the unit."""

import graphsparse.edges.scores  # noqa: F401  (the scores register themselves)
from graphsparse.edges.graph_edges import attach_pairs
from graphsparse.edges.sample import SampledEdges, sample_edge
from graphsparse.edges.score import edge_score, edge_score_rule
from graphsparse.edges.scores.resistance import effective_resistance
from graphsparse.edges.sparsifier import SPARSIFIERS, Sparsifier, sparsifier
from graphsparse.edges.sparsify import spanning_forest, sparsify_edge
from graphsparse.edges.undirected import UndirectedEdges

__all__ = [
    "SPARSIFIERS",
    "SampledEdges",
    "Sparsifier",
    "UndirectedEdges",
    "attach_pairs",
    "edge_score",
    "edge_score_rule",
    "effective_resistance",
    "sample_edge",
    "spanning_forest",
    "sparsifier",
    "sparsify_edge",
]
