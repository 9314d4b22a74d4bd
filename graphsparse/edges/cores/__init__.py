"""Cores: the edges that are kept first, before the best of the rest, a file per idea."""

from collections.abc import Callable

from torch import Tensor

from graphsparse.edges.cores.forest import spanning_forest_mask
from graphsparse.edges.cores.spanner import spanner_mask

#: Functions ``(edges, score [M], *, edge_weight=None)`` that mark the edges kept first, bool ``[M]``.
CORES: dict[str, Callable[..., Tensor]] = {
    "forest": spanning_forest_mask,
    "spanner": spanner_mask,
}
