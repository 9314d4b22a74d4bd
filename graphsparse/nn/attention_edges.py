"""The edges over which a node attends: those of the graph, with one self-loop for each node."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.utils import is_sparse, scatter
from torch_geometric.utils.loop import compute_loop_attr

from graphsparse.nn.gather_scatter import append_loops, reduce_messages
from graphsparse.nn.graph import held_of, to_adjacency
from graphsparse.ops import Adjacency
from graphsparse.ops.remember import remember


@dataclass
class AttentionEdges:
    """Edges with their weights, self-loops behind the others.

    A self-loop of the graph itself, in place of which the node has one of those behind, stays in the list with
    weight 0, which is to be deleted; so the list only depends on sizes.

    Attributes:
        edge_index: Edges ``[2, E]``.
        weight: Weights ``[E]``, ``None`` where all are 1.
        num_loops: How many self-loops are behind.
        ends: Numbers of sources and destinations.
        flow: As in PyG's ``MessagePassing``.
        adjacency: The edges without weights, whose edge list has their order; ``None`` if it is not needed.
    """

    edge_index: Tensor
    weight: Tensor | None
    num_loops: int
    ends: tuple[int, int]
    flow: str
    adjacency: Adjacency | None

    @property
    def source(self) -> Tensor:
        """Sources ``[E]``."""
        return self.edge_index[0 if self.flow == "source_to_target" else 1]

    @property
    def target(self) -> Tensor:
        """Destinations ``[E]``."""
        return self.edge_index[1 if self.flow == "source_to_target" else 0]

    @property
    def num_dst(self) -> int:
        """Number of destinations."""
        return self.ends[1]

    def shown(self) -> Tensor:
        """Return the mask of the edges that are not self-loops of the graph with one behind, ``[E]``."""
        mask = self.edge_index[0] != self.edge_index[1]
        if self.num_loops == 0:
            return torch.ones_like(mask)
        mask[mask.numel() - self.num_loops :] = True
        return mask

    def extend(self, edge_attr: Tensor, fill_value: float | Tensor | str) -> Tensor:
        """Return edge features with those of the self-loops behind, ``[E, D]``.

        Args:
            edge_attr: Features of the edges of the graph.
            fill_value: A value, or how to reduce the features of the edges into each node.

        Raises:
            ValueError: If the reduction does not go with weights.
        """
        if self.num_loops == 0:
            return edge_attr
        given = slice(0, edge_attr.size(0))
        if isinstance(fill_value, str):
            # The features of a self-loop are those of the edges into the node, whatever the flow: so has PyG.
            ends, num_nodes = self.edge_index[1, given], max(self.ends)
            if self.weight is None:
                loops = scatter(edge_attr, ends, 0, num_nodes, fill_value)
            else:
                reduce = {"add": "sum", "amin": "min", "amax": "max"}.get(fill_value, fill_value)
                if reduce not in ("sum", "mean", "min", "max", "mul"):
                    raise ValueError(f"'fill_value' {fill_value!r} does not go with weights or self-loops")
                weight = self.weight[given]
                weighted = edge_attr * weight.view(-1, 1).to(edge_attr.dtype)
                loops = reduce_messages(weighted, weight, ends, num_nodes, reduce)
            return torch.cat([edge_attr, loops[: self.num_loops]])
        loops = compute_loop_attr(self.edge_index, edge_attr, self.num_loops, False, fill_value)
        return torch.cat([edge_attr, loops])


def attention_edges(
    edge_index: Any, edge_weight: Tensor | None, ends: tuple[int, int], *, add_self_loops: bool, flow: str, fused: bool
) -> AttentionEdges:
    """Return the edges over which the nodes attend.

    Args:
        edge_index: ``[2, E]``, a matrix (whose values do not count) or an ``Adjacency`` (whose values do).
        edge_weight: Weights of the edges ``[E]``, in place of those of an ``Adjacency``.
        ends: Numbers of sources and destinations.
        add_self_loops: Whether every node attends to itself, once.
        flow: As in PyG's ``MessagePassing``.
        fused: Whether to make an adjacency too, and to keep what does not depend on the weights, for as long as the
            same edges come in.
    """
    adj: Adjacency | None = None
    if isinstance(edge_index, Adjacency) or is_sparse(edge_index):
        adj = to_adjacency(edge_index, edge_weight, ends, flow=flow, sparse_tensor_values=False)
        held: list[Any] = [adj.col, adj.pattern]
        weight = adj.to_edge_index()[1] if isinstance(edge_index, Adjacency) else None
    else:
        held, weight = held_of(edge_index), None if edge_weight is None else edge_weight.view(-1)

    def listed() -> Tensor:
        if adj is not None:
            return adj.to_edge_index()[0]
        edges: Tensor = edge_index.as_tensor() if isinstance(edge_index, EdgeIndex) else edge_index
        return edges

    num_loops = min(ends) if add_self_loops else 0
    if num_loops == 0 and adj is not None:
        return AttentionEdges(listed(), weight, 0, ends, flow, adj.with_value(None) if fused else None)

    def build() -> tuple[Tensor | None, Tensor | None, Adjacency | None]:
        edges, zero_or_one, looped = listed(), None, None
        if num_loops:
            ones = torch.ones(edges.size(1), device=edges.device)
            has_loops = not fused or bool((edges[0] == edges[1]).any())
            edges, zero_or_one = append_loops(edges, ones, ones.new_ones(num_loops))
            zero_or_one = zero_or_one if has_loops else None
        if fused:
            looped = Adjacency.from_edge_index(edges if flow == "source_to_target" else edges.flip(0), None, ends)
        # What is kept must not hold the list that it belongs to.
        return edges if num_loops else None, zero_or_one, looped

    found, zero_or_one, looped = remember(held, ("attention", ends, flow, num_loops), build) if fused else build()
    edges = listed() if found is None else found
    if weight is not None:
        weight = torch.cat([weight, weight.new_ones(num_loops)])
        weight = weight if zero_or_one is None else weight * zero_or_one
    return AttentionEdges(edges, zero_or_one if weight is None else weight, num_loops, ends, flow, looped)
