"""A short name for a graph, equal for equal graphs."""

from torch import Tensor

from graphsparse.ops.blocks import BLOCK
from graphsparse.ops.check import check_edge_index
from graphsparse.ops.digest import digest


def graph_fingerprint(edge_index: Tensor, num_nodes: int | None = None) -> str:
    """Return a digest of the edges, in their order, and the number of nodes.

    What is stored per edge, such as a mask, fits another graph only if the fingerprints are equal. The integer type,
    the device and the class of ``edge_index`` do not matter.
    """
    num_nodes, _ = check_edge_index(edge_index, num_nodes)
    parts = (part for row in edge_index.as_subclass(Tensor) for part in row.split(BLOCK))
    return f"{num_nodes}-{edge_index.size(1)}-{digest(part.long() for part in parts)}"
