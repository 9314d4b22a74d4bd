"""Deep Graph Infomax: tell the nodes of a graph from those of a shuffled one by a summary of it."""

import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn import DeepGraphInfomax

from graphsparse.transfer.data.node_features import take_rows


class InfomaxObjective(nn.Module):
    """PyG's ``DeepGraphInfomax`` on one graph: sigmoid of the mean as summary, shuffled rows of features as corruption.

    Args:
        encoder: Called as ``encoder(x, edge_index)``, with a CSR matrix of features if those of the graph are one.
        width: Width of the features.
        channels: Width of the vectors.
        graph: What is learned, with ``x`` and ``edge_index``.
        seed: Not used: rows are shuffled by the global generator, which a training seeds.

    Example:
        >>> from torch_geometric.nn import GIN
        >>> from graphsparse.testing import random_graph
        >>> bool(InfomaxObjective(GIN(8, 16, 2), 8, 16, random_graph(), 0)() > 0)
        True

    Source: Velickovic et al., *Deep Graph Infomax*, ICLR 2019.
    """

    def __init__(self, encoder: nn.Module, width: int, channels: int, graph: Data, seed: int) -> None:
        super().__init__()
        self.infomax = DeepGraphInfomax(channels, encoder, _summary, _shuffled)
        self._graph = [graph]  # in a list, so that it is not taken for a part of the model

    @property
    def encoder(self) -> nn.Module:
        """The encoder."""
        module: nn.Module = self.infomax.encoder
        return module

    def forward(self) -> Tensor:
        """Return the loss."""
        graph = self._graph[0]
        loss: Tensor = self.infomax.loss(*self.infomax(graph.x, graph.edge_index))
        return loss


def _summary(z: Tensor, *_: Tensor) -> Tensor:
    return z.mean(0).sigmoid()


def _shuffled(x: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor]:
    return take_rows(x, torch.randperm(x.size(0))), edge_index
