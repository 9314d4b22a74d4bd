"""Call a model on a graph."""

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from graphsparse.utils.call_model import call_model
from graphsparse.utils.eval_mode import eval_mode


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
