"""Call a model on a graph."""

from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from graphsparse.utils.eval_mode import eval_mode


def call_model(model: nn.Module, data: Data) -> Any:
    """Call ``model(x, edge_index)``, with ``adj_t`` where there is no ``edge_index``, and with edge weights if any."""
    edges = data.edge_index if "edge_index" in data else data.adj_t
    if data.get("edge_weight") is None:
        return model(data.x, edges)
    if getattr(model, "supports_edge_weight", True) is False:
        raise ValueError(f"'data.edge_weight' is given, but {type(model).__name__} does not take edge weights")
    return model(data.x, edges, data.edge_weight)


def predict(model: nn.Module, data: Data) -> Tensor:
    """Return the logits of the whole graph, in evaluation mode and without gradients.

    Args:
        model: Called as ``model(x, edge_index)``; its mode, and that of each of its parts, is the same
            afterwards.
        data: The graph.

    Returns:
        Logits ``[N, C]``.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.testing import random_graph
        >>> predict(GCN(8, 16, 2, 3), random_graph()).shape
        torch.Size([60, 3])
    """
    with eval_mode(model), torch.no_grad():
        logits: Tensor = call_model(model, data)
    return logits
