"""The scores that come with the package, a file per family; importing it fills the registry of :func:`edge_score`."""

from graphsparse.edges.scores import (  # noqa: F401
    algebraic_distance,
    degree,
    forest_fire,
    neighborhood,
    random,
    rank_degree,
    resistance,
    simmelian,
    weight,
)
