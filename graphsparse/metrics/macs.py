"""Multiply-accumulates of a forward pass, with zeros for free."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch_geometric.nn import MessagePassing

_MATRIX_PRODUCTS: dict[Any, Callable[..., tuple[Tensor, Tensor]]] = {
    torch.ops.aten.mm.default: lambda a, b: (a, b),
    torch.ops.aten.addmm.default: lambda c, a, b: (a, b),
    torch.ops.aten.bmm.default: lambda a, b: (a, b),
    torch.ops.aten._sparse_mm.default: lambda a, b: (a, b),
}


class _CountProducts(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every matrix product of a forward pass, whoever computes it."""

    def __init__(self, parameters: set[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.parameters = parameters
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _MATRIX_PRODUCTS:
            self.total += self._count(*_MATRIX_PRODUCTS[func](*args))
        return func(*args, **(kwargs or {}))

    def _count(self, a: Tensor, b: Tensor) -> int:
        left, right = self._non_zeros(a, -2), self._non_zeros(b, -1)
        return int((left * right).sum())

    def _non_zeros(self, operand: Tensor, dim: int) -> Tensor:
        """Count, for every index that is summed over, the entries of an operand that are not zero.

        Zeros are free in weights and in sparse tensors. Those of dense activations depend on the data, and no dense
        product skips them: they count.
        """
        if operand.layout != torch.strided:
            operand = operand.to_sparse(layout=torch.sparse_coo).coalesce()
            index = operand.indices()[1 if dim == -2 else 0]
            return torch.bincount(index, minlength=operand.size(1 if dim == -2 else 0))
        if operand.untyped_storage().data_ptr() in self.parameters:
            return operand.count_nonzero(dim)
        return torch.full(operand.shape[:dim] + operand.shape[dim:][1:], operand.size(dim))


def count_macs(model: nn.Module, *args: Any, **kwargs: Any) -> int:
    r"""Count the multiply-accumulates of one forward pass, in evaluation mode.

    Counted are

    * every matrix product, one per pair of factors that meet: zeros in parameters and in sparse tensors are free,
      zeros in dense activations are not. A dense layer costs :math:`N \cdot \mathrm{nnz}(W)`, with sparse features
      :math:`X` the number of pairs in which neither factor is a stored or known zero;
    * every message of a PyG layer, one per channel: :math:`E \cdot F` for a layer that sends :math:`F` channels over
      :math:`E` edges, self-loops that the layer adds included.

    Not counted are additions of biases, activations, normalisation and other work per entry, attention coefficients
    among them. This is the usual way to state the cost of a sparse model; it says nothing about time, which has to be
    measured.

    Args:
        model: Any PyG model; its mode and everything else is the same afterwards.
        args: Its arguments, such as ``x`` and ``edge_index``.
        kwargs: Its keyword arguments.

    Returns:
        The number of multiply-accumulates.

    Example:
        >>> from torch_geometric.nn import GCNConv
        >>> from graphsparse.testing import toy_edge_index
        >>> count_macs(GCNConv(8, 3), torch.ones(5, 8), toy_edge_index())  # 5 * 8 * 3 + (10 + 5) * 3
        165
    """
    messages = 0

    def count_message(module: Any, inputs: Any, output: Any) -> None:
        nonlocal messages
        messages += output.numel()

    def count_fused(module: Any, inputs: Any, output: Any) -> None:
        nonlocal messages
        adjacency = inputs[0]
        if isinstance(adjacency, Tensor):
            num = adjacency.size(1) if adjacency.layout == torch.strided else adjacency._nnz()
        else:
            num = adjacency.nnz()
        messages += num * output[0].numel()

    handles = []
    for module in model.modules():
        if isinstance(module, MessagePassing):
            handles.append(module.register_message_forward_hook(count_message))
            handles.append(module.register_message_and_aggregate_forward_hook(count_fused))
    training = model.training
    model.eval()
    counter = _CountProducts({p.untyped_storage().data_ptr() for p in model.parameters()})
    try:
        with torch.no_grad(), counter:
            model(*args, **kwargs)
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    return counter.total + messages
