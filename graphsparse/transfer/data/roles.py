"""Which nodes belong to the target, to a source, or to both, and which of them each derived graph has."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from graphsparse.transfer.data.keys import NodeKeys, join_keys

#: Names of the graphs that can be derived from a pair.
GRAPHS = ("target", "intersection", "enriched_intersection", "enriched_target", "union", "source")
#: Roles of nodes.
SOURCE_ONLY, TARGET_ONLY, BOTH = 0, 1, 2


@dataclass(frozen=True)
class NodeMatch:
    """The nodes of a pair of graphs under global numbers: the target's first, then those that only sources have.

    Attributes:
        num_target: Number of the target's nodes; they keep their numbers.
        num_nodes: Number of all nodes.
        source_ids: For each source the global numbers of its nodes, int64.
        in_source: Which nodes some source has, bool ``[num_nodes]``.
    """

    num_target: int
    num_nodes: int
    source_ids: list[Tensor]
    in_source: Tensor

    @property
    def shared(self) -> Tensor:
        """Which of the target's nodes some source has too, bool ``[num_target]``."""
        return self.in_source[: self.num_target]

    def nodes(self, graph: str) -> Tensor:
        """Return the global numbers of the nodes of a derived graph, ascending."""
        if graph in ("intersection", "enriched_intersection"):
            return self.shared.nonzero().view(-1)
        if graph == "source":
            return self.in_source.nonzero().view(-1)
        return torch.arange(self.num_nodes if graph == "union" else self.num_target)

    def role(self, nodes: Tensor) -> Tensor:
        """Return 0 for nodes that only sources have, 1 for those that only the target has, 2 for both; int8."""
        role = torch.where(self.in_source[nodes], BOTH, TARGET_ONLY).to(torch.int8)
        return role.masked_fill_(nodes >= self.num_target, SOURCE_ONLY)


def match_nodes(target: NodeKeys, sources: Sequence[NodeKeys]) -> NodeMatch:
    """Match nodes by their keys.

    Args:
        target: Keys of the target's nodes, each once.
        sources: Keys of each source's nodes, each once within a source.

    Raises:
        TypeError: If some keys are integers and others strings.

    Example:
        >>> match = match_nodes(["a", "b", "c"], [["c", "d"]])
        >>> match.shared, match.role(torch.arange(4))
        (tensor([False, False,  True]), tensor([1, 1, 2, 0], dtype=torch.int8))
    """
    ids, num_nodes = join_keys(target, sources)
    in_source = torch.zeros(num_nodes, dtype=torch.bool)
    for numbers in ids:
        in_source[numbers] = True
    return NodeMatch(len(target), num_nodes, ids, in_source)
