"""What fraction of the weights and of the edges is gone."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from graphsparse.edges.undirected import undirected_edges


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
