"""Cores: edges that are kept first, under any score, by name; a file per idea."""

from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor

from graphsparse.edges.cores.forest import spanning_forest_mask
from graphsparse.edges.cores.metric import exact_metric_backbone_mask, metric_backbone_mask
from graphsparse.edges.cores.spanner import spanner_mask

#: Takes the edges of a graph, their scores ``[M]``, further scores that decide between equal ones, and ``edge_weight``;
#: returns a bool mask ``[M]``.
EdgeCore: TypeAlias = Callable[..., Tensor]
CORES: dict[str, EdgeCore] = {
    "forest": spanning_forest_mask,
    "spanner": spanner_mask,
    "metric": metric_backbone_mask,
    "metric_exact": exact_metric_backbone_mask,
}
