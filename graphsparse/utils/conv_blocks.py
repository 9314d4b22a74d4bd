"""One layer for all nodes, in blocks of destinations."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from graphsparse.utils.in_edges import Block, InEdges
from graphsparse.utils.layer_forms import BlockInput, apply_form
from graphsparse.utils.locality import exact_form
from graphsparse.utils.trace_layers import LayerCall

#: Values per edge of some edges of the input, for each leaf that has such.
EdgeValues = Callable[[Tensor | slice], dict[int, Tensor]]
#: The rows of some nodes, for each leaf that has a row per node.
RowsOf = Callable[[Tensor], dict[int, Tensor]]

_PROBED, _PROBED_LONELY, _PROBED_DEGREE = 12, 4, 64  # destinations with edges and without, and their largest degree


@dataclass
class Limits:
    """How large a block may be.

    Attributes:
        nodes: Most destinations.
        edges: Most edges, where a layer holds a message for each; one destination alone may have more.
    """

    nodes: int
    edges: int


def layer_output(
    call: LayerCall,
    edges: InEdges,
    stored: dict[int, Tensor],
    edge_values: EdgeValues,
    limits: Limits,
    device: torch.device,
) -> Tensor:
    """Compute the output of a layer for all nodes.

    Args:
        call: The call of the layer.
        edges: The graph.
        stored: For each leaf of the arguments with a row per node, the matrix of all nodes.
        edge_values: For each leaf with values per edge, those of some edges.
        limits: How large a block may be.
        device: Where the layer is.

    Returns:
        Output ``[N, ...]`` in main memory.

    Raises:
        ValueError: If the layer cannot be computed in blocks.
    """

    def rows_of(nodes: Tensor) -> dict[int, Tensor]:
        picked: dict[int, Tensor] = {}  # a matrix that is given twice is picked once
        for matrix in stored.values():
            if id(matrix) not in picked:
                picked[id(matrix)] = matrix.index_select(0, nodes.to(matrix.device)).to(device)
        return {i: picked[id(matrix)] for i, matrix in stored.items()}

    form = probed_form(call, edges, rows_of, edge_values, device)
    result: Tensor | None = None
    # A sparse product holds no message.
    fused = call.layer.fuse and form in ("adjacency", "csr")
    for start, stop in edges.ranges(limits.nodes, None if fused else limits.edges):
        output = apply_form(
            call, form, call.layer, block_input(call, edges, edges.block(start, stop), rows_of, edge_values, device)
        )[: stop - start]
        if result is None:
            result = output.new_empty(edges.num_nodes, *output.shape[1:], device="cpu")
        result[start:stop] = output.to("cpu")
    assert result is not None
    return result


def block_input(
    call: LayerCall, edges: InEdges, block: Block, rows_of: RowsOf, edge_values: EdgeValues, device: torch.device
) -> BlockInput:
    """Return what a layer needs for a block.

    Args:
        call: The call of the layer.
        edges: The graph.
        block: Some destinations and the edges into them.
        rows_of: The rows of some nodes, for each leaf that has such.
        edge_values: For each leaf with values per edge, those of some edges.
        device: Where the layer is.
    """
    leaves = [leaf.value for leaf in call.leaves]
    for i, value in (*rows_of(block.nodes).items(), *edge_values(edges.ids(block.edges)).items()):
        leaves[i] = value
    moved = block.to(device)
    return BlockInput(moved.edge_index(), moved.rowptr, moved.num_dst, leaves)


def probed_form(call: LayerCall, edges: InEdges, rows_of: RowsOf, edge_values: EdgeValues, device: torch.device) -> str:
    """Try a layer out at a few destinations, and return the best form in which a block gives its exact output.

    Args:
        call: The call of the layer.
        edges: The graph.
        rows_of: Rows of some nodes, for each leaf that has such; made-up ones will do.
        edge_values: For each leaf with values per edge, those of some edges.
        device: Where the layer is.

    Raises:
        ValueError: If the layer cannot be computed in blocks.
    """
    generator = torch.Generator().manual_seed(0)
    extra: list[Any] = [None] * len(call.leaves)
    sample: list[Any] = [None] * len(call.leaves)
    for i, rows in rows_of(torch.randint(edges.num_nodes, (6,), generator=generator)).items():
        extra[i] = rows
    if edges.num_edges:
        places = torch.randint(edges.num_edges, (50,), generator=generator)
    else:
        places = torch.empty(0, dtype=torch.long)
    for i, values in edge_values(edges.ids(places)).items():
        sample[i] = values
    few = edges.block_of(_probed_nodes(edges.degree(), generator))
    return exact_form(call, block_input(call, edges, few, rows_of, edge_values, device), extra, sample)


def _probed_nodes(degree: Tensor, generator: torch.Generator) -> Tensor:
    linked = degree.nonzero().view(-1)
    if linked.numel():
        few = linked[degree[linked] <= max(_PROBED_DEGREE, int(degree[linked].min()))]
        linked = few[torch.randperm(few.numel(), generator=generator)[:_PROBED]]
        if int(degree[linked[0]]) > _PROBED_DEGREE:
            linked = linked[:1]
    return torch.cat([linked, (degree == 0).nonzero().view(-1)[:_PROBED_LONELY]])
