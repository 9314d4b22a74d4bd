"""Cores: edges that are kept first, under any score, by name."""

from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor

#: Takes the edges of a graph, their scores ``[M]``, and ``edge_weight``; returns a bool mask ``[M]``.
EdgeCore: TypeAlias = Callable[..., Tensor]
CORES: dict[str, EdgeCore] = {}
