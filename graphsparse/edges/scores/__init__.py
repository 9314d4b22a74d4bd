"""The scores that come with the package, a file per family; importing it fills the registry of :func:`edge_score`."""

from graphsparse.edges.scores import degree, neighborhood, random, resistance, simmelian, weight  # noqa: F401
