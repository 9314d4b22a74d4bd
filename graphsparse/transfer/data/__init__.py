"""Pairs of graphs, splits of their links, and the search for leaks."""
