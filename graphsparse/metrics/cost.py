"""What a sparse model costs: removed weights, removed edges, multiply-accumulates."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry
from torch_geometric.nn import MessagePassing

from graphsparse.edges.undirected import undirected_edges
from graphsparse.utils.call_model import eval_mode

# Products of two matrices or vectors, and at which position their first factor comes.
_PRODUCTS = {
    **dict.fromkeys(("mm", "bmm", "mv", "dot", "_sparse_mm", "_sparse_mm_reduce_impl"), 0),
    **dict.fromkeys(("addmm", "addmv", "baddbmm", "_addmm_activation", "_sparse_addmm"), 1),
}
# Whole layers computed by one operation, into which nobody sees; to leave them out would be wrong by far.
_OPAQUE = {
    "mkldnn_rnn_layer",
    "_cudnn_rnn",
    "miopen_rnn",
    "_native_multi_head_attention",
    "_transformer_encoder_layer_fwd",
    "segment_matmul",
    "grouped_matmul",
}


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operation of a forward pass, whoever computes it, and is told of the messages."""

    def __init__(self, parameters: set[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.parameters = parameters
        self.total = 0
        self.inside_fused_layer = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        packet = func.overloadpacket
        name = packet.__name__
        if name in _OPAQUE:
            raise NotImplementedError(f"'model' computes a whole layer by {func}, whose cost cannot be counted")
        out = func(*args, **(kwargs or {}))
        if self.inside_fused_layer:
            return out
        if name in _PRODUCTS:
            self.total += self._count(*args[_PRODUCTS[name] :][:2])
        elif name == "_linear_pointwise":  # by oneDNN, which takes the weight as a linear layer holds it
            self.total += self._count(args[0], args[1].t())
        elif name.startswith("_scaled_dot_product") and "backward" not in name:
            query, key, value = args[:3]
            self.total += query.shape[:-1].numel() * key.size(-2) * (key.size(-1) + value.size(-1))
        elif packet in flop_registry:  # convolutions; two operations make one multiply-accumulate
            self.total += flop_registry[packet](*args, **(kwargs or {}), out_val=out) // 2
        return out

    def _count(self, a: Tensor, b: Tensor) -> int:
        # A vector is a matrix of one row on the left and of one column on the right.
        left, right = self._non_zeros(a, -2), self._non_zeros(b, -1)
        return int((left * right).sum())

    def _non_zeros(self, operand: Tensor, dim: int) -> Tensor:
        """Count, for every index that is summed over, the entries of an operand that are not zero.

        Zeros are free in weights and in sparse tensors. Those of dense activations depend on the data, and no dense
        product skips them: they count.
        """
        if operand.dim() == 1:
            operand = operand.unsqueeze(dim)
        if operand.layout != torch.strided:
            index = operand.to_sparse(layout=torch.sparse_coo).coalesce().indices()[1 if dim == -2 else 0]
            return torch.bincount(index, minlength=operand.size(1 if dim == -2 else 0))
        if operand.untyped_storage().data_ptr() in self.parameters:
            return operand.count_nonzero(dim)
        return torch.full(operand.shape[:dim] + operand.shape[dim:][1:], operand.size(dim), device=operand.device)

    @contextmanager
    def messages(self, model: nn.Module) -> Iterator[None]:
        """Count the messages of every PyG layer inside the block."""

        def message(module: Any, inputs: Any, output: Any) -> None:
            self.total += output.numel()

        def enter(module: Any, inputs: Any) -> None:
            self.inside_fused_layer = True

        def leave(module: Any, inputs: Any, output: Any) -> None:
            self.inside_fused_layer = False
            adjacency = inputs[0]
            if not isinstance(adjacency, Tensor):
                num_messages = adjacency.nnz()
            else:
                num_messages = adjacency.size(1) if adjacency.layout == torch.strided else adjacency._nnz()
            self.total += num_messages * output.shape[1:].numel()

        handles = []
        for layer in model.modules():
            if isinstance(layer, MessagePassing):
                handles.append(layer.register_message_forward_hook(message))
                handles.append(layer.register_message_and_aggregate_forward_pre_hook(enter))
                handles.append(layer.register_message_and_aggregate_forward_hook(leave))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


@contextmanager
def _unfused_attention() -> Iterator[None]:
    """Compute attention by the operations it consists of, which can be counted."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


def count_macs(model: nn.Module, *args: Any, **kwargs: Any) -> int:
    r"""Count the multiply-accumulates of one forward pass, in evaluation mode.

    Counted are

    * every matrix product, one per pair of factors that meet: zeros in parameters and in sparse tensors are free,
      zeros in dense activations are not. A dense layer costs :math:`N \cdot \mathrm{nnz}(W)`, and with sparse
      features only their stored entries count. Weights computed during the forward pass are activations in this sense;
    * every message of a PyG layer, one per channel: :math:`E \cdot F` for a layer that sends :math:`F` channels over
      :math:`E` edges, self-loops that the layer adds included, however many ways it aggregates them;
    * dot-product attention and convolutions, zeros included.

    Not counted are additions of biases, activations, normalisation and other work per entry, the attention
    coefficients of a GAT among them, and products that call torch-sparse outside a PyG layer. This is the usual way to
    state the cost of a sparse model; it says nothing about time, which has to be measured.

    Args:
        model: Any PyG model; its mode and the random generators are the same afterwards. A layer with ``cached=True``
            keeps the graph, as in any forward pass.
        args: Its arguments, such as ``x`` and ``edge_index``.
        kwargs: Its keyword arguments.

    Returns:
        The number of multiply-accumulates.

    Raises:
        NotImplementedError: If the model computes a whole layer by one opaque operation, such as an LSTM.

    Example:
        >>> from torch_geometric.nn import GCNConv
        >>> from graphsparse.testing import toy_edge_index
        >>> count_macs(GCNConv(8, 3), torch.ones(5, 8), toy_edge_index())  # 5 * 8 * 3 + (10 + 5) * 3
        165
    """
    counter = _Counter({p.untyped_storage().data_ptr() for p in model.parameters()})
    with (
        eval_mode(model),
        _unfused_attention(),
        torch.random.fork_rng(devices=range(torch.cuda.device_count())),
        torch.no_grad(),
        counter.messages(model),
        counter,
    ):
        model(*args, **kwargs)
    return counter.total


def weight_sparsity(model: nn.Module | Mapping[str, Tensor] | Iterable[Tensor]) -> float:
    """Return the fraction of scalars that are exactly zero.

    Args:
        model: A model, whose parameters are counted, biases too; or a state dict, whose floating point tensors are
            counted, buffers too, since it does not tell them apart; or the tensors to count. Tied ones, which share
            their memory, count once.

    Returns:
        A fraction between 0 and 1; 0 where there is nothing to count.

    Raises:
        TypeError: If there is something else than tensors in it.

    Example:
        >>> import torch
        >>> weight_sparsity([torch.tensor([0.0, 1.0, 0.0, 2.0])])
        0.5
    """
    if isinstance(model, nn.Module):
        model = model.parameters()
    elif isinstance(model, Mapping):
        model = (value for value in model.values() if not isinstance(value, Tensor) or value.is_floating_point())
    tensors = list(model)
    for tensor in tensors:
        if not isinstance(tensor, Tensor):
            raise TypeError(f"'model' must be a module, a state dict or tensors (it holds a {type(tensor).__name__})")
    tensors = list({(tensor.data_ptr(), tensor.shape): tensor for tensor in tensors}.values())
    total = sum(tensor.numel() for tensor in tensors)
    return sum(tensor.numel() - int(tensor.count_nonzero()) for tensor in tensors) / max(total, 1)


def edge_sparsity(before: Tensor, after: Tensor, num_nodes: int | None = None) -> float:
    """Return the fraction of undirected edges that is gone; self-loops and duplicates do not count.

    Args:
        before: Edges of the whole graph, ``[2, E]``.
        after: Edges of the sparsified graph, ``[2, E']``.
        num_nodes: Number of nodes; taken from ``before`` when ``None``.

    Returns:
        A fraction between 0 and 1; 0 where there are no edges.

    Raises:
        TypeError: If an edge list is not an integer tensor.
        ValueError: If a shape or an index is out of range, or ``after`` has an edge that ``before`` has not.

    Example:
        >>> import torch
        >>> edge_sparsity(torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]), torch.tensor([[0, 1], [1, 0]]))
        0.5
    """
    whole = undirected_edges(before, num_nodes)
    rest = undirected_edges(after, whole.num_nodes)
    if not torch.isin(rest.key, whole.key, assume_unique=True).all():
        raise ValueError("'after' holds an edge that 'before' does not hold")
    return 1 - rest.num_edges / whole.num_edges if whole.num_edges else 0.0
