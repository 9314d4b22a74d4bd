"""Checks of the arguments that nearly every function takes, with errors that say what came and what was expected."""

import math
import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


def check_sparsity(sparsity: float, name: str = "sparsity") -> float:
    """Return a sparsity, the fraction removed, as a float in ``[0, 1)``, or raise an error."""
    value = check_real(sparsity, name, "a number in [0, 1)")
    if not 0.0 <= value < 1.0:  # also refuses NaN
        raise ValueError(f"'{name}' is the fraction removed and must be in [0, 1) (got {sparsity!r})")
    return value


def check_share(value: object, name: str) -> float:
    """Return a number in [0, 1] as a float, or raise an error that names the argument."""
    number = check_real(value, name, "a number in [0, 1]")
    if not 0 <= number <= 1:  # also refuses NaN
        raise ValueError(f"'{name}' must be in [0, 1] (got {value!r})")
    return number


def check_real(value: object, name: str, wanted: str = "a number") -> float:
    """Return a real number as a float, or raise an error; NaN and infinity are accepted."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"'{name}' must be {wanted} (got {value!r} of type {type(value).__name__})")
    return float(value)


def check_number(
    value: object, name: str, *, least: float = -math.inf, most: float = math.inf, strictly: bool = False
) -> float:
    """Return a finite number in ``[least, most]``, or ``(least, most]`` with ``strictly``, or raise an error."""
    number = check_real(value, name)
    if not math.isfinite(number) or number < least or number > most or (strictly and number == least):
        lower = f"above {least}" if strictly else f"of at least {least}"
        upper = "" if most == math.inf else f" and at most {most}"
        raise ValueError(f"'{name}' must be a finite number {lower}{upper} (got {value!r})")
    return number


def check_integer(value: object, name: str) -> int:
    """Return an integer as an int, or raise an error."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"'{name}' must be an integer (got {value!r} of type {type(value).__name__})")
    return int(value)


def check_count(value: object, name: str, least: int = 1) -> int:
    """Return an integer of at least ``least`` as an int, or raise an error."""
    number = check_integer(value, name)
    if number < least:
        raise ValueError(f"'{name}' must be at least {least} (got {value})")
    return number


def check_list(values: object, name: str, wanted: str = "a list of numbers") -> list[Any]:
    """Return a sequence or a 1-D array as a list of Python numbers; strings, sets and iterators raise an error."""
    if isinstance(values, np.ndarray) and values.ndim == 1:
        values = values.tolist()
    if isinstance(values, (str, bytes)) or not isinstance(values, Sequence):
        raise TypeError(f"'{name}' must be {wanted} (got {values!r} of type {type(values).__name__})")
    return list(values)


def check_edge_index(
    edge_index: Tensor, num_nodes: int | tuple[int, int] | None = None, name: str = "edge_index"
) -> tuple[int, int]:
    """Check an edge list and return the numbers of source and destination nodes.

    Args:
        edge_index: Edges as ``[2, E]``, int64 or int32.
        num_nodes: Number of nodes, or ``(num_src, num_dst)`` for a bipartite graph. Taken from the largest index
            when ``None``.
        name: Name of the argument, for the error messages.
    """
    if not isinstance(edge_index, Tensor):
        raise TypeError(f"'{name}' must be a tensor of shape [2, E] (got {type(edge_index).__name__})")
    if edge_index.layout != torch.strided or edge_index.dtype not in (torch.int64, torch.int32):
        raise TypeError(
            f"'{name}' must be a dense int64 or int32 tensor (got {edge_index.dtype}, layout {edge_index.layout})"
        )
    if edge_index.dim() != 2 or edge_index.size(0) != 2:
        raise ValueError(f"'{name}' must have shape [2, E] (got {list(edge_index.shape)})")
    if isinstance(num_nodes, tuple):
        if len(num_nodes) != 2:
            raise ValueError(f"'num_nodes' must be an integer or (num_src, num_dst) (got {num_nodes!r})")
        sizes = (int(num_nodes[0]), int(num_nodes[1]))
    elif num_nodes is not None:
        sizes = (check_integer(num_nodes, "num_nodes"),) * 2
    if num_nodes is not None and min(sizes) < 0:
        raise ValueError(f"'num_nodes' must not be negative (got {num_nodes!r})")
    if edge_index.size(1) == 0:
        return sizes if num_nodes is not None else (0, 0)
    bounds = torch.aminmax(edge_index.as_subclass(Tensor), dim=1)
    (low_src, low_dst), (high_src, high_dst) = torch.stack(bounds).tolist()
    if min(low_src, low_dst) < 0:
        raise ValueError(f"'{name}' must not hold negative indices (got {min(low_src, low_dst)})")
    if num_nodes is None:
        return (max(high_src, high_dst) + 1,) * 2
    if high_src >= sizes[0] or high_dst >= sizes[1]:
        raise ValueError(
            f"'{name}' holds the index {max(high_src, high_dst)}, which is not below 'num_nodes' ({num_nodes!r})"
        )
    return sizes


def check_edge_value(value: Tensor, size: int, device: torch.device, name: str) -> None:
    """Refuse what is no floating point number for each edge."""
    if not isinstance(value, Tensor) or not value.is_floating_point():
        kind = getattr(value, "dtype", type(value).__name__)
        raise TypeError(f"'{name}' must be a floating point tensor (got {kind})")
    check_per_edge(value, size, device, name)


def check_per_edge(values: Tensor, size: int, device: torch.device, name: str) -> None:
    """Refuse what has not one entry for each edge."""
    if values.dim() != 1 or values.numel() != size:
        raise ValueError(f"'{name}' must have one entry per edge, shape [{size}] (got {list(values.shape)})")
    if values.device != device:
        raise ValueError(f"'{name}' must be on the device of the edges, {device} (got {values.device})")


def check_entries(row: Tensor, col: Tensor, size: tuple[int, int]) -> None:
    """Raise an error for indices outside the matrix, which no format checks reliably."""
    for index, bound, name in ((row, size[0], "row"), (col, size[1], "column")):
        low, high = index.aminmax() if index.numel() else (torch.tensor(0), torch.tensor(-1))
        if int(low) < 0 or int(high) >= bound:
            raise ValueError(f"a {name} of 'matrix' is outside [0, {bound}) (got {int(low)} to {int(high)})")
