"""Graphs in: real data sets by name, Open Graph Benchmark sets, and a random citation graph of any size."""

from graphsparse.datasets.load import load
from graphsparse.datasets.ogb import load_ogb
from graphsparse.datasets.synthetic import synthetic_citation

__all__ = ["load", "load_ogb", "synthetic_citation"]
