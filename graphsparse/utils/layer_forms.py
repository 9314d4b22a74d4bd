"""The forms in which a layer can be given a block of edges."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch_geometric.nn import MessagePassing

from graphsparse.ops.adjacency import Adjacency
from graphsparse.utils.trace_layers import LayerCall

#: From the cheapest to the one that every layer takes. All but the last one give the layer its sources and destinations
#: apart, so that nothing is computed for sources in vain: with an ``Adjacency``, with a CSR matrix, with an edge list.
FORMS = ("adjacency", "csr", "pair", "square")


@dataclass
class BlockInput:
    """What a layer needs for one block.

    Attributes:
        edge_index: Edges ``[2, E]``, sorted by destination; ``rowptr`` is the same as offsets.
        rowptr: Offsets of the destinations ``[num_dst + 1]``.
        num_dst: Number of destinations, the first rows.
        leaves: Leaves of the arguments: rows ``[S, ...]``, values per edge ``[E, ...]``, constants; anything where
            the edges belong.
    """

    edge_index: Tensor
    rowptr: Tensor
    num_dst: int
    leaves: list[Any]


def pair_leaves(call: LayerCall) -> list[int]:
    """Return the one leaf, or the two, that can be split into sources and destinations; none if there is no such.

    A layer can be given ``x`` as a tensor, which becomes a pair here, or as a pair already.
    """
    rows = [i for i, leaf in enumerate(call.leaves) if leaf.kind == "rows"]
    names = [call.arguments.leaf_names[i] for i in rows]
    nested = [name for name in set(names) if call.arguments.leaf_names.count(name) > 1]
    if len(rows) == 1 and not nested:
        return rows
    return rows if len(rows) == 2 and nested == [names[0]] == [names[1]] else []


def possible_forms(call: LayerCall) -> list[str]:
    """Return the forms worth a try for a call, the best one first."""
    edges = {call.arguments.leaf_names[i] for i, leaf in enumerate(call.leaves) if leaf.kind == "edges"}
    forms = ["square"]
    if pair_leaves(call):
        forms.insert(0, "pair")
        if call.layer.fuse and not edges:
            forms.insert(0, "csr")
        if getattr(call.layer, "SUPPORTS_ADJACENCY", False) and edges <= {"edge_weight"}:
            forms.insert(0, "adjacency")
    return forms


def apply_form(call: LayerCall, form: str, layer: MessagePassing, given: BlockInput) -> Tensor:
    """Run a layer on a block in one form.

    Args:
        call: The call.
        form: One of :data:`FORMS`.
        layer: The layer of the call, or a copy of it.
        given: The block.

    Returns:
        Output ``[num_dst, ...]``; in form ``square`` that of all nodes, destinations first.
    """
    leaves = list(given.leaves)
    num_dst = given.num_dst
    graph: Any = given.edge_index
    first = next(leaf for leaf, kind in zip(leaves, call.leaves, strict=True) if kind.kind == "rows")
    if form == "csr":
        value = first.new_ones(given.edge_index.size(1))
        size = (num_dst, first.size(0))
        graph = torch.sparse_csr_tensor(given.rowptr, given.edge_index[0], value, size, check_invariants=False)
    elif form == "adjacency":
        weight = None
        for i, leaf in enumerate(call.leaves):
            if leaf.kind == "edges":
                weight, leaves[i] = leaves[i], None
        graph = Adjacency.from_edge_index(given.edge_index, weight, (first.size(0), num_dst), symmetric=False)
    if form != "square":
        pair = pair_leaves(call)
        target = leaves[pair[-1]][:num_dst]
        leaves[pair[-1]] = target if len(pair) == 2 else (leaves[pair[0]], target)
    leaves = [graph if leaf.kind == "graph" else value for leaf, value in zip(call.leaves, leaves, strict=True)]
    args, kwargs = call.arguments.filled(leaves)
    output: Tensor = type(layer).forward(layer, *args, **kwargs)
    return output
