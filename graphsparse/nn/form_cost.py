"""What a model takes in one of its forms: memory of weights, and multiply-accumulates that are carried out."""

from collections.abc import Callable, Iterator
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from graphsparse.metrics import count_macs
from graphsparse.nn.fused import FusedConv

#: Returns the logits of a model for a graph.
Call: TypeAlias = Callable[[nn.Module, Data], Tensor]


def bytes_held(model: nn.Module) -> int:
    """Return the memory of the parameters and buffers of a model, those that it holds twice counted once.

    Args:
        model: The model.

    Example:
        >>> bytes_held(nn.Linear(3, 2))
        32
    """
    tensors = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return sum(tensor.nbytes for tensor in tensors.values())


def executed_macs(model: nn.Module, data: Data, call: Call) -> int | None:
    """Return the multiply-accumulates that a model carries out on a graph, the zeros in its dense weights included.

    :func:`~graphsparse.metrics.count_macs` leaves out the zeros of all weights, as it states what a sparse model could
    do with. A product with a dense weight multiplies by them.

    Args:
        model: A model in one of its forms. It should have run on the graph twice, so that what is constant is there.
        data: The graph.
        call: Calls the model on the graph.

    Returns:
        The number, or ``None`` if the model computes a whole layer by one opaque operation.

    Example:
        >>> from torch_geometric.nn import GCNConv
        >>> from graphsparse.testing import toy_edge_index
        >>> data = Data(x=torch.ones(5, 8), edge_index=toy_edge_index())
        >>> conv = GCNConv(8, 3)
        >>> torch.nn.init.zeros_(conv.lin.weight).count_nonzero()
        tensor(0)
        >>> executed_macs(conv, data, lambda model, data: model(data.x, data.edge_index))  # 5 * 8 * 3 + (10 + 5) * 3
        165
    """
    try:
        return count_macs(_AsItRuns(model, call), data)
    except NotImplementedError:
        return None


class _AsItRuns(nn.Module):
    """A model whose weights are dense tensors like any other, and whose sparse products are counted as such."""

    def __init__(self, model: nn.Module, call: Call) -> None:
        super().__init__()
        self.model, self.call = model, call

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """Hide the parameters, whose zeros would not be counted."""
        return iter(())

    def modules(self) -> Iterator[nn.Module]:  # type: ignore[override]
        """Hide the layers that have no messages: asked for them, they would compute in another way."""
        return (module for module in super().modules() if not _is_product(module))

    def forward(self, data: Data) -> Tensor:
        return self.call(self.model, data)


def _is_product(module: nn.Module) -> bool:
    return isinstance(module, FusedConv) and module.is_fused(torch.empty(1, 1))
