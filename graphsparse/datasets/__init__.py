"""Graphs in: real data sets by name, Open Graph Benchmark sets, pairs of graphs, and a random graph of any size."""

from graphsparse.datasets.intersecting_graphs import IntersectingGraphs
from graphsparse.datasets.load import load
from graphsparse.datasets.ogb import load_ogb
from graphsparse.datasets.synthetic import synthetic_citation

__all__ = ["IntersectingGraphs", "load", "load_ogb", "synthetic_citation"]
