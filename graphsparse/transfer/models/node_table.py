"""A trained vector per node, for graphs whose nodes have no features."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from graphsparse.training import build_model
from graphsparse.transfer.data.queries import check_dense_x

if TYPE_CHECKING:
    from graphsparse.transfer.data.pair import SharedNodePair


class NodeTable(nn.Module):
    """Looks up the vector of each node.

    Args:
        num_nodes: Number of nodes.
        channels: Width of the vectors; they begin Xavier-uniform.

    Example:
        >>> NodeTable(5, 3)(torch.tensor([[4], [0]])).shape
        torch.Size([2, 3])
    """

    def __init__(self, num_nodes: int, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(num_nodes, channels)))

    def forward(self, ids: Tensor) -> Tensor:
        """Return vectors ``[N, d]`` of nodes ``[N, 1]``."""
        return self.weight.index_select(0, ids.view(-1))


def featured(pair: "SharedNodePair", channels: int, seed: int) -> tuple["SharedNodePair", NodeTable | None]:
    """Return the pair itself where it has features; otherwise one whose features are numbers, and a table for these.

    Raises:
        TypeError: If the features are no dense tensor of floating point numbers.
    """
    if pair.target.get("x") is not None:
        check_dense_x(pair)
        return pair, None
    pair = with_ids(pair)
    table = build_model(lambda: NodeTable(pair.nodes().num_nodes, channels), seed)
    assert isinstance(table, NodeTable)
    return pair, table


def with_ids(pair: "SharedNodePair") -> "SharedNodePair":
    """Return the pair with the number of each node as its only feature, for a :class:`NodeTable`.

    Example:
        >>> from torch_geometric.data import Data
        >>> from graphsparse.transfer.data.pair import SharedNodePair
        >>> graph = Data(edge_index=torch.tensor([[0, 1], [1, 0]]), num_nodes=3)
        >>> pair = SharedNodePair(graph, graph, torch.tensor([0, 1, 3]), torch.tensor([0, 1, 2]))
        >>> with_ids(pair).union().x.view(-1)
        tensor([0, 1, 2, 3])
    """
    return pair.with_x(torch.arange(pair.nodes().num_nodes).view(-1, 1))
