"""Pairs sorted by how much is known of their ends."""

import torch
from torch import Tensor

from graphsparse.ops.check import check_edge_index

#: Names of the bins of :func:`cold_bins`, in the order of their numbers.
COLD_BINS = ("an end of degree 0", "degrees 1 to 3", "degrees above 3")
_BLOCK = 1 << 20


def cold_bins(pairs: Tensor, degree: Tensor | tuple[Tensor, Tensor], *, few: int = 3) -> Tensor:
    """Return how cold each pair is: by the degrees of its ends in the training graph.

    Bin 0: an end has degree 0. Bin 1: the degrees add up to at most ``few``. Bin 2: to more.

    Args:
        pairs: Pairs of nodes ``[2, P]``.
        degree: Degree of each node in the training graph, integers ``[N]``; for directed links the out-degrees, for the
            first ends, and the in-degrees, for the second ones.
        few: Largest sum of degrees in bin 1.

    Returns:
        Bins as int8 ``[P]``; their names are in :data:`COLD_BINS`.

    Raises:
        TypeError: If a tensor does not hold integers.
        ValueError: If a shape or an index is out of range.

    Example:
        >>> cold_bins(torch.tensor([[0, 1, 2], [1, 2, 3]]), torch.tensor([0, 1, 2, 5]))
        tensor([0, 1, 2], dtype=torch.int8)
    """
    first, second = degree if isinstance(degree, tuple) else (degree, degree)
    for values in (first, second):
        if not isinstance(values, Tensor) or values.is_floating_point() or values.is_complex():
            kind = getattr(values, "dtype", type(values).__name__)
            raise TypeError(f"'degree' must be an integer tensor (got {kind})")
        if values.dim() != 1:
            raise ValueError(f"'degree' must be [N] (got shape {list(values.shape)})")
    check_edge_index(pairs, (first.numel(), second.numel()), "pairs")
    bins = torch.empty(pairs.size(1), dtype=torch.int8, device=pairs.device)
    for start in range(0, pairs.size(1), _BLOCK):
        u, v = first[pairs[0, start : start + _BLOCK].long()], second[pairs[1, start : start + _BLOCK].long()]
        number = 2 - (u + v <= few).to(torch.int8)
        bins[start : start + _BLOCK] = number.masked_fill_((u == 0) | (v == 0), 0)
    return bins
