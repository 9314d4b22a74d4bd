"""How every part of the package calls a model on a graph."""

from typing import Any

from torch import nn
from torch_geometric.data import Data


def call_model(model: nn.Module, data: Data) -> Any:
    """Call ``model(x, edge_index)``, with ``adj_t`` where there is no ``edge_index``, and with edge weights if any."""
    edges = data.edge_index if "edge_index" in data else data.adj_t
    if data.get("edge_weight") is None:
        return model(data.x, edges)
    if getattr(model, "supports_edge_weight", True) is False:
        raise ValueError(f"'data.edge_weight' is given, but {type(model).__name__} does not take edge weights")
    return model(data.x, edges, data.edge_weight)
