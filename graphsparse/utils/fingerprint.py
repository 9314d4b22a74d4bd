"""A short name for a graph, equal for equal graphs."""

from torch import Tensor

from graphsparse.ops.blocks import BLOCK
from graphsparse.ops.check import check_edge_index
from graphsparse.ops.digest import digest


def graph_fingerprint(edge_index: Tensor, num_nodes: int | None = None) -> str:
    """Return a digest of the edges, in their order, and the number of nodes.

    What is stored per edge, such as a mask, fits another graph only if the fingerprints are equal. The integer type,
    the device and the class of ``edge_index`` do not matter.

    Args:
        edge_index: Edges as ``[2, E]``, int64 or int32.
        num_nodes: Number of nodes; the largest index plus one when ``None``.

    Raises:
        TypeError: If ``edge_index`` is not an integer tensor.
        ValueError: If its shape or an index is out of range.

    Example:
        >>> import torch
        >>> graph_fingerprint(torch.tensor([[0, 1], [1, 0]]))
        '2-2-0b6eb9d52ea22179'
    """
    num_nodes, _ = check_edge_index(edge_index, num_nodes)
    parts = (part for row in edge_index.as_subclass(Tensor) for part in row.split(BLOCK))
    return f"{num_nodes}-{edge_index.size(1)}-{digest(part.long() for part in parts)}"
