"""Exact logits of a whole graph in bounded memory, one layer after the other."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.utils import to_edge_index
from tqdm import tqdm

from graphsparse.utils.call_model import call_model
from graphsparse.utils.conv_blocks import Limits, layer_output
from graphsparse.utils.eval_mode import eval_mode
from graphsparse.utils.gcn_layers import gcn_output, is_gcn, normalises, weight_leaf, with_full_norm
from graphsparse.utils.in_edges import InEdges
from graphsparse.utils.replay import Arguments, Call, EdgePlaceholder, Replay
from graphsparse.utils.trace_layers import LayerCall, trace_layers


def layerwise_inference(
    model: nn.Module,
    data: Data,
    batch_size: int = 16_384,
    *,
    max_edges: int = 262_144,
    call: Call = call_model,
    progress: bool = False,
) -> Tensor:
    """Return the logits of the whole graph, computed layer by layer in blocks of nodes.

    The result is that of one forward pass over the whole graph in evaluation mode, up to rounding: all edges and their
    weights count, and GCN layers are normalised by the degrees of the full graph. Only one or two matrices of a row
    per node are held at a time in main memory (more if the model needs the outputs of several layers at once, as
    jumping knowledge does), and on the model's device a block of one layer.

    The model may be any module that applies PyG's ``MessagePassing`` layers and, between them, operations that work
    on each node alone: activations, linear layers, ``BatchNorm``, sums and concatenations of earlier layers. It is run
    again and again on rows of nodes, with its layers answered from what was computed before. A layer must compute its
    output at a node from the edges into it and their sources; of those that normalise by degrees of the sources,
    ``GCNConv``, ``GCN2Conv`` and ``LGConv`` are known here. All this is tried out on a few rows first, and a model that
    does not keep to it is refused: one with ``GraphNorm`` or pooling, with layers of several steps (``APPNP``, or
    ``SGConv`` and ``TAGConv`` with any number of steps), with an aggregation that depends on the order of edges (LSTM),
    or which computes with the edges itself.

    Args:
        model: The model; it stays as it is, its mode too.
        data: The graph: ``x`` ``[N, F]`` on any device, memory-mapped or not; ``edge_index`` ``[2, E]`` in any order,
            or ``adj_t``, which is read as an edge list with weights (without self-loops for GCN layers, which treat
            those of matrices in other ways); ``edge_weight`` ``[E]``. Its other tensors with a row per node or per edge
            are there for ``call``.
        batch_size: Most nodes in a block.
        max_edges: Most edges in a block, where a layer holds a message for each edge; a node with more edges has a
            block to itself.
        call: How to call the model on a graph, ``call(model, data) -> logits``, for models that take more than
            features, edges and edge weights.
        progress: Shows a progress bar.

    Returns:
        Logits ``[N, C]``, in main memory.

    Raises:
        TypeError: If ``x`` is no dense tensor.
        ValueError: If the model cannot be run layer by layer; the message names the layer or the reason.

    Example:
        >>> from torch_geometric.nn import GAT
        >>> from graphsparse.testing import random_graph
        >>> layerwise_inference(GAT(8, 16, 2, 3, heads=2), random_graph(), batch_size=10).shape
        torch.Size([60, 3])

        A model that takes edge features::

            call = lambda model, data: model(data.x, data.edge_index, edge_attr=data.edge_attr)
            logits = layerwise_inference(model, data, call=call)
    """
    if batch_size < 1 or max_edges < 1:
        raise ValueError(f"'batch_size' and 'max_edges' must be at least 1 (got {batch_size} and {max_edges})")
    with torch.no_grad(), eval_mode(model):
        return _Inference(model, data, batch_size, max_edges, call).run(progress)


class _Inference:
    """One run over one graph, with the outputs of layers that are still needed."""

    def __init__(self, model: nn.Module, data: Data, batch_size: int, max_edges: int, call: Call) -> None:
        self.limits = Limits(batch_size, max_edges)
        self.device = next((t.device for t in (*model.parameters(), *model.buffers())), torch.device("cpu"))
        self.edge_key, edge_index, self.per_node, self.per_edge = taken_apart(data)
        self.num_nodes = int(data.num_nodes or 0)
        if self.num_nodes == 0:
            raise ValueError("'data' has no nodes")
        # PyG's GCN adds self-loops to a matrix in other ways than to an edge list.
        self.has_matrix_loops = self.edge_key == "adj_t" and bool((edge_index[0] == edge_index[1]).any())
        self.edges = InEdges.sort(edge_index, self.num_nodes)
        self.replay = Replay(model, call)
        self.trace = trace_layers(self.replay, self.make_block, self.num_nodes, self.edges.num_edges)
        self.hidden: list[Tensor | None] = [None] * len(self.trace.calls)

    def make_block(self, rows: Tensor | slice, edges: Tensor | slice) -> Data:
        """Copy some rows and edges to the model's device; the model may write into them."""
        block = Data()
        block[self.edge_key] = EdgePlaceholder.make(self.device)
        for values, picked in ((self.per_node, rows), (self.per_edge, edges)):
            for name, value in values.items():
                block[name] = value[picked].to(self.device, copy=True)
        return block

    def run(self, progress: bool) -> Tensor:
        """Compute layer after layer, then the logits."""
        calls = self.trace.calls
        with tqdm(total=len(calls) + 1, disable=not progress, unit="layer") as bar:
            for k, call in enumerate(calls):
                if call.last_use >= 0:
                    self.hidden[k] = self.compute(k, call)
                self.forget(k)
                bar.update()
            (logits,) = self.collect(None, lambda found: [found])
            bar.update()
        return logits

    def forget(self, k: int) -> None:
        """Let go of the outputs that no call after the ``k``-th needs."""
        for j, call in enumerate(self.trace.calls):
            if call.last_use <= k:
                self.hidden[j] = None

    def compute(self, k: int, call: LayerCall) -> Tensor:
        """Compute the output of the ``k``-th call for all nodes."""
        if call.layer.flow != "source_to_target":
            raise ValueError(f"layer {call.name} sends messages from target to source, which is not supported")
        if self.has_matrix_loops and (is_gcn(call.layer) or normalises(call.layer)):
            raise ValueError(f"'data.adj_t' must hold no self-loops for layer {call.name}; give 'edge_index' instead")
        if is_gcn(call.layer):
            (rows,) = [i for i, leaf in enumerate(call.leaves) if leaf.kind == "rows"]
            (found,) = self.collect(k, lambda arguments: [call.layer.lin(arguments.leaves[rows])])
            self.forget(k)
            weight = self.edge_values(k, call, slice(None)).get(weight_leaf(call))
            return gcn_output(call, self.edges, found, weight, self.limits, self.device)

        stored = self.stored_rows(k, call)
        self.forget(k)
        if normalises(call.layer):
            weight = self.edge_values(k, call, slice(None)).get(weight_leaf(call))
            return layer_output(
                *with_full_norm(call, self.edges, weight, stored, self.device), self.limits, self.device
            )
        return layer_output(
            call, self.edges, stored, lambda ids: self.edge_values(k, call, ids), self.limits, self.device
        )

    def stored_rows(self, k: int, call: LayerCall) -> dict[int, Tensor]:
        """Return, for each leaf of the arguments with a row per node, the matrix of all nodes."""
        stored: dict[int, Tensor] = {}
        for i, leaf in enumerate(call.leaves):
            if leaf.kind == "rows" and leaf.source is not None:
                known = self.per_node[leaf.source] if isinstance(leaf.source, str) else self.hidden[leaf.source]
                assert known is not None
                stored[i] = known
        rest = [i for i, leaf in enumerate(call.leaves) if leaf.kind == "rows" and i not in stored]
        if rest:
            found = self.collect(k, lambda arguments: [arguments.leaves[i] for i in rest])
            stored.update(zip(rest, found, strict=True))
        return stored

    def collect(self, k: int | None, pick: Callable[[Any], list[Tensor]]) -> list[Tensor]:
        """Run the model over all rows up to its ``k``-th call, or to the end, and keep what ``pick`` finds there."""
        kept: list[Tensor] = []
        for start in range(0, self.num_nodes, self.limits.nodes):
            rows = slice(start, min(start + self.limits.nodes, self.num_nodes))
            found = pick(self.replay.run(self.make_block(rows, slice(0, 1)), partial(self.answer, rows), k))
            places: list[int] = [next(j for j in range(i + 1) if found[j] is found[i]) for i in range(len(found))]
            if not kept:
                kept = [value.new_empty(self.num_nodes, *value.shape[1:], device="cpu") for value in found]
                kept = [kept[j] for j in places]  # a tensor given twice is kept once
            for i, j in enumerate(places):
                if i == j:
                    kept[i][rows] = found[i].to("cpu")
        return kept

    def answer(self, rows: slice, k: int, _: Arguments) -> Tensor:
        """Answer the ``k``-th call for a range of rows; the model may write into the answer."""
        found = self.hidden[k]
        if found is not None:
            return found[rows].to(self.device, copy=True)
        like = self.trace.outputs[k]  # nothing needs it
        return like.new_full((rows.stop - rows.start, *like.shape[1:]), torch.nan)

    def edge_values(self, k: int, call: LayerCall, ids: Tensor | slice) -> dict[int, Tensor]:
        """Return, for each leaf with values per edge, those of some edges of the input."""
        wanted = [i for i, leaf in enumerate(call.leaves) if leaf.kind == "edges"]
        sources = [call.leaves[i].source for i in wanted]
        if all(isinstance(source, str) for source in sources):
            return {
                i: self.per_edge[str(source)][ids].to(self.device) for i, source in zip(wanted, sources, strict=True)
            }
        # The model makes something of them first, for each edge on its own.
        if ids == slice(None):
            ends = range(0, self.edges.num_edges, self.limits.edges)
            parts = [self.edge_values(k, call, slice(start, start + self.limits.edges)) for start in ends]
            return {i: torch.cat([part[i] for part in parts]) for i in wanted} if parts else {}
        block = self.make_block(self.trace.rows, ids)
        arguments = self.replay.run(block, lambda j, _: self.trace.outputs[j].clone(), k)
        return {i: arguments.leaves[i] for i in wanted}


def taken_apart(data: Data) -> tuple[str, Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Return where the edges are, the edge list, the tensors with a row per node, and those with a row per edge."""
    key = "edge_index" if "edge_index" in data else "adj_t"
    per_node, per_edge = {}, {}
    for name in data.keys():  # noqa: SIM118
        value = data[name]
        if name in ("edge_index", "adj_t") or not isinstance(value, Tensor):
            continue
        if data.is_node_attr(name):
            per_node[name] = value
        elif data.is_edge_attr(name):
            per_edge[name] = value
    if isinstance(data.get("x"), Tensor) and data.x.layout != torch.strided:
        raise TypeError(f"'data.x' must be a dense tensor (got {data.x.layout})")
    if key == "edge_index":
        return key, data.edge_index, per_node, per_edge
    if isinstance(data.adj_t, Tensor):
        (row, col), value = to_edge_index(data.adj_t)
    else:
        row, col, value = data.adj_t.coo()
    if value is not None and not bool((value == 1).all()):
        per_edge["edge_weight"] = value
    return key, torch.stack([col, row]), per_node, per_edge
